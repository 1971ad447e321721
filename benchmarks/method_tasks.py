"""Three real tasks as prepared data sets: rows to learn from, to validate on and to test on.

The tables lie in the folder that STUDIO_DATA names, and are not part of the project. They are used
to report, never to choose a default.
"""

import csv
import gzip
import io
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.comparing.prompting import Question
from starter.measuring.tuning import prepare_rows
from templates.builtin import TEMPLATES
from templates.dataset import Dataset
from templates.errors import DataError
from templates.example import Example
from templates.template import Template

TASKS = ("sst2", "trec", "e2e_nlg")
NUM_TRAIN, NUM_VALIDATION = 400, 60
_NUM_TEST = {"sst2": 300, "trec": 300, "e2e_nlg": 60}
_LONGEST_ANSWER_TOKENS = 48  # the longest answers of the generating task are cut, for all alike


@dataclass(frozen=True)
class MethodTask:
    """Rows of a task for one seed.

    Attributes:
        name: of the folder with its tables.
        template: how it is asked.
        train: rows to learn from.
        validation: rows that choose the checkpoint.
        test: rows that are reported on; the same for every seed.
    """

    name: str
    template: Template
    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels in a fixed order; none where answers are written."""
        return tuple(sorted({row.label for row in self.train if row.label is not None}))

    @property
    def question(self) -> Question:
        """What base and tuned model are asked."""
        return Question(self.template, self.labels, _LONGEST_ANSWER_TOKENS)

    def prepare(self, folder: Path) -> Dataset:
        """Write training and validation rows as prepared data, which is what plans are made for.

        Args:
            folder: an empty one.

        Returns:
            The manifest.
        """
        return prepare_rows(folder, self.name, self.question, self.train, self.validation)


def method_task(name: str, seed: int, *, num_train: int = NUM_TRAIN) -> MethodTask:
    """Draw a task's rows.

    Args:
        name: one of TASKS.
        seed: draws the rows to learn from and to validate on.
        num_train: rows to learn from.

    Returns:
        The task.

    Raises:
        DataError: the tables are not there.
    """
    tables = Path(os.environ.get("STUDIO_DATA", "")) / "tasks" / name
    if not os.environ.get("STUDIO_DATA") or not tables.is_dir():
        raise DataError(
            f"The tables of {name} are not there",
            where="STUDIO_DATA",
            fix="Set it to the folder that holds tasks/sst2, tasks/trec and tasks/e2e_nlg",
        )
    written = name == "e2e_nlg"
    train, test = (
        _written(_rows(tables, split)) if written else _labelled(_rows(tables, split))
        for split in ("train", "test")
    )
    drawn = random.Random(f"{name}/{seed}").sample(train, num_train + NUM_VALIDATION)
    fixed = random.Random(name).sample(test, _NUM_TEST[name])
    template = TEMPLATES["generation" if written else "classification"]
    return MethodTask(
        name, template, tuple(drawn[:num_train]), tuple(drawn[num_train:]), tuple(fixed)
    )


def _rows(tables: Path, split: str) -> Iterator[dict[str, str]]:
    plain = tables / f"{split}.csv"
    packed = tables / f"{split}.csv.gz"
    content = plain.read_bytes() if plain.exists() else gzip.decompress(packed.read_bytes())
    yield from csv.DictReader(io.StringIO(content.decode("utf-8"), newline=""))


def _labelled(rows: Iterator[dict[str, str]]) -> list[Example]:
    return [
        Example(fields={"text": row["text"].strip()}, label=row["label"].strip(), source_rows=(at,))
        for at, row in enumerate(rows, 1)
    ]


def _written(rows: Iterator[dict[str, str]]) -> list[Example]:
    """One example for each meaning, with all that people wrote for it."""
    references: dict[str, list[str]] = {}
    places: dict[str, int] = {}
    for at, row in enumerate(rows, 1):
        references.setdefault(row["mr"], []).append(row["ref"].strip())
        places.setdefault(row["mr"], at)
    return [
        Example(
            fields={"instruction": "", "input": meaning},
            references=tuple(texts),
            source_rows=(places[meaning],),
        )
        for meaning, texts in references.items()
    ]
