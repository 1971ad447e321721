"""Weighted LoRA adapters of one base as one new adapter folder, read back and checked."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

import torch
from pydantic import Field

from engine.adapter_combination import combine_loras
from engine.adapter_import import (
    AdapterAbout,
    attach_adapter,
    describe_adapter,
    read_adapter,
)
from engine.base_model import BaseFolder, load_base
from engine.batches import collate
from engine.encode import Encoded
from engine.language_model import LanguageModel
from engine.loss import supervised_logits
from engine.methods import get_method
from engine.publishing.adapter_folder import write_adapter
from engine.publishing.parity import Witness, check_same
from engine.publishing.publication import RECORD, PublishedBase
from engine.publishing.publish import check_is_new, published_base
from templates.files import canonical_json, disk_errors, write_atomically
from templates.values import Value


class CombinationRecord(Value):
    """What a sum of adapters says of itself, in the place of a run's record."""

    base: PublishedBase
    parts: tuple[tuple[str, float], ...] = Field(description="Folder's name and its weight.")


_WITNESS = Encoded(tuple(range(1, 33)), (False,) + (True,) * 31)  # any text: no task is known


def publish_combination(
    weights: Mapping[Path, float], base: BaseFolder, target: Path
) -> AdapterAbout:
    """Add up adapters, each times its weight, and write the sum as an adapter of its own.

    Args:
        weights: by adapter folder; any numbers, also negative ones.
        base: what all of them were made for.
        target: the new folder; its parent is made if need be.

    Returns:
        What was written.

    Raises:
        ModelError: an adapter cannot be read, or was made for another base.
        PlanError: they cannot be added up.
        RunError: the target exists, the disk is full, or the files do not compute the sum; nothing
            is left behind.
    """
    target = Path(os.path.abspath(target.expanduser()))
    check_is_new(target)
    read = [read_adapter(folder, base) for folder in weights]
    model = load_base(base, "fp32")
    combined = combine_loras(model, read, list(weights.values()))
    temporary = target.with_name(f".{target.name}.{uuid4().hex[:8]}.tmp")
    try:
        with disk_errors("the combined adapter"):
            temporary.mkdir(parents=True)
            spec = get_method(combined.method)
            assert spec.export is not None
            tuned = attach_adapter(model, combined)
            named = published_base(base)
            write_adapter(temporary, spec.export(tuned, combined.options), named)
            parts = tuple((folder.resolve().name, weight) for folder, weight in weights.items())
            record = CombinationRecord(base=named, parts=parts)
            content = canonical_json(record.model_dump(mode="json"), indent=2)
            write_atomically(temporary / RECORD, content + "\n")
            written = read_adapter(temporary, base)
            added_up = _ask(tuned)
            del tuned, model  # one base is in memory at a time
            check_same(added_up, _ask(attach_adapter(load_base(base, "fp32"), written)))
            about = describe_adapter(temporary, written)
            temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return about


@torch.no_grad()
def _ask(language_model: LanguageModel) -> Witness:
    logits, _ = supervised_logits(language_model, collate([_WITNESS], language_model))
    return Witness([_WITNESS], logits)
