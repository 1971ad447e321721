"""The tasks the starter is measured on: real tables, made-up families, and the score of answers.

None of the real tables was trained on. The model reads a label as a word: the tables' own words
say what they mean, but for SMS, where "ham" is jargon and becomes "normal".

| table | what is told apart | words |
|---|---|---|
| sst2 | sentences from film reviews | negative, positive |
| trec | what a question asks for | abbreviation, description, entity, human, location, number |
| subj | plot sentences and opinions | objective, subjective |
| cr | sentences from product reviews | negative, positive |
| mpqa | phrases from the news | negative, positive |
| sms_spam | text messages | normal, spam |

Shapes: D draws of demonstrations, N test rows, L labels, R resamples.
"""

import csv
import hashlib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.comparing.prompting import Question
from templates.builtin import TEMPLATES
from templates.example import Example

Row = tuple[str, str]  # text, label
Family = Callable[[random.Random, int], list[Row]]
Floats = NDArray[np.float64]

WORDS: dict[str, dict[str, str]] = {
    "sst2": {},
    "trec": {},
    "subj": {},
    "cr": {},
    "mpqa": {},
    "sms_spam": {"ham": "normal"},
}
REAL_TASKS = tuple(WORDS)
MOST_TEST_ROWS = 400
NUM_RESAMPLES = 2_000
_TEST_RATIO = 0.2  # of a table that comes without a test part
_SPARE_RATIO = 1.6  # a family may say the same text twice


@dataclass(frozen=True)
class Task:
    """Rows to learn from or to show, and rows to answer.

    Attributes:
        name: of the table or the family.
        train: labelled rows, none of whose texts is among the test rows.
        test: labelled rows.
        words: what the model reads for a label; the rest stand for themselves.
    """

    name: str
    train: tuple[Example, ...]
    test: tuple[Example, ...]
    words: Mapping[str, str]

    @property
    def labels(self) -> tuple[str, ...]:
        """All labels, in the order of their names."""
        return tuple(sorted({str(row.label) for row in (*self.train, *self.test)}))

    @property
    def question(self) -> Question:
        """What the product asks: its own classification template."""
        template = TEMPLATES["classification"].model_copy(update={"verbalizer": dict(self.words)})
        return Question(template=template, labels=self.labels, max_new_tokens=0)

    @property
    def digest(self) -> str:
        """A short hash over all rows: with other rows, what was measured is measured again."""
        lines = (f"{row.fields['text']}\t{row.label}" for row in (*self.train, *self.test))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]


def real_task(tables: Path, name: str, *, most_test_rows: int = MOST_TEST_ROWS) -> Task:
    """Open a table, with a fixed sample of its test part.

    Args:
        tables: the folder of all tables.
        name: one of REAL_TASKS.
        most_test_rows: size of the sample.

    Returns:
        The task, always with the same rows.
    """
    rows = _distinct(_read_table(tables / name / "train.csv"))
    own_test = tables / name / "test.csv"
    draw = random.Random(f"starter/{name}")  # noqa: S311 - no secret
    if own_test.is_file():
        test = _distinct(_read_table(own_test))
        draw.shuffle(test)
    else:
        draw.shuffle(rows)
        size = round(len(rows) * _TEST_RATIO)
        test, rows = rows[:size], rows[size:]
    texts = {text for text, _ in test}
    train = [row for row in rows if row[0] not in texts]
    return Task(name, _examples(train), _examples(test[:most_test_rows]), WORDS[name])


