"""How the beginning of a table file is understood, at once, however large the file is."""

from io import BytesIO, StringIO
from itertools import islice
from pathlib import Path

from pydantic import Field

from data_prep.encoding import open_text
from data_prep.table import Reading, collect, shortened
from data_prep.table_file import (
    Corrections,
    beginning,
    check_file,
    is_text,
    kind_of,
    read_binary,
    read_text,
    unzipped,
)
from templates.errors import DataError
from templates.values import Value

_HEAD_BYTES = 256 << 10
_LARGEST_HEAD_BYTES = 16 << 20  # where a single record is larger than the head
_CELL_CHARACTERS = 300
_SHOWN_LINES = 20
_LINE_CHARACTERS = 200


class Problem(Value):
    """Why the file cannot be read as it is understood now."""

    what: str
    where: str
    fix: str


class TablePreview(Value):
    """The first rows of a file, and how it is understood."""

    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = Field(default=(), description="Cells, shortened.")
    format: str = ""
    encoding: str = ""
    delimiter: str | None = None
    has_header: bool | None = None
    sheet: str | None = None
    sheets: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    problem: Problem | None = None
    lines: tuple[str, ...] = Field(
        default=(), description="Where there is a problem: the file as it is, line by line."
    )
    is_complete: bool = Field(default=True, description="Whether the whole file was looked at.")


def preview_table(
    path: Path, *, name: str, corrections: Corrections, limit: int = 20
) -> TablePreview:
    """Read the first rows of a file; what is wrong with it is part of the answer.

    Args:
        path: the file.
        name: what to call it in sentences; its ending tells the format.
        corrections: what a person says about it.
        limit: show at most so many rows.

    Returns:
        The preview; its guesses are about the beginning of the file, and reading all of it may
        find more.
    """
    try:
        check_file(path)
        num_bytes = _HEAD_BYTES
        head = beginning(path, num_bytes, name=name)
        kind = kind_of(head, name)
        if not is_text(kind):
            with unzipped(path, name) as plain:
                reading = read_binary(
                    plain, kind, name=name, corrections=corrections, max_rows=limit
                )
                return _shown(reading, limit, is_cut=True)
        while True:
            is_cut = len(head) == num_bytes
            shown = _preview_text(head, kind, name, corrections, limit, is_cut)
            if shown.rows or shown.problem or not is_cut:
                return shown
            if num_bytes >= _LARGEST_HEAD_BYTES:
                raise _no_end(name)
            num_bytes *= 8  # no row ended in it
            head = beginning(path, num_bytes, name=name)
    except DataError as error:
        return TablePreview(problem=_problem(error), is_complete=False)


def _preview_text(
    head: bytes, kind: str, name: str, corrections: Corrections, limit: int, is_cut: bool
) -> TablePreview:
    file = BytesIO(head)
    try:
        reading = read_text(file, kind, name=name, corrections=corrections, is_cut=is_cut)
        return _shown(reading, limit, is_cut=is_cut)
    except DataError as error:
        return TablePreview(
            encoding=corrections.encoding or "",
            delimiter=corrections.delimiter,
            has_header=corrections.has_header,
            problem=_problem(error),
            lines=_as_it_is(file, name, corrections.encoding, is_cut),
            is_complete=False,
        )


def _shown(reading: Reading, limit: int, *, is_cut: bool) -> TablePreview:
    table = collect(reading)
    return TablePreview(
        columns=table.columns,
        rows=tuple(
            tuple(shortened(cell, _CELL_CHARACTERS) for cell in row) for row in table.cells[:limit]
        ),
        format=table.format,
        encoding=table.encoding,
        delimiter=table.delimiter,
        has_header=table.has_header,
        sheet=table.sheet,
        sheets=table.sheets,
        notes=table.notes,
        is_complete=not is_cut,
    )


def _as_it_is(file: BytesIO, name: str, encoding: str | None, is_cut: bool) -> tuple[str, ...]:
    """Show the first lines without asking what they mean; nothing where they are no text."""
    file.seek(0)
    try:
        text = next(open_text(file, name=name, encoding=encoding, is_cut=is_cut).pieces, "")
    except DataError:
        return ()
    lines = islice(StringIO(text), _SHOWN_LINES)
    return tuple(shortened(line.rstrip("\r\n"), _LINE_CHARACTERS) for line in lines)


def _problem(error: DataError) -> Problem:
    return Problem(what=error.what, where=error.where, fix=error.fix)


def _no_end(name: str) -> DataError:
    return DataError(
        f"The first row does not end within {_LARGEST_HEAD_BYTES >> 20} MB",
        where=name,
        fix="Look for a missing quote or bracket at its beginning",
    )
