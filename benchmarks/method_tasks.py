"""Real tasks as prepared data sets: rows to learn from, to validate on and to test on.

The tables lie in the folder that STUDIO_DATA names, and are not part of the project. Three are used
to report, never to choose a default; two others to choose defaults, never to report.
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
CHOOSING_TASKS = ("snips", "clinc150")
USUAL_NUM_TRAIN, USUAL_NUM_TEST, NUM_VALIDATION = 400, 300, 60
NUM_TRAIN, NUM_TEST = {"e2e_nlg": 200}, {"e2e_nlg": 60}  # where rows are five times as long
_MOST_INTENTS = 15
_LONGEST_ANSWER_TOKENS = 48  # the longest answers of the generating task are cut, for all alike


@dataclass(frozen=True)
class MethodTask:
    """Rows of a task for one seed.

    Attributes:
        name: of the folder with its tables.
        template: how it is asked.
        train: rows to learn from.
        validation: rows that choose the checkpoint.
        test: rows that are scored; of TASKS the same for every seed.
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


def method_task(name: str, seed: int, *, num_train: int = 0) -> MethodTask:
    """Draw a task's rows.

    Args:
        name: one of TASKS or CHOOSING_TASKS.
        seed: draws the rows to learn from and to validate on.
        num_train: rows to learn from; 0: as many as usual.

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
            fix=f"Set it to the folder that holds tasks/{', tasks/'.join(TASKS + CHOOSING_TASKS)}",
        )
    num_train = num_train or NUM_TRAIN.get(name, USUAL_NUM_TRAIN)
    num_test = NUM_TEST.get(name, USUAL_NUM_TEST)
    draw = random.Random(f"{name}/{seed}")
    if name in CHOOSING_TASKS:  # its test table is not looked at
        drawn = draw.sample(_intents(_rows(tables, "train")), num_train + NUM_VALIDATION + num_test)
        test = drawn[num_train + NUM_VALIDATION :]
    else:
        read = _written if name == "e2e_nlg" else _labelled
        drawn = draw.sample(read(_rows(tables, "train")), num_train + NUM_VALIDATION)
        test = random.Random(name).sample(read(_rows(tables, "test")), num_test)
    return MethodTask(
        name=name,
        template=TEMPLATES["generation" if name == "e2e_nlg" else "classification"],
        train=tuple(drawn[:num_train]),
        validation=tuple(drawn[num_train : num_train + NUM_VALIDATION]),
        test=tuple(test),
    )


def _rows(tables: Path, split: str) -> Iterator[dict[str, str]]:
    plain = tables / f"{split}.csv"
    packed = tables / f"{split}.csv.gz"
    content = plain.read_bytes() if plain.exists() else gzip.decompress(packed.read_bytes())
    yield from csv.DictReader(io.StringIO(content.decode("utf-8"), newline=""))


def _labelled(rows: Iterator[dict[str, str]], column: str = "label") -> list[Example]:
    return [
        Example(fields={"text": row["text"].strip()}, label=row[column].strip(), source_rows=(at,))
        for at, row in enumerate(rows, 1)
    ]


def _intents(rows: Iterator[dict[str, str]]) -> list[Example]:
    """Rows of a few intents, so that each has its rows among those that are drawn."""
    every = _labelled(rows, "intent")
    names = sorted({row.label for row in every if row.label})
    kept = set(random.Random("intents").sample(names, min(len(names), _MOST_INTENTS)))
    return [row for row in every if row.label in kept]


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
