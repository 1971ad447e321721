import pytest

from data_prep.table import Row
from data_prep.upload import Bin, Column, Upload, ValueCount
from studio.pages.upload_profile import columns, even_counts, first_rows, notes, overview

NAUGHTY = "<script>alert(1)</script>"
BIN = Bin(from_=0, to=1, count=2)


def column(name: str = "text", kind: str = "text", **facts: object) -> Column:
    content = {
        "name": name, "kind": kind, "num_empty": 0, "num_distinct": 3, "min_characters": 1,
        "mean_characters": 2.0, "max_characters": 3, "samples": ("abc",), **facts,
    }  # fmt: skip
    return Column.model_validate(content)


def upload(*found: Column, **facts: object) -> Upload:
    content = {
        "id": "up-1", "name": "table.csv", "sha256": "0", "format": "csv", "encoding": "utf-8",
        "delimiter": ";", "total_bytes": 1200, "num_rows": 30, "columns": found, **facts,
    }  # fmt: skip
    return Upload.model_validate(content)


def test_the_overview_says_how_the_file_was_read() -> None:
    shown = overview(upload(column(), has_header=False, name=NAUGHTY))
    for words in ("30", "1.2 kB", "CSV", "semicolon", "UTF-8", "no header"):
        assert words in shown
    assert NAUGHTY not in shown and "&lt;script&gt;" in shown


def test_notes_that_ask_for_a_look_stand_out() -> None:
    assert notes(()) == ""
    assert "ts-plain" in notes(("Byte order mark removed",))
    shown = notes(("Byte order mark removed", f"check {NAUGHTY}"))
    assert "ts-warn" in shown and NAUGHTY not in shown


def test_rows_are_escaped_and_long_cells_folded() -> None:
    rows = [Row(1, 2, {"text": NAUGHTY}), Row(2, 3, {"text": "word " * 500 + "end"}),
            Row(3, 4, {"text": ""}), Row(4, 5, {"text": "a\u202eb"})]  # fmt: skip
    shown = first_rows(upload(column(), num_rows=4), rows)
    assert NAUGHTY not in shown and "&lt;script&gt;" in shown
    assert shown.count("<details") == 1 and "end" not in shown.split("<details")[1]
    assert "empty" in shown and "\u202e" not in shown and "\\u202e" in shown
    assert "All rows" in shown
    assert "first 20 of 21 rows" in first_rows(upload(column(), num_rows=21), rows)


def test_a_wide_table_says_what_it_leaves_out() -> None:
    wide = upload(*(column(f"c{number}") for number in range(30)))
    assert "6 columns more" in first_rows(wide, [])
    assert "6 more columns" in columns(wide) and "c29" in columns(wide)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (column(kind="category", top=(ValueCount(value=NAUGHTY, count=9),), num_distinct=4),
         ["categories", "&lt;script&gt;", "3 other values"]),
        (column(kind="number", histogram=(BIN, Bin(from_=3, to=4, count=1))),
         ["numbers", "values from 0 to 4"]),
        (column(num_empty=3, num_distinct=27), ["3 empty (10.0 %)", "all different"]),
        (column(kind="empty", num_empty=30, num_distinct=0, samples=()), ["all 30 cells empty"]),
        (column(kind="category", top=(ValueCount(value="once", count=1),)), ["abc"]),
        (column(name=NAUGHTY, samples=(NAUGHTY,)), ["&lt;script&gt;"]),
    ],
    ids=["category", "number", "text", "empty", "no repeats", "naughty"],
)  # fmt: skip
def test_each_kind_of_column_has_its_card(found: Column, words: list[str]) -> None:
    shown = columns(upload(found))
    assert all(word in shown for word in words), shown
    assert NAUGHTY not in shown


def test_gaps_between_bins_are_filled() -> None:
    bins = [Bin(from_=0, to=2, count=5), Bin(from_=6, to=8, count=1)]
    assert even_counts(bins) == [5, 0, 0, 1]
    assert even_counts([]) == []
    assert even_counts([Bin(from_=1, to=1, count=7)]) == [7]
