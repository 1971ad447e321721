import pytest

from data_prep.table import Row, Table, clean_names, strip_edges
from templates.errors import DataError


@pytest.mark.parametrize(
    ("names", "clean"),
    [
        (["text", "text", "text"], ["text", "text (2)", "text (3)"]),
        (["a", "", " "], ["a", "column 2", "column 3"]),
        (["text", "text (2)", "text"], ["text", "text (2)", "text (3)"]),
        (["text", "ｔｅｘｔ"], ["text", "text (2)"]),
        (["text", "te\u200bxt"], ["text", "text (2)"]),
        (["a\nb", "a\x07b"], ["a b", "ab"]),
    ],
)
def test_names_become_distinct_and_visible(names: list[str], clean: list[str]) -> None:
    found, notes = clean_names(names, where="a.csv")
    assert list(found) == clean
    assert notes and notes[0].startswith("Columns renamed: ")


def test_good_names_stay_without_a_note() -> None:
    assert clean_names([" text ", "Text", "naïve", "日本"], where="") == (
        ("text", "Text", "naïve", "日本"),
        (),
    )


def test_too_many_columns() -> None:
    with pytest.raises(DataError, match="501 columns"):
        clean_names(["a"] * 501, where="a.csv")


def test_edges() -> None:
    assert strip_edges("\u00a0\u200b\t a b\u200d \ufeff\n") == "a b"


def test_rows_by_name() -> None:
    table = Table("csv", "utf-8", ",", ("a", "b"), lines=[2, 4], cells=[["1", "2"], ["3", ""]])
    assert table.rows() == [Row(1, 2, {"a": "1", "b": "2"}), Row(2, 4, {"a": "3", "b": ""})]
