import contextlib
import io
import time
import zipfile
import zlib
from pathlib import Path

import pytest

from data_prep.table import Table
from data_prep.table_file import Corrections, read_table
from templates.errors import DataError
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


def with_far_cell(tag: str) -> dict[int, str]:
    return {1: cell("A1", "text"), 2: cell("A2", "x"), 3: tag}


@pytest.mark.parametrize(
    "tag",
    [
        '<c a=">" r="XFD3"><v>1</v></c>',
        f'<c{" " * 500}r="XFD3"><v>1</v></c>',
        '<c a=" <c " r="XFD3"><v>1</v></c>',
        "<x:c\tr = 'XFD3'><v>1</v></x:c>",
        f'<c a="{"b" * 70_000}" r="XFD3"><v>1</v></c>',
    ],
    ids=["bracket", "spaces", "tag in a quote", "prefix", "long"],
)
def test_a_far_cell_cannot_hide(book: Path, tag: str) -> None:
    book.write_bytes(workbook({"A": sheet(with_far_cell(tag))}))
    with pytest.raises(DataError, match=r"reaches over|damaged"):
        read(book)


def test_a_far_cell_cannot_hide_between_two_pieces(
    book: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_prep.workbook._PIECE_BYTES", 150)
    far = '<c a="1>" r="XFD3" s="2"><v>1</v></c>'
    for shift in range(0, 150, 7):
        book.write_bytes(workbook({"A": sheet(with_far_cell(" " * shift + far))}))
        with pytest.raises(DataError, match="reaches over 3 rows and 16,384"):
            read(book)
    empty = '<c r="XFD3" s="2"   />'
    for shift in range(0, 150, 7):
        book.write_bytes(workbook({"A": sheet(with_far_cell(" " * shift + empty))}))
        assert read(book).cells == [["x"]]


@pytest.mark.parametrize(
    "unit", ["<c ", '<c "', "<c '\"", "<" + "w" * 100, "<c r r=r= "], ids=range(5)
)
def test_broken_tags_cost_no_time(book: Path, unit: str) -> None:
    book.write_bytes(workbook({"A": sheet(with_far_cell(unit * (400_000 // len(unit))))}))
    started = time.monotonic()
    with contextlib.suppress(DataError):
        read(book)
    assert time.monotonic() - started < 5


def test_a_sheet_of_an_unusual_name_is_judged(book: Path) -> None:
    far = sheet(with_far_cell('<c r="XFD3"><v>1</v></c>'))
    content = workbook({"A": far})
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(book, "w") as new:
        for name in old.namelist():
            part = old.read(name)
            if name.endswith(".rels"):
                part = part.replace(b"worksheets/sheet1.xml", b"media/image&#49;.png")
            new.writestr(name.replace("worksheets/sheet1.xml", "media/image1.png"), part)
    with pytest.raises(DataError, match="reaches over"):
        read(book)


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
@pytest.mark.parametrize("difference", [-5, 5])
def test_a_part_of_another_size_than_promised_is_refused(
    book: Path, monkeypatch: pytest.MonkeyPatch, compression: int, difference: int
) -> None:
    """Of a part that promises less, this program would see less than the one that reads it."""
    monkeypatch.setattr("data_prep.workbook.CalamineWorkbook", None)  # which is not even asked
    with zipfile.ZipFile(io.BytesIO(workbook({"A": MESSY}))) as old:
        parts = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(book, "w", compression) as new:
        for name, part in parts.items():
            new.writestr(name, part)
        info = new.getinfo("xl/worksheets/sheet1.xml")
        whole = parts[info.filename]
        info.file_size += difference
        info.CRC = zlib.crc32(whole[: info.file_size])  # what a careful liar writes
    with pytest.raises(DataError, match="damaged"):
        read(book)