def family_task(
    name: str, family: Family, *, seed: str, num_train: int, num_test: int, by_turns: bool
) -> Task:
    """Draw one new instance of a made-up family.

    Args:
        name: of the family.
        family: draws an instance with its own label words.
        seed: says which instance.
        num_train: rows to learn from or to show.
        num_test: rows to answer.
        by_turns: whether each label gets its turn among the rows to show.

    Returns:
        The task. Where the family has too few different texts there are fewer test rows, all
        different; rows to learn from may then repeat each other, rows to show never do.
    """
    wanted = round((num_train + num_test) * _SPARE_RATIO) + 8
    rows = family(random.Random(f"{name}/{seed}"), wanted)  # noqa: S311 - no secret
    different = _distinct(rows)
    if by_turns:
        different = _by_turns(different, num_train)
        train, test = different[:num_train], different[num_train:]
    else:
        test = different[: min(num_test, len(different) // 3)]
        texts = {text for text, _ in test}
        train = [row for row in rows if row[0] not in texts]
    return Task(name, _examples(train[:num_train]), _examples(test[:num_test]), {})


def balanced_accuracy(expected: Sequence[int], hits: Sequence[int]) -> float:
    """Average the share of right answers over the labels, so that each counts the same.

    Args:
        expected: (N,) number of each row's label.
        hits: (N,) 1 where the answer was right.

    Returns:
        From 0 to 1; labels without a row are left out.
    """
    labels, right = np.asarray(expected), np.asarray(hits, dtype=np.float64)
    return float(np.mean([right[labels == label].mean() for label in np.unique(labels)]))


def accuracy_interval(
    expected: Sequence[Sequence[int]],
    hits: Sequence[Sequence[int]],
    *,
    same_rows: bool,
    less: Sequence[float] = (),
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Bootstrap the mean balanced accuracy over draws, and over rows within each label.

    Args:
        expected: D times (N,) label numbers.
        hits: D times (N,) 1 where the answer was right.
        same_rows: whether all draws answered the same rows in the same order. Their luck is then
            common to all draws, so each resample takes the same rows for all of them.
        less: (D,) what to take from each draw's value, such as its chance; default nothing.
        num_resamples: R.
        seed: fixes the resampling.

    Returns:
        The 2.5th and the 97.5th percentile.
    """
    generator = np.random.default_rng(seed)
    num_draws = len(hits)
    chosen = generator.integers(0, num_draws, (num_resamples, num_draws))
    if same_rows:
        means = _resampled_rows(np.asarray(expected[0]), np.asarray(hits), num_resamples, generator)
        values = np.take_along_axis(means, chosen, axis=1)
    else:
        values = np.zeros(chosen.shape)
        for draw in range(num_draws):
            picked = chosen == draw
            values[picked] = _resampled_rows(
                np.asarray(expected[draw]), np.asarray([hits[draw]]), int(picked.sum()), generator
            )[:, 0]
    if less:
        values = values - np.asarray(less)[chosen]
    low, high = np.percentile(values.mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def _resampled_rows(
    labels: NDArray[Any], hits: NDArray[Any], num_resamples: int, generator: np.random.Generator
) -> Floats:
    """Balanced accuracy of each draw (D, N) with rows taken anew within labels: (R, D)."""
    values = np.zeros((num_resamples, len(hits)))
    names = np.unique(labels)
    for name in names:
        columns = np.flatnonzero(labels == name)
        size = len(columns)
        weights = generator.multinomial(size, np.full(size, 1 / size), num_resamples)
        values += weights @ hits[:, columns].T / size
    return values / len(names)


def _read_table(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as stream:
        return [(row["text"].strip(), row["label"].strip()) for row in csv.DictReader(stream)]


def _distinct(rows: Sequence[Row]) -> list[Row]:
    """Each text once, with its first label."""
    first: dict[str, str] = {}
    for text, label in rows:
        if text:
            first.setdefault(text, label)
    return list(first.items())


def _by_turns(rows: Sequence[Row], count: int) -> list[Row]:
    """Bring `count` rows to the front that take turns over the labels."""
    queues: dict[str, list[Row]] = {}
    for row in rows:
        queues.setdefault(row[1], []).append(row)
    depth = max(map(len, queues.values()))
    turns = [queue[at] for at in range(depth) for queue in queues.values() if at < len(queue)]
    front = turns[:count]
    shown = set(front)
    return [*front, *(row for row in rows if row not in shown)]


def _examples(rows: Sequence[Row]) -> tuple[Example, ...]:
    return tuple(
        Example(fields={"text": text}, label=label, source_rows=(number,))
        for number, (text, label) in enumerate(rows, 1)
    )
