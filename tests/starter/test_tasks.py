"""Tasks whose test texts are new, and scores that are honest about chance."""

import itertools
import random
from pathlib import Path

import pytest

from starter.tasks import Task, accuracy_interval, balanced_accuracy, family_task, real_task
from tests.starter.measuring.little_tables import reviews, write_table


def test_every_label_counts_the_same() -> None:
    assert balanced_accuracy([0] * 9 + [1], [1] * 9 + [0]) == 0.5
    assert balanced_accuracy([0, 0, 1, 2], [1, 0, 1, 1]) == pytest.approx((0.5 + 1 + 1) / 3)
    assert balanced_accuracy([2, 2], [1, 0]) == 0.5


def test_the_interval_has_the_width_that_theory_gives() -> None:
    expected = [0] * 100 + [1] * 100
    hits = ([1] * 80 + [0] * 20) * 2
    deviation = (0.8 * 0.2 / 200) ** 0.5
    for same_rows in (True, False):
        low, high = accuracy_interval([expected], [hits], same_rows=same_rows)
        assert low == pytest.approx(0.8 - 1.96 * deviation, abs=0.008)
        assert high == pytest.approx(0.8 + 1.96 * deviation, abs=0.008)


def test_common_rows_do_not_average_out_over_draws() -> None:
    expected = [[0] * 50 + [1] * 50] * 5
    hits = [[1] * 30 + [0] * 20 + [1] * 30 + [0] * 20] * 5

    def width(same_rows: bool) -> float:
        low, high = accuracy_interval(expected, hits, same_rows=same_rows)
        return high - low

    assert width(True) > 1.8 * width(False)  # the square root of five draws, were rows new


def test_draws_that_differ_widen_the_interval() -> None:
    expected = [[0] * 50 + [1] * 50] * 4
    some = [[1] * 100, [0] * 100, [1] * 100, [0] * 100]
    low, high = accuracy_interval(expected, some, same_rows=True)
    assert (low, high) == (0.0, 1.0)
    assert accuracy_interval(expected, [[1] * 100] * 4, same_rows=False) == (1.0, 1.0)
    assert accuracy_interval(expected, [[1] * 100] * 4, same_rows=True, less=[0.5] * 4) == (
        0.5,
        0.5,
    )


def test_no_test_text_is_learned_from(tmp_path: Path) -> None:
    rows = [(f"text {number % 45}", "ab"[number % 2]) for number in range(90)]
    write_table(tmp_path / "sst2" / "train.csv", rows)
    write_table(tmp_path / "sst2" / "test.csv", [("text 3", "a"), ("new", "b"), ("new", "b")])
    write_table(tmp_path / "sms_spam" / "train.csv", rows)
    given, cut = real_task(tmp_path, "sst2"), real_task(tmp_path, "sms_spam")
    assert sorted(row.fields["text"] for row in given.test) == ["new", "text 3"]
    assert len(given.train) == 44
    assert (len(cut.train), len(cut.test)) == (36, 9)
    for task in (given, cut):
        train, test = ({row.fields["text"] for row in part} for part in (task.train, task.test))
        assert not train & test
    assert real_task(tmp_path, "sst2").digest == given.digest


def test_an_instance_shows_labels_by_turns_and_draws_anew() -> None:
    def task(seed: str, by_turns: bool = True) -> Task:
        return family_task("r", reviews, seed=seed, num_train=8, num_test=20, by_turns=by_turns)

    first = task("0")
    assert first.digest == task("0").digest != task("1").digest
    labels = [row.label for row in first.train]
    assert labels.count("basket") == 4 and all(a != b for a, b in itertools.pairwise(labels))
    assert len(first.test) == 20 and first.labels == ("basket", "window")


def test_a_family_with_few_texts_gives_fewer_test_rows() -> None:
    def few(generator: random.Random, num_rows: int) -> list[tuple[str, str]]:
        numbers = [generator.randrange(30) for _ in range(num_rows)]
        return [(f"word {number}", "ab"[number % 2]) for number in numbers]

    task = family_task("few", few, seed="0", num_train=100, num_test=50, by_turns=False)
    assert len(task.train) == 100 and len(task.test) == 10
    assert not {row.fields["text"] for row in task.train} & {r.fields["text"] for r in task.test}
