"""What preparing would do, for the page: nothing is written."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import Field

from data_prep.mapping import check_mapping, map_rows
from data_prep.prepare import clean_upload, fixed_splits
from data_prep.recipe import PrepRecipe
from data_prep.splits import split_examples
from data_prep.table import shortened
from data_prep.upload import load_upload, read_rows
from templates.dataset import Split, StepReport
from templates.errors import DataError
from templates.example import Example
from templates.render import render
from templates.values import Value

_MOST_ROWS = 200  # of a report's row numbers
_TEXT_CHARACTERS = 4_000


class ShownFinding(Value):
    """What a check found, in a sentence."""

    sentence: str
    is_error: bool


class Rehearsal(Value):
    """How rows would become examples.

    Attributes:
        reports: one per step, the mapping first; each with the numbers of its first rows.
        findings: errors and warnings.
        num_examples: how many are left.
        label_counts: how many examples each label has.
        examples: the first ones; their texts are shortened.
        splits: rows of train, validation and test; None where they cannot be divided.
    """

    reports: tuple[StepReport, ...]
    findings: tuple[ShownFinding, ...]
    num_examples: int
    label_counts: Mapping[str, int]
    examples: tuple[Mapping[str, Any], ...]
    splits: Mapping[Split, int] | None


class ShownRow(Value):
    """A row as a base without a chat template reads it; shortened."""

    prompt: str
    completion: str
    source_rows: tuple[int, ...] = Field(description="1-based rows of the upload.")


def rehearse(
    upload_folder: Path, recipe: PrepRecipe, *, num_examples: int = 20, max_rows: int | None = None
) -> Rehearsal:
    """Map, clean, check and divide, without writing anything.

    Args:
        upload_folder: what `read_upload` made.
        recipe: mapping, steps, splits.
        num_examples: how many to show.
        max_rows: leave out the rows after these; None reads all.

    Returns:
        What came of it.
    """
    cleaned = clean_upload(upload_folder, recipe, max_rows=max_rows)
    findings = [
        ShownFinding(sentence=finding.sentence(), is_error=finding.level == "error")
        for finding in cleaned.findings
    ]
    reports, splits = list(cleaned.reports), None
    try:
        fixed = fixed_splits(upload_folder, recipe)
        parts, report = split_examples(
            cleaned.examples, recipe.splits, seed=recipe.seed, fixed=fixed
        )
        splits = {split: len(part) for split, part in parts.items()}
        reports.append(report)
    except DataError as error:
        if cleaned.examples:  # else the findings say so
            findings.append(ShownFinding(sentence=str(error), is_error=True))
    labels = Counter(example.label for example in cleaned.examples if example.label is not None)
    return Rehearsal(
        reports=tuple(
            report.model_copy(update={"rows": report.rows[:_MOST_ROWS]}) for report in reports
        ),
        findings=tuple(findings),
        num_examples=len(cleaned.examples),
        label_counts=dict(labels.most_common()),
        examples=tuple(map(_shown, cleaned.examples[:num_examples])),
        splits=splits,
    )


def render_rows(upload_folder: Path, recipe: PrepRecipe, count: int) -> list[ShownRow]:
    """Put the first rows into the words of the template.

    Args:
        upload_folder: what `read_upload` made.
        recipe: template and mapping; its steps are left out.
        count: how many.

    Returns:
        Prompt and completion of each; a row that cannot be an example is left out.
    """
    columns = [column.name for column in load_upload(upload_folder).columns]
    check_mapping(recipe.template, recipe.mapping, columns)
    rows = read_rows(upload_folder, limit=count)
    examples, _ = map_rows(rows, recipe.template, recipe.mapping)
    rendered = [(example, render(example, recipe.template)) for example in examples]
    return [
        ShownRow(
            prompt=shortened(words.prompt, _TEXT_CHARACTERS),
            completion=shortened(words.completion, _TEXT_CHARACTERS),
            source_rows=example.source_rows,
        )
        for example, words in rendered
    ]


def _shown(example: Example) -> dict[str, Any]:
    texts = [shortened(text, _TEXT_CHARACTERS) for text in example.texts()]
    return asdict(example.with_texts(texts))
