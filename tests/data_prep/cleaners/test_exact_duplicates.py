import pytest

from data_prep.cleaners.exact_duplicates import Options, clean
from templates.example import Example, Turn


def example(row: int, text: str, label: str | None = "x", *references: str) -> Example:
    return Example({"text": text}, label=label, references=references, source_rows=(row,))


def test_the_first_stays_with_its_own_rows() -> None:
    kept, report = clean(
        [example(1, "a"), example(2, "b"), example(3, "a"), example(4, "a", "y")], Options()
    )
    assert [item.source_rows for item in kept] == [(1,), (2,), (4,)]
    assert (report.rows, report.counts) == ((3,), {"duplicate": 1})


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({}, 4),
        ({"ignore_case": True}, 3),
        ({"ignore_spacing": True}, 3),
        ({"ignore_case": True, "ignore_spacing": True}, 2),
    ],
)
def test_options(options: dict[str, bool], left: int) -> None:
    examples = [example(1, "a b"), example(2, "A b"), example(3, "a\n b"), example(4, "c")]
    assert len(clean(examples, Options(**options))[0]) == left


def test_references_and_turns_count() -> None:
    examples = [
        example(1, "a", None, "r"),
        example(2, "a", None, "r", "s"),
        Example(turns=(Turn("user", "a"),), source_rows=(3,)),
        Example(turns=(Turn("system", "a"),), source_rows=(4,)),
    ]
    assert len(clean(examples, Options())[0]) == 4
