"""An adapter as the files that the `peft` library reads: written, and read back without it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save
from transformers import AutoTokenizer

from engine.adapter_import import CONFIG, TENSORS, open_adapter
from engine.base_model import BaseFolder, load_base
from engine.language_model import LanguageModel
from engine.method import MethodSpec, PeftAdapter, attach_method, parse_options
from engine.plan import TrainPlan
from engine.publishing.publication import PublishedBase
from engine.publishing.snippet import base_reference
from templates.errors import ModelError
from templates.files import canonical_json, write_atomically

_PEFT_VERSION = "0.21.2"  # the version that the tests load every adapter with


def write_adapter(folder: Path, adapter: PeftAdapter, base: PublishedBase) -> None:
    """Write config and tensors.

    Args:
        folder: an existing folder.
        adapter: from a method's `export`.
        base: what the adapter belongs to.
    """
    config: dict[str, Any] = {
        **adapter.config,
        "task_type": "CAUSAL_LM",
        "inference_mode": True,
        "base_model_name_or_path": base_reference(base),
        "revision": base.revision or None,
        "peft_version": _PEFT_VERSION,
    }
    write_atomically(folder / CONFIG, canonical_json(config, indent=2) + "\n")
    tensors = {name: value.cpu().contiguous() for name, value in adapter.tensors.items()}
    write_atomically(folder / TENSORS, save(tensors, metadata={"format": "pt"}))


def load_adapter(
    folder: Path, base: BaseFolder, plan: TrainPlan, spec: MethodSpec
) -> LanguageModel:
    """Put a written adapter on a fresh base, with the tokenizer that lies beside it.

    The start values are drawn with another seed, so that anything an export forgot shows.

    Args:
        folder: from `write_adapter`.
        base: the base it belongs to.
        plan: the run's plan: options, precision and seed.
        spec: its method.

    Returns:
        The model in evaluation mode.

    Raises:
        ModelError: the files do not describe this method with these options on this base.
    """
    tokenizer = AutoTokenizer.from_pretrained(
        folder, trust_remote_code=False, local_files_only=True
    )
    if spec.export_method:  # what was written is an adapter of that method, so it is read as one
        return replace(open_adapter(folder, base, plan.base.precision), tokenizer=tokenizer)
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    tensors = load_file(folder / TENSORS)
    options = parse_options(spec, plan.method.options)
    tuned = attach_method(load_base(base, plan.base.precision), spec, options, seed=plan.seed ^ 1)
    tuned.model.eval()
    assert spec.export is not None
    own = spec.export(tuned, options)
    shapes = {name: value.shape for name, value in tensors.items()}
    if shapes != {name: value.shape for name, value in own.tensors.items()} or not (
        own.config.items() <= config.items()
    ):
        raise ModelError(
            "The adapter belongs to another base, method or options",
            where=folder.name,
            fix="Publish it again from its run",
        )
    for name, value in own.tensors.items():
        value.copy_(tensors[name])  # exported tensors are views of the model's own
    return replace(tuned, tokenizer=tokenizer)
