"""Publish: a finished run becomes a folder that the ecosystem loads, and perhaps a zip of it.

The folder is whole, read back and checked before it gets its name.
"""

import json
import os
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from uuid import uuid4

from engine.base_model import BaseFolder, load_skeleton
from engine.checkpoint_tensors import read_learned
from engine.checkpoints import Checkpoint, best_checkpoint
from engine.comparing.comparison import Comparison
from engine.language_model import LanguageModel
from engine.method import MethodSpec, count_parameters, load_trained, parse_options, trainable
from engine.methods import get_method
from engine.model_folder import STARTER
from engine.plan import TrainPlan
from engine.publishing.adapter_folder import load_adapter, write_adapter
from engine.publishing.card import write_card
from engine.publishing.merged_folder import hold_in_fp32, load_merged, merge_plain, write_merged
from engine.publishing.parity import check_rounded, check_same, largest_difference, witness
from engine.publishing.prompt_format import prompt_format
from engine.publishing.publication import (
    CARD,
    RECORD,
    Form,
    PromptFormat,
    Publication,
    PublishedBase,
    PublishedData,
    RunRecord,
)
from engine.publishing.published_files import describe, list_files, write_zip
from engine.runs import open_planned_base, tuned_model
from templates.dataset import Dataset, read_dataset, read_split
from templates.errors import PlanError, RunError
from templates.files import canonical_json, disk_errors, sync_folder, write_atomically

_LONGEST_NAME = 96
_TOKENIZER_CONFIG = "tokenizer_config.json"
_OF_THIS_MACHINE = ("is_local", "local_files_only", "name_or_path")


@dataclass(frozen=True)
class FinishedRun:
    """What a run leaves behind for publishing.

    Attributes:
        plan: its plan.
        checkpoints: the checkpoint folder inside its job folder; the best one is published.
        dataset_folder: the prepared data it learned from.
        comparison: what was measured, if anything.
    """

    plan: TrainPlan
    checkpoints: Path
    dataset_folder: Path
    comparison: Comparison | None = None

    @property
    def id(self) -> str:
        """The job folder's name."""
        return self.checkpoints.parent.name


def forms_of(spec: MethodSpec) -> tuple[Form, ...]:
    """List the forms in which a method's result can be published.

    Args:
        spec: the method.

    Returns:
        "adapter", "merged" or both.
    """
    possible: dict[Form, bool] = {"adapter": bool(spec.export), "merged": bool(spec.merge)}
    return tuple(form for form, can in possible.items() if can)


