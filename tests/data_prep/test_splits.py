from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.splits import SplitOptions, input_key, normalised, split_examples
from templates.dataset import SPLITS
from templates.errors import DataError
from templates.example import Example, Turn


def make(*pairs: tuple[str, str]) -> list[Example]:
    return [
        Example({"text": text}, label=label, source_rows=(row,))
        for row, (text, label) in enumerate(pairs, 1)
    ]


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("Hello,  World!", "hello world", True),
        ("ﬁne", "FINE", True),
        ("Straße", "STRASSE", True),
        ("it’s", "its", True),
        ("a\nb", "a b", True),
        ("5 $", "5 €", False),
        ("😀", "😡", False),
        ("!!!", "???", False),
        ("C++", "C", False),
        ("", "", True),
    ],
)
def test_normalised(first: str, second: str, same: bool) -> None:
    assert (normalised(first) == normalised(second)) == same


def test_the_answer_is_no_part_of_the_key() -> None:
    turns = (Turn("user", "Q?"), Turn("assistant", "one"))
    other = (Turn("user", "q"), Turn("assistant", "two"))
    assert input_key(Example(turns=turns)) == input_key(Example(turns=other))
    assert input_key(Example({"a": "x"}, label="1")) == input_key(Example({"a": "X"}, label="2"))
    assert input_key(Example({"a": "x", "b": ""})) != input_key(Example({"a": "", "b": "x"}))


def test_stratified_sizes() -> None:
    examples = make(*[(f"text {number}", "abc"[number % 3]) for number in range(300)])
    parts, report = split_examples(examples, SplitOptions(), seed=0)
    assert {split: len(part) for split, part in parts.items()} == {
        "train": 210,
        "validation": 45,
        "test": 45,
    }
    for part in parts.values():
        assert len(set(Counter(example.label for example in part).values())) == 1
        assert part == sorted(part, key=lambda example: example.source_rows)
    assert report.counts["train"] == 210 and report.rows_out == 300


def test_many_small_classes_keep_the_totals() -> None:
    examples = make(*[(f"text {number}", f"label {number % 150}") for number in range(1500)])
    parts, _ = split_examples(examples, SplitOptions(), seed=0)
    assert abs(len(parts["test"]) - 225) <= 2 and abs(len(parts["validation"]) - 225) <= 2
    for part in parts.values():
        assert len({example.label for example in part}) == 150


def test_fixed_numbers_of_rows() -> None:
    examples = [Example({"input": str(n)}, references=("r",), source_rows=(n,)) for n in range(100)]
    parts, _ = split_examples(examples, SplitOptions(test_rows=7, validation_rows=11), seed=0)
    assert (len(parts["test"]), len(parts["validation"])) == (7, 11)


def test_small_classes_reach_what_they_can() -> None:
    pairs = [(f"many {number}", "many") for number in range(20)]
    examples = make(*pairs, ("1", "three"), ("2", "three"), ("3", "three"), ("4", "two"))
    examples += make(*[("x", "many")] * 24, ("5", "two"), ("6", "one"))[-2:]
    parts, _ = split_examples(examples, SplitOptions(), seed=0)
    where = {
        label: {split for split in SPLITS if any(e.label == label for e in parts[split])}
        for label in ("many", "three", "two", "one")
    }
    assert where["many"] == where["three"] == set(SPLITS)
    assert where["two"] == {"train", "test"} and where["one"] == {"train"}


def test_row_order_plays_no_part_and_the_seed_does() -> None:
    examples = make(*[(f"text {number}", "ab"[number % 2]) for number in range(60)])

    def test_rows(items: list[Example], seed: int) -> set[tuple[int, ...]]:
        parts, _ = split_examples(items, SplitOptions(), seed=seed)
        return {example.source_rows for example in parts["test"]}

    assert test_rows(examples, 1) == test_rows(examples[::-1], 1)
    assert test_rows(examples, 1) != test_rows(examples, 2)


def test_a_huge_group_goes_to_training() -> None:
    examples = make(*[("Same!", "a")] * 50, *[(f"text {number}", "a") for number in range(50)])
    parts, report = split_examples(examples, SplitOptions(), seed=0)
    assert sum(example.fields["text"] == "Same!" for example in parts["train"]) == 50
    assert report.counts["repeated inputs kept together"] == 49


def test_a_split_column_is_followed_and_leaks_are_dropped() -> None:
    examples = make(("a", "x"), ("A!", "x"), ("b", "x"), ("c", "x"), ("d", "y"))
    told = {1: "train", 2: " Test", 3: "dev", 4: "train", 5: "training"}
    parts, report = split_examples(examples, SplitOptions(), seed=0, fixed=told)
    assert [e.source_rows[0] for e in parts["train"]] == [4, 5]
    assert [e.source_rows[0] for e in parts["validation"]] == [3]
    assert [e.source_rows[0] for e in parts["test"]] == [2]
    assert report.counts["dropped: also in a held-out split"] == 1
    assert (report.rows_in, report.rows_out, report.rows) == (5, 4, (1,))
    with pytest.raises(DataError, match="No row is left for the validation split"):
        split_examples(examples, SplitOptions(), seed=0, fixed={**told, 3: "train"})


def test_options_must_leave_something_to_train_on() -> None:
    with pytest.raises(ValueError, match="must leave a tenth for training"):
        SplitOptions(test_ratio=0.5, validation_ratio=0.45)


texts = st.text("aAbB !.\u00e9É", max_size=4)


@given(
    st.lists(st.tuples(texts, st.sampled_from("xyz")), min_size=1, max_size=60), st.integers(0, 9)
)
def test_nothing_leaks_and_nothing_is_lost(pairs: list[tuple[str, str]], seed: int) -> None:
    examples = make(*pairs)
    try:
        parts, _ = split_examples(examples, SplitOptions(), seed=seed)
    except DataError:
        assert len({input_key(example) for example in examples}) < 12
        return
    keys = {split: {input_key(example) for example in parts[split]} for split in SPLITS}
    assert not keys["train"] & keys["test"]
    assert not keys["train"] & keys["validation"]
    assert not keys["validation"] & keys["test"]
    rows = sorted(row for part in parts.values() for item in part for row in item.source_rows)
    assert rows == list(range(1, len(pairs) + 1))
