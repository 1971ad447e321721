"""A parsed table: column names and text cells, each row with the line it starts on."""

import re
import unicodedata
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from templates.errors import DataError

MAX_COLUMNS = 500
MAX_ROWS = 10_000_000
MAX_CELL_CHARACTERS = 10_000_000
_BATCH_CHARACTERS = 8 << 20

# Spaces that str.strip() leaves in place: zero-width ones and the byte order mark.
INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00ad"
_EDGES = "".join(chr(code) for code in range(0x3001) if chr(code).isspace()) + INVISIBLE


@dataclass(frozen=True)
class Row:
    """One data row as it was uploaded.

    Attributes:
        number: 1-based position among the data rows.
        line: 1-based physical line of the file on which the row starts.
        cells: text by column name; a missing cell is "".
    """

    number: int
    line: int
    cells: Mapping[str, str]


@dataclass(frozen=True)
class Facts:
    """How a file was understood.

    Attributes:
        format: csv, tsv, jsonl, json, txt, zip, xlsx or parquet.
        encoding: how the bytes were decoded; "" where they are not text.
        delimiter: between cells; None where there is none.
        columns: distinct, visible names.
        json_columns: names of columns with nested values, kept as JSON text.
        notes: what the reader decided that a person should know.
        has_header: whether the first row gave the names; None where the format says it.
        sheet: the sheet of a workbook that was read.
        sheets: all sheets of the workbook.
    """

    format: str
    encoding: str
    delimiter: str | None
    columns: tuple[str, ...]
    json_columns: frozenset[str] = field(default=frozenset())
    notes: tuple[str, ...] = field(default=())
    has_header: bool | None = None
    sheet: str | None = None
    sheets: tuple[str, ...] = field(default=())


# Some rows: the physical line of each, and its cells. Where a reader finds new columns on its way,
# rows lack the cells of later ones at their end.
Batch = tuple[list[int], list[list[str]]]
# What readers are: rows a batch at a time, and in the end how the file was understood.
Reading = Generator[Batch, None, Facts]
BATCH_ROWS = 10_000


@dataclass(frozen=True, kw_only=True)
class Table(Facts):
    """A whole file in memory.

    Attributes:
        lines: physical line of each row.
        cells: text of each row, in the order of `columns`.
    """

    lines: Sequence[int]
    cells: Sequence[Sequence[str]]

    def rows(self) -> list[Row]:
        """List the rows by column name.

        Returns:
            All rows in file order.
        """
        return [
            Row(number, line, dict(zip(self.columns, cells, strict=True)))
            for number, (line, cells) in enumerate(zip(self.lines, self.cells, strict=True), 1)
        ]


def collect(reading: Reading) -> Table:
    """Read everything that a reader gives.

    Args:
        reading: a reader that was not begun.

    Returns:
        The table.
    """
    lines: list[int] = []
    cells: list[list[str]] = []
    while True:
        try:
            more_lines, more_cells = next(reading)
        except StopIteration as end:
            facts: Facts = end.value
            break
        lines += more_lines
        cells += more_cells
    for row in cells:
        row += [""] * (len(facts.columns) - len(row))
    return Table(**vars(facts), lines=lines, cells=cells)


def in_batches(rows: Iterable[tuple[int, list[str]]]) -> Iterator[Batch]:
    """Group rows so that each group takes bounded memory.

    Args:
        rows: line and cells of each.

    Yields:
        Groups, none of them empty.

    Raises:
        DataError: there are far too many rows.
    """
    lines: list[int] = []
    cells: list[list[str]] = []
    num_rows = characters = 0
    for line, row in rows:
        num_rows += 1
        if num_rows > MAX_ROWS:
            raise DataError(
                f"The table has more than {MAX_ROWS:,} rows",
                where=f"line {line}",
                fix="Upload a part of the rows; a few thousand good ones are enough",
            )
        lines.append(line)
        cells.append(row)
        characters += sum(map(len, row))
        if len(lines) == BATCH_ROWS or characters > _BATCH_CHARACTERS:
            yield lines, cells
            lines, cells, characters = [], [], 0
    if lines:
        yield lines, cells


def empty_file(name: str) -> DataError:
    """Build the sentence for a file without anything in it.

    Args:
        name: the file name.

    Returns:
        The error to raise.
    """
    return DataError("The file is empty", where=name, fix="Upload a table with a header and rows")


def refuse_long_cells(cells: Iterable[str], where: str) -> None:
    """Refuse a row with a cell that nobody wrote by hand.

    Args:
        cells: of one row.
        where: the file and line, for the sentence.

    Raises:
        DataError: a cell is too long.
    """
    if max(map(len, cells), default=0) > MAX_CELL_CHARACTERS:
        raise DataError(
            f"A cell is longer than {MAX_CELL_CHARACTERS:,} characters",
            where=where,
            fix="Shorten the cell, or look for a missing quote",
        )


def shortened(text: str, num_characters: int) -> str:
    """Cut a text for showing.

    Args:
        text: any text.
        num_characters: at most so many are left, the last one being "…" where some are gone.

    Returns:
        The text, or its beginning.
    """
    return text if len(text) <= num_characters else text[: num_characters - 1] + "…"


def strip_edges(text: str) -> str:
    """Strip spaces at both ends, including non-breaking and zero-width ones.

    Args:
        text: any text.

    Returns:
        The text without them; inner spaces stay.
    """
    return text.strip(_EDGES)


def clean_names(names: Sequence[str], *, where: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Make column names distinct, visible and without stray spaces.

    Args:
        names: as written in the file.
        where: the file, for the sentence.

    Returns:
        The new names, and a note when any of them changed.

    Raises:
        DataError: there are far too many columns.
    """
    if len(names) > MAX_COLUMNS:
        raise DataError(
            f"The table has {len(names):,} columns; at most {MAX_COLUMNS} are read",
            where=where,
            fix="Keep only the columns you need, or check the delimiter",
        )
    fresh: list[str] = []
    for position, name in enumerate(names, 1):
        # NFKC makes look-alikes such as full-width letters equal, so that they are told apart.
        wanted = re.sub(r"\s+", " ", strip_edges(unicodedata.normalize("NFKC", name)))
        wanted = "".join(char for char in wanted if char not in INVISIBLE and char.isprintable())
        wanted = wanted or f"column {position}"
        final, copy = wanted, 2
        while final in fresh:
            final, copy = f"{wanted} ({copy})", copy + 1
        fresh.append(final)
    renamed = [
        f"{before!r} → {after!r}"
        for before, after in zip(names, fresh, strict=True)
        if strip_edges(before) != after
    ]
    notes = (f"Columns renamed: {', '.join(renamed[:10])}",) if renamed else ()
    return tuple(fresh), notes
