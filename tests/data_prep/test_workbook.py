from pathlib import Path

import pytest

from data_prep.table import Table
from data_prep.table_file import Corrections, read_table
from tests.data_prep.workbooks import (
    DATE_STYLE,
    MOMENT_STYLE,
    TIME_STYLE,
    cell,
    sheet,
    table_sheet,
    workbook,
)

MESSY = sheet(
    {
        3: cell("B3", "text") + cell("C3", "when") + cell("D3", "n") + cell("E3", "sum"),
        4: cell("B4", "hé <b>") + cell("C4", 45000, style=DATE_STYLE) + cell("D4", 3.0)
        + cell("E4", 3, formula="1+2"),
        6: cell("C6", 45000.5, style=MOMENT_STYLE) + cell("D6", 0.1 + 0.2)
        + cell("E6", "ab", formula='"a"&"b"'),
        7: cell("B7", "z") + cell("C7", 0.25, style=TIME_STYLE) + cell("D7", True),
    },
    merged=("B4:B6",),
)  # fmt: skip


@pytest.fixture
def book(tmp_path: Path) -> Path:
    return tmp_path / "a.xlsx"


def read(path: Path, **corrections: object) -> Table:
    return read_table(path, corrections=Corrections.model_validate(corrections))


def test_values_are_read_as_people_see_them(book: Path) -> None:
    book.write_bytes(workbook({"Data": MESSY}))
    table = read(book)
    assert (table.format, table.columns) == ("xlsx", ("text", "when", "n", "sum"))
    assert table.cells == [
        ["hé <b>", "2023-03-15", "3", "3"],
        ["hé <b>", "2023-03-15 12:00:00", "0.3", "ab"],
        ["z", "06:00:00", "true", ""],
    ]
    assert table.lines == [4, 6, 7], "as the spreadsheet numbers them"
    assert table.notes == ("1 cell(s) got the value of the merged cell they belong to",)


def test_dates_that_count_from_1904(book: Path) -> None:
    book.write_bytes(workbook({"Data": MESSY}, is_1904=True))
    assert read(book).cells[0][1] == "2027-03-16"


def test_the_first_sheet_with_rows_is_read_and_another_can_be_chosen(book: Path) -> None:
    numbers = table_sheet(("a", "b"), (1, 2))
    book.write_bytes(workbook({"Empty": sheet({}), "One": numbers, "Two": MESSY}))
    table = read(book)
    assert (table.sheet, table.sheets) == ("One", ("Empty", "One", "Two"))
    assert table.notes == ("The sheet 'One' was read; others are 'Empty', 'Two'",)
    assert read(book, sheet="Two").columns[0] == "text"


def test_a_sheet_without_a_header(book: Path) -> None:
    book.write_bytes(workbook({"A": table_sheet(("x", 1), ("y", 2))}))
    assert "looks like data" in read(book).notes[0]
    table = read(book, has_header=False)
    assert (table.columns, table.lines) == (("column 1", "column 2"), [1, 2])
    assert read(book, has_header=True).notes == ()


def test_empty_cells_far_away_are_not_held(book: Path) -> None:
    """A sheet may be formatted to its last row and column."""
    row = cell("A1", "text") + cell("B1", "label")
    far = '<c r="XFD1048576" s="1"/>'
    rows = {1: row, 2: cell("A2", "x") + cell("B2", "y"), 1_048_576: far}
    book.write_bytes(workbook({"A": sheet(rows)}))
    assert read(book).cells == [["x", "y"]]
