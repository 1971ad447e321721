"""Excel workbooks (.xlsx): one sheet as a table, values as people read them."""

import copy
import html
import re
import zipfile
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

from python_calamine import (
    CalamineError,
    CalamineSheet,
    CalamineWorkbook,
    PasswordError,
    SheetTypeEnum,
)

from data_prep.cell import cell_text
from data_prep.delimited import FIRST_LINE_LOOKS_LIKE_DATA, looks_like_data
from data_prep.table import (
    MAX_COLUMNS,
    Batch,
    Facts,
    clean_names,
    in_batches,
    refuse_long_cells,
)
from data_prep.zip_safety import open_zip
from templates.errors import DataError

OLD_OFFICE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_PROTECTED = "EncryptedPackage".encode("utf-16-le")  # the stream of a protected workbook
_PIECE_BYTES = 1 << 20
_MAX_CELLS = 20_000_000  # a sheet is held as a rectangle, however empty it is
# No tag is looked at twice, whatever was put into it: this is anybody's text.
_CELL = re.compile(rb"""<(?:\w{1,64}+:)?c\s((?:[^<>"']++|"[^"]*+(?:"|\Z)|'[^']*+(?:'|\Z))*+)(>?)""")
_PLACE = re.compile(rb"""\br\s*+=\s*+["']([A-Za-z]{1,4})([0-9]{1,10})["']""")
_LONGEST_TAG_BYTES = 2000
_LARGEST_LIST_BYTES = 1 << 20
_LIST = "xl/_rels/workbook.xml.rels"  # of the parts that are read
_LISTED = 10

Row = tuple[int, list[str]]


def read_workbook(
    path: Path,
    *,
    name: str,
    has_header: bool | None = None,
    sheet: str | None = None,
) -> Generator[Batch, None, Facts]:
    """Read one sheet of a workbook.

    Args:
        path: the file.
        name: what to call it in sentences.
        has_header: whether the first filled row holds the names of the columns; None means yes.
        sheet: which one; None takes the first with rows.

    Returns:
        The rows, a batch at a time; and in the end how the file was understood.

    Raises:
        DataError: not a workbook, protected, with macros, too large, or without rows.
    """
    _refuse_other_files(path, name)
    try:
        with CalamineWorkbook.from_path(path) as workbook:
            names = [
                found.name
                for found in workbook.sheets_metadata
                if found.typ is SheetTypeEnum.WorkSheet
            ]
            chosen = _choose(workbook, names, sheet, name)
            merged = _Merged(chosen)
            rows = list(_filled_rows(chosen, merged))
    except PasswordError:
        raise _protected(name) from None
    except CalamineError:
        raise _damaged(name) from None
    if not rows:
        raise DataError(
            f"The sheet {chosen.name!r} is empty", where=name, fix="Choose a sheet with rows"
        )
    notes = _about_sheets(chosen.name, names, sheet) + merged.notes()
    line, header = rows[0]
    if has_header is False:
        columns, _ = clean_names([""] * len(header), where=name)
    else:
        columns, renamed = clean_names(header, where=f"{name}, row {line}")
        notes += renamed
        if has_header is None and looks_like_data(header):
            notes += (FIRST_LINE_LOOKS_LIKE_DATA,)
        del rows[0]
    if not rows:
        raise DataError(
            f"The sheet {chosen.name!r} has a header but no rows",
            where=f"{name}, row {line}",
            fix="Add rows below the header; the first row is taken as column names",
        )
    yield from in_batches(rows)
    return Facts(
        format="xlsx",
        encoding="",
        delimiter=None,
        columns=columns,
        notes=notes,
        has_header=has_header is not False,
        sheet=chosen.name,
        sheets=tuple(names),
    )


def _refuse_other_files(path: Path, name: str) -> None:
    with path.open("rb") as file:
        head = file.read(1 << 20)
    if head.startswith(OLD_OFFICE):
        if _PROTECTED in head or _PROTECTED in path.read_bytes():
            raise _protected(name)
        raise DataError(
            "This is an old Office file (.xls), not an Excel workbook (.xlsx)",
            where=name,
            fix="Open it in a spreadsheet and save it as .xlsx",
        )
    with open_zip(path, name) as archive:
        members = archive.infolist()
        names = [member.filename.lower() for member in members]
        if "xl/workbook.xml" not in names or len(set(names)) < len(names):
            raise _damaged(name)
        if any(member.endswith("vbaproject.bin") for member in names):
            raise DataError(
                "The workbook holds macros, which are programs",
                where=name,
                fix="Save it as .xlsx, which leaves them out, and upload that",
            )
        listed = _listed(archive, members, name)
        for member in members:
            place = member.filename.lower()
            judged = "worksheets/" in place or _last(place) in listed
            _refuse_large_part(archive, member, name, judged=judged)


def _last(place: str) -> str:
    return place.rpartition("/")[2]


