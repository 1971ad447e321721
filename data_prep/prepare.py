"""Upload + recipe -> dataset folder; the same two give the same bytes, always."""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from data_prep.checks import Finding, check_examples, refuse_errors
from data_prep.cleaners import mask_personal_data
from data_prep.ledger import show_samples
from data_prep.mapping import check_mapping, map_rows
from data_prep.marks import Tokenise
from data_prep.recipe import PrepRecipe, all_augmenters, all_cleaners, complete
from data_prep.splits import Parts, input_key, split_examples
from data_prep.step_spec import find_spec, parse_options
from data_prep.upload import Upload, load_upload, read_rows
from templates.dataset import MANIFEST, SPLITS, Dataset, SplitFile, StepReport
from templates.errors import DataError
from templates.example import Example
from templates.files import (
    canonical_json,
    disk_errors,
    sha256_of_bytes,
    sync_folder,
    write_atomically,
)
from templates.values import parse

RECIPE = "recipe.json"
Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Cleaned:
    """What the page shows before anything is written.

    Attributes:
        examples: after all cleaners.
        reports: one per step so far, mapping first.
        findings: errors and warnings of the checks.
    """

    examples: Sequence[Example]
    reports: tuple[StepReport, ...]
    findings: tuple[Finding, ...]


def clean_upload(
    upload_folder: Path,
    recipe: PrepRecipe,
    *,
    tokenise: Tokenise | None = None,
    progress: Progress | None = None,
    max_rows: int | None = None,
) -> Cleaned:
    """Map, clean and check the rows of an upload, without writing anything.

    Args:
        upload_folder: what `read_upload` made.
        recipe: mapping and steps.
        tokenise: text to token ids of the base; None checks text only.
        progress: called with the share done (0 to 1) and what is being done.
        max_rows: leave out the rows after these; None reads all.

    Returns:
        Examples, reports and findings; errors are among the findings, not raised.

    Raises:
        DataError: the mapping, a step or an option does not fit.
    """
    tell = progress or _silent
    recipe = complete(recipe)
    upload = load_upload(upload_folder)
    columns = [column.name for column in upload.columns]
    check_mapping(recipe.template, recipe.mapping, columns)
    tell(0.0, "reading rows")
    rows = read_rows(upload_folder, limit=max_rows)
    examples, report = map_rows(rows, recipe.template, recipe.mapping)
    reports = [report]
    for position, step in enumerate(recipe.steps, 1):
        tell(0.1 + 0.5 * position / (len(recipe.steps) + 1), f"cleaning: {step.name}")
        spec = find_spec(all_cleaners(), step.name, kind="cleaner")
        examples, report = spec.clean(examples, parse_options(spec, dict(step.options)))
        reports.append(report)
    tell(0.6, "checking")
    findings = check_examples(examples, recipe.template, tokenise=tokenise)
    return Cleaned(examples, _to_keep(reports, recipe), tuple(findings))


