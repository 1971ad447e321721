"""The prepared data: a folder where data_prep writes and engine reads.

<id>/dataset.json      this manifest
<id>/recipe.json       what to replay
<id>/{train,validation,test}.jsonl   one Example a line
"""

import json
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from templates.errors import DataError
from templates.example import Example, read_examples
from templates.files import canonical_json, disk_errors, sha256_of_bytes, sha256_of_file
from templates.template import Template
from templates.values import Value, parse

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
MANIFEST = "dataset.json"


class Change(Value):
    """One sample of what a step did."""

    row: int = Field(ge=1, description="1-based data row of the upload.")
    before: str
    after: str | None = Field(description="None: the row was dropped.")


class StepReport(Value):
    """What one preparation step did to the rows."""

    step: str
    rows_in: int
    rows_out: int
    rows_changed: int
    counts: Mapping[str, int] = Field(default_factory=dict, description="How many of what.")
    rows: tuple[int, ...] = Field(default=(), description="Upload rows changed or dropped.")
    samples: tuple[Change, ...] = ()


class SplitFile(Value):
    """One split on disk."""

    rows: int
    sha256: str


class Dataset(Value):
    """The manifest of a prepared folder; equal upload and recipe give equal bytes."""

    id: str
    name: str
    template: Template
    labels: tuple[str, ...] = ()
    splits: Mapping[Split, SplitFile]
    columns: Mapping[str, str] = Field(description="Template slot or target -> upload column.")
    upload_id: str
    upload_sha256: str
    recipe_sha256: str
    reports: tuple[StepReport, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def sha256(self) -> str:
        """One hash over the examples and the wording: the identity of the data."""
        parts = {split: file.sha256 for split, file in self.splits.items()}
        content = {"splits": parts, "template": self.template.model_dump(mode="json")}
        return sha256_of_bytes(canonical_json(content).encode())


def read_dataset(folder: Path) -> Dataset:
    """Read a prepared folder and check that its splits are the ones the manifest names.

    Args:
        folder: the dataset folder.

    Returns:
        The manifest.

    Raises:
        DataError: no dataset is there, or its files were changed since prepare.
    """
    dataset = read_manifest(folder)
    for split, file in dataset.splits.items():
        part = folder / f"{split}.jsonl"
        if not part.is_file() or sha256_of_file(part) != file.sha256:
            raise DataError(
                "The prepared data changed since it was prepared",
                where=f"{folder.name}/{part.name}",
                fix="Run prepare again",
            )
    return dataset


def read_manifest(folder: Path) -> Dataset:
    """Read what a prepared folder says of itself, without a look at its splits.

    Args:
        folder: the dataset folder.

    Returns:
        The manifest.

    Raises:
        DataError: no dataset is there.
    """
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise DataError(
            "There is no prepared data here", where=folder.name, fix="Run prepare first"
        ) from None
    return parse(Dataset, content, where=f"{folder.name}/{MANIFEST}", error=DataError)


def read_split(folder: Path, split: Split) -> list[Example]:
    """Read all examples of one split.

    Args:
        folder: the dataset folder.
        split: which one.

    Returns:
        The examples in file order.
    """
    return list(each_example(folder, split))


def each_example(folder: Path, split: Split) -> Iterator[Example]:
    """Read one split, one example at a time, so that not all texts are in memory.

    Args:
        folder: the dataset folder.
        split: which one.

    Yields:
        The examples in file order.
    """
    yield from read_examples(folder / f"{split}.jsonl")


def count_test_looks(ledger: Path, rows: Collection[int]) -> int:
    """Count how often any of these rows was scored; each look makes a lucky result likelier.

    Args:
        ledger: the looks at one upload, whatever datasets were made of it.
        rows: upload rows of a test split.

    Returns:
        The number of looks so far.
    """
    if not ledger.is_file():
        return 0
    looks = [json.loads(line) for line in ledger.read_text(encoding="utf-8").splitlines()]
    return sum(not set(rows).isdisjoint(look["rows"]) for look in looks)


def record_test_look(ledger: Path, rows: Collection[int], purpose: str) -> int:
    """Write down that test rows are being scored, before anyone sees the score.

    Args:
        ledger: the looks at one upload.
        rows: upload rows of the test split.
        purpose: the id of the comparison.

    Returns:
        The number of looks including this one.
    """
    look = {"looked_at": time.time(), "purpose": purpose, "rows": sorted(rows)}
    with disk_errors(ledger.name):
        ledger.parent.mkdir(parents=True, exist_ok=True)
        with ledger.open("a", encoding="utf-8") as file:
            file.write(canonical_json(look) + "\n")
    return count_test_looks(ledger, rows)