def _listed(archive: zipfile.ZipFile, members: Sequence[zipfile.ZipInfo], name: str) -> set[str]:
    """Collect the last words of the places that a workbook names as its parts."""
    content = b""
    for member in members:
        if member.filename.lower() == _LIST:
            if member.file_size > _LARGEST_LIST_BYTES:
                raise _damaged(name)
            content = archive.read(member)
    text = html.unescape(content.decode(errors="replace"))
    return set(re.split(r"""["'/\\]""", text.lower()))


def _refuse_large_part(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, *, judged: bool
) -> None:
    """Read a part to its end, which proves its promised size, and see how far its cells reach."""
    rows, columns, rest = [0, 0], [0, 0], b""
    for block in _blocks(archive, member, name):
        if not judged:
            continue
        for tag, end in _CELL.findall(rest + block):
            if len(tag) > _LONGEST_TAG_BYTES:
                raise _damaged(name)
            if not end or tag.endswith(b"/"):
                continue
            for letters, digits in _PLACE.findall(tag):
                row, column = int(digits), _column_number(letters)
                rows = [min(rows[0] or row, row), max(rows[1], row)]
                columns = [min(columns[0] or column, column), max(columns[1], column)]
        rest = (rest + block)[-2 * _LONGEST_TAG_BYTES :]
    height, width = rows[1] - rows[0] + 1, columns[1] - columns[0] + 1
    if width > MAX_COLUMNS or height * width > _MAX_CELLS:
        raise DataError(
            f"A sheet reaches over {height:,} rows and {width:,} columns",
            where=name,
            fix=f"Keep the rows and the columns you need, at most {MAX_COLUMNS}, close together",
        )


def _blocks(archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str) -> Iterator[bytes]:
    """Give a part piece by piece; the library stops at the promised size, other readers do not."""
    longer = copy.copy(member)
    longer.file_size += 1  # so that one byte too many is seen
    num_bytes = 0
    with archive.open(longer) as part:
        while block := part.read(_PIECE_BYTES):
            num_bytes += len(block)
            yield block
    if num_bytes != member.file_size:
        raise _damaged(name)


def _column_number(letters: bytes) -> int:
    number = 0
    for letter in letters.upper():
        number = 26 * number + letter - 64
    return number


def _choose(
    workbook: CalamineWorkbook, names: Sequence[str], sheet: str | None, name: str
) -> CalamineSheet:
    if sheet is not None and sheet not in names:
        raise DataError(
            f"The workbook has no sheet {sheet!r}",
            where=name,
            fix=f"Choose one of its sheets: {', '.join(names[:_LISTED])}",
        )
    for wanted in names if sheet is None else [sheet]:
        found = workbook.get_sheet_by_name(wanted)
        if found.height or sheet is not None:
            return found
    raise DataError("The file is empty", where=name, fix="Upload a workbook with a header and rows")


def _about_sheets(chosen: str, names: Sequence[str], sheet: str | None) -> tuple[str, ...]:
    others = [name for name in names if name != chosen]
    if not others or sheet is not None:
        return ()
    listed = ", ".join(map(repr, others[:_LISTED])) + (" …" if len(others) > _LISTED else "")
    return (f"The sheet {chosen!r} was read; others are {listed}",)


def _filled_rows(sheet: CalamineSheet, merged: "_Merged") -> Iterator[Row]:
    """Give the rows that are not empty, with the numbers that the spreadsheet shows."""
    if sheet.start is None:
        return
    top, left = sheet.start
    for number, values in enumerate(sheet.to_python(skip_empty_area=True), top):
        cells = [cell_text(value) for value in values]
        if any(cells):
            merged.fill(number, left, cells)
            refuse_long_cells(cells, f"row {number + 1}")
            yield number + 1, cells


class _Merged:
    """Cells that reach over several rows; each of the rows gets the value."""

    def __init__(self, sheet: CalamineSheet) -> None:
        self._last_rows: dict[tuple[int, int], int] = {
            start: end[0] for start, end in sheet.merged_cell_ranges or () if end[0] > start[0]
        }
        self._open: dict[int, tuple[int, str]] = {}
        self._num_filled = 0

    def fill(self, row: int, left: int, cells: list[str]) -> None:
        """Fill in what reaches down to this row, and note what begins in it."""
        if not self._last_rows:
            return
        for position, (last_row, text) in list(self._open.items()):
            if row > last_row:
                del self._open[position]
            elif not cells[position]:
                cells[position] = text
                self._num_filled += 1
        for position, text in enumerate(cells):
            ends_at = self._last_rows.get((row, left + position))
            if ends_at is not None and text:
                self._open[position] = (ends_at, text)

    def notes(self) -> tuple[str, ...]:
        if not self._num_filled:
            return ()
        return (f"{self._num_filled:,} cell(s) got the value of the merged cell they belong to",)


def _protected(name: str) -> DataError:
    return DataError(
        "The workbook is protected with a password",
        where=name,
        fix="Save it without a password and upload that",
    )


def _damaged(name: str) -> DataError:
    return DataError(
        "The file is damaged, or not an Excel workbook (.xlsx)",
        where=name,
        fix="Open it in a spreadsheet, save it as .xlsx and upload that",
    )