def prepare(
    upload_folder: Path,
    recipe: PrepRecipe,
    datasets_folder: Path,
    *,
    name: str | None = None,
    tokenise: Tokenise | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Turn an upload into a dataset folder named after upload and recipe.

    Args:
        upload_folder: what `read_upload` made.
        recipe: mapping, steps, augmenters, splits, seed.
        datasets_folder: where the new folder goes.
        name: what the person calls the dataset; default: the name of the upload.
        tokenise: text to token ids of the base; None checks text only.
        progress: called with the share done (0 to 1) and what is being done.

    Returns:
        The manifest; an equal dataset that is there already is kept.

    Raises:
        DataError: the mapping, a step or an option does not fit, or a check found an error.
    """
    tell = progress or _silent
    recipe = complete(recipe)
    upload = load_upload(upload_folder)
    cleaned = clean_upload(upload_folder, recipe, tokenise=tokenise, progress=progress)
    try:
        refuse_errors(cleaned.findings)
    except DataError as error:
        lost = [
            f"{r.step} {r.rows_in - r.rows_out}" for r in cleaned.reports if r.rows_in > r.rows_out
        ]
        if not lost:
            raise
        where = "; ".join(filter(None, (error.where, f"rows dropped by {', '.join(lost)}")))
        raise DataError(error.what, where=where, fix=error.fix) from None
    tell(0.7, "splitting")
    fixed = fixed_splits(upload_folder, recipe)
    parts, report = split_examples(cleaned.examples, recipe.splits, seed=recipe.seed, fixed=fixed)
    reports = [*cleaned.reports, report]
    for step in recipe.augmenters:
        tell(0.8, f"augmenting: {step.name}")
        reports.append(_augment(parts, step.name, dict(step.options), recipe.seed))
    tell(0.9, "writing")
    files = {
        f"{split}.jsonl": "".join(example.to_json() + "\n" for example in parts[split])
        for split in SPLITS
    }
    files[RECIPE] = recipe.to_json()
    kept = _to_keep(reports, recipe)
    dataset = _manifest(upload, recipe, name or upload.name, cleaned, parts, files, kept)
    files[MANIFEST] = canonical_json(dataset.model_dump(mode="json"), indent=1) + "\n"
    _publish(datasets_folder / dataset.id, files)
    tell(1.0, "done")
    return dataset


def rewrite_new_rows(dataset_folder: Path, examples: Sequence[Example]) -> list[Example]:
    """Give new rows the rewriting steps that the training rows had, such as masking.

    Args:
        dataset_folder: holds the recipe.
        examples: new rows, unlabelled.

    Returns:
        As many examples, in the same order.
    """
    text = (dataset_folder / RECIPE).read_text(encoding="utf-8")
    recipe = parse(PrepRecipe, json.loads(text), where=RECIPE, error=DataError)
    rewritten = list(examples)
    for step in recipe.steps:
        spec = find_spec(all_cleaners(), step.name, kind="cleaner")
        if spec.only_rewrites:
            rewritten, _ = spec.clean(rewritten, parse_options(spec, dict(step.options)))
    return rewritten


def _silent(share: float, text: str) -> None:
    """Nobody is watching."""


def _to_keep(reports: Sequence[StepReport], recipe: PrepRecipe) -> tuple[StepReport, ...]:
    """Shorten the samples; where the recipe masks texts, those of every step are masked too."""
    masks = [
        mask_personal_data.Options.model_validate(step.options)
        for step in recipe.steps
        if step.name == mask_personal_data.SPEC.name
    ]

    def masked(text: str) -> str:
        for options in masks:
            text = mask_personal_data.mask(text, options, Counter())
        return text

    return tuple(show_samples(report, masked) for report in reports)


def fixed_splits(upload_folder: Path, recipe: PrepRecipe) -> dict[int, str] | None:
    """Read what the split column says.

    Args:
        upload_folder: what `read_upload` made.
        recipe: names the column, or none.

    Returns:
        The cell by row number; None where there is no such column.
    """
    column = recipe.mapping.split
    if column is None:
        return None
    return {row.number: row.cells[column] for row in read_rows(upload_folder)}


def _augment(parts: Parts, name: str, options: dict[str, object], seed: int) -> StepReport:
    """Augment training only; a copy that would repeat a held-out input is thrown away."""
    spec = find_spec(all_augmenters(), name, kind="augmenter")
    train, report = spec.augment(parts["train"], parse_options(spec, options), seed)
    held_out = {input_key(item) for split in SPLITS[1:] for item in parts[split]}
    kept = [item for item in train if item.origin == "upload" or input_key(item) not in held_out]
    counts = dict(report.counts)
    if len(kept) < len(train):
        counts["thrown away: repeats a held-out row"] = len(train) - len(kept)
    parts["train"] = kept
    changed: StepReport = report.model_copy(update={"rows_out": len(kept), "counts": counts})
    return changed


def _manifest(
    upload: Upload,
    recipe: PrepRecipe,
    name: str,
    cleaned: Cleaned,
    parts: Parts,
    files: dict[str, str],
    reports: tuple[StepReport, ...],
) -> Dataset:
    hashes = {file: sha256_of_bytes(content.encode()) for file, content in files.items()}
    identity = canonical_json({"upload": upload.sha256, "recipe": recipe.model_dump(mode="json")})
    labels = {example.label for example in cleaned.examples if example.label is not None}
    return Dataset(
        id=f"ds-{sha256_of_bytes(identity.encode())[:10]}",
        name=name,
        template=recipe.template,
        labels=tuple(sorted(labels)),
        splits={
            split: SplitFile(rows=len(parts[split]), sha256=hashes[f"{split}.jsonl"])
            for split in SPLITS
        },
        columns=recipe.mapping.columns(),
        upload_id=upload.id,
        upload_sha256=upload.sha256,
        recipe_sha256=hashes[RECIPE],
        reports=reports,
        warnings=tuple(finding.sentence() for finding in cleaned.findings),
    )


def _publish(folder: Path, files: dict[str, str]) -> None:
    """Put all files in place at once, or none."""
    same = [(folder / file).is_file() for file in files]
    if all(same) and all((folder / f).read_bytes() == c.encode() for f, c in files.items()):
        return
    temporary = folder.with_name(f".{folder.name}.{uuid4().hex[:8]}.tmp")
    replaced = folder.with_name(f".{folder.name}.{uuid4().hex[:8]}.old")
    with disk_errors("the dataset"):
        try:
            temporary.mkdir(parents=True)
            for file, content in files.items():
                write_atomically(temporary / file, content)
            if folder.is_dir():
                folder.rename(replaced)
            temporary.rename(folder)
            sync_folder(folder.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.rmtree(replaced, ignore_errors=True)