def publish(
    run: FinishedRun,
    target: Path,
    *,
    form: Form | None = None,
    name: str = "",
    zipped: bool = False,
) -> Publication:
    """Write a finished run as a new folder, and check what was written by reading it back.

    Args:
        run: the run.
        target: the new folder; its parent is made if need be.
        form: adapter or whole model; None: the adapter, where the method has one.
        name: title of the card; default: the folder's name.
        zipped: also write `<target>.zip`.

    Returns:
        What was written.

    Raises:
        PlanError: the method has no such form, or data and comparison belong to another run or
            to other weights.
        RunError: the target exists, the disk is full, or the files do not compute what was
            measured; nothing is left behind.
    """
    spec = get_method(run.plan.method.name)
    options = parse_options(spec, run.plan.method.options)
    target = Path(os.path.abspath(target.expanduser()))
    archive = target.with_name(f"{target.name}.zip") if zipped else None
    chosen = _chosen_form(spec, form)
    check_is_new(target, archive)
    dataset = _planned_dataset(run)
    checkpoint = best_checkpoint(run.checkpoints)
    _check_comparison(run, checkpoint)
    base = open_planned_base(run.plan)
    temporary = target.with_name(f".{target.name}.{uuid4().hex[:8]}.tmp")
    packed = temporary.with_suffix(".zip")
    try:
        with disk_errors("the published model"):
            temporary.mkdir(parents=True)
            model = _write_model(run, checkpoint, base, temporary, chosen)
            record = RunRecord(
                name=_one_line(name) or _one_line(target.name),
                folder=target.name,
                form=chosen,
                run_id=run.id,
                plan=_without_path(run.plan, base),
                plan_digest=run.plan.digest,
                base=published_base(base),
                data=_published_data(dataset),
                prompt=model.prompt,
                num_trainable=model.num_trainable,
                num_parameters=model.num_parameters,
                parity=model.parity,
                effect=model.effect,
                comparison=_comparison_without_path(run.comparison, base),
                adapter_servers=spec.adapter_servers(options) if chosen == "adapter" else (),
                adapter_rank=options.published_rank,
            )
            _write_words(temporary, record, spec)
            files = list_files(temporary)
            if archive:
                write_zip(temporary, packed, root=target.name)
            temporary.rename(target)
            if archive:
                packed.rename(archive)
            sync_folder(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        packed.unlink(missing_ok=True)
    return Publication(
        form=chosen,
        folder=target.name,
        files=files,
        parity=model.parity,
        effect=model.effect,
        archive=describe(archive, archive.name) if archive else None,
    )


@dataclass(frozen=True)
class _WrittenModel:
    """What only the model in memory could tell."""

    prompt: PromptFormat
    num_trainable: int
    num_parameters: int
    parity: float
    effect: float


def _write_model(
    run: FinishedRun, checkpoint: Checkpoint, base: BaseFolder, folder: Path, form: Form
) -> _WrittenModel:
    """Write weights and tokenizer, then read them back; one model is in memory at a time."""
    plan, dataset = run.plan, read_dataset(run.dataset_folder)
    spec = get_method(plan.method.name)
    options = parse_options(spec, plan.method.options)
    asked = read_split(run.dataset_folder, "validation")
    ask = partial(witness, examples=asked, template=dataset.template, limits=plan.limits)
    tuned = tuned_model(plan, base)
    tuned.model.eval()
    start = ask(tuned)
    load_trained(tuned.model, read_learned(checkpoint))
    measured = ask(tuned)
    effect = largest_difference(start, measured)
    prompt = prompt_format(tuned, dataset, read_split(run.dataset_folder, "train"))
    num_trainable = count_parameters(trainable(tuned.model).values())
    num_parameters = count_parameters(load_skeleton(base).parameters())
    _write_tokenizer(folder, tuned)
    if form == "adapter":
        assert spec.export is not None
        write_adapter(folder, spec.export(tuned, options), published_base(base))
        del tuned
        parity = check_same(measured, ask(load_adapter(folder, base, plan, spec)))
    else:
        tuned = hold_in_fp32(tuned)
        exact = ask(tuned)
        merge_plain(tuned, spec)
        check_same(exact, ask(tuned))
        tuned = write_merged(folder, tuned, plan.base.precision)
        written = ask(tuned)
        del tuned
        published = ask(load_merged(folder, plan.base.precision))
        check_same(written, published)
        if plan.base.precision == "fp32":
            parity = check_same(measured, published)
        else:
            parity = check_rounded(measured, published, effect=effect)
    return _WrittenModel(prompt, num_trainable, num_parameters, parity, effect)


def _write_tokenizer(folder: Path, tuned: LanguageModel) -> None:
    tuned.tokenizer.save_pretrained(folder)
    path = folder / _TOKENIZER_CONFIG
    config = json.loads(path.read_text(encoding="utf-8"))
    kept = {key: value for key, value in config.items() if key not in _OF_THIS_MACHINE}
    write_atomically(path, canonical_json(kept, indent=2) + "\n")


def _write_words(folder: Path, record: RunRecord, spec: MethodSpec) -> None:
    options = parse_options(spec, record.plan.method.options).model_dump(mode="json")
    fields = spec.options.model_fields
    titled = {fields[name].title or name: value for name, value in options.items()}
    card = write_card(record, method_title=spec.title, options=titled)
    write_atomically(folder / CARD, card)
    content = canonical_json(record.model_dump(mode="json"), indent=2)
    write_atomically(folder / RECORD, content + "\n")


def _chosen_form(spec: MethodSpec, wanted: Form | None) -> Form:
    forms = forms_of(spec)
    for form in forms:
        if wanted in (form, None):
            return form
    raise PlanError(
        f"{spec.title} cannot be published as {wanted!r}",
        where="form",
        fix=f"Publish it as {' or '.join(forms)}",
    )


def check_is_new(target: Path, archive: Path | None = None) -> None:
    """Refuse to publish to where something is already.

    Args:
        target: the new folder.
        archive: the new file beside it, if there shall be one.

    Raises:
        RunError: there is something, or the name is none.
    """
    if not target.name or not target.name.isprintable():
        raise RunError(
            "This is no name for a folder that others can open",
            where=repr(target.name),
            fix="Choose a name of letters, digits and hyphens",
        )
    if target.is_symlink() or target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise RunError(
            "There is something at the place to publish to already",
            where=target.name,
            fix="Choose a new folder",
        )
    if archive and archive.exists():
        raise RunError(
            "There is a zip of this name already", where=archive.name, fix="Choose a new folder"
        )


def _planned_dataset(run: FinishedRun) -> Dataset:
    dataset = read_dataset(run.dataset_folder)
    if dataset.sha256 != run.plan.dataset_sha256:
        raise PlanError(
            "The data changed since this plan was made",
            where=dataset.id,
            fix="Publish with the data the run was trained on",
        )
    return dataset


def _check_comparison(run: FinishedRun, checkpoint: Checkpoint) -> None:
    compared = run.comparison
    if compared is None:
        return
    if (compared.run_id, compared.dataset_sha256) != (run.id, run.plan.dataset_sha256):
        raise PlanError(
            "The comparison belongs to another run",
            where=compared.run_id,
            fix="Compare this run, or publish it without a comparison",
        )
    if compared.weights_sha256 != checkpoint.weights_sha256:
        raise PlanError(
            "The comparison was made with other weights than the run has now",
            where=compared.run_id,
            fix="Compare again, then publish",
        )


def published_base(base: BaseFolder) -> PublishedBase:
    """Say which base something was made for, without a path of this machine.

    Args:
        base: the base.

    Returns:
        What is published of it.
    """
    has_public_name = base.revision or base.id == STARTER
    return PublishedBase(
        id=base.id if has_public_name else Path(os.path.abspath(base.path)).name,
        revision=base.revision,
        fingerprint=base.fingerprint,
        licence=base.licence,
    )


def _without_path(plan: TrainPlan, base: BaseFolder) -> TrainPlan:
    choice = plan.base.model_copy(update={"id": published_base(base).id})
    return plan.model_copy(update={"base": choice})


def _comparison_without_path(comparison: Comparison | None, base: BaseFolder) -> Comparison | None:
    return comparison and comparison.model_copy(update={"base_id": published_base(base).id})


def _published_data(dataset: Dataset) -> PublishedData:
    rows = {split: file.rows for split, file in dataset.splits.items()}
    return PublishedData(id=dataset.id, name=dataset.name, sha256=dataset.sha256, rows=rows)


def _one_line(name: str) -> str:
    visible = "".join(letter if letter.isprintable() else " " for letter in name)
    return " ".join(visible.split())[:_LONGEST_NAME]
