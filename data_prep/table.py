"""A parsed table: column names and text cells, each row with the line it starts on."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from templates.errors import DataError

MAX_COLUMNS = 500
MAX_CELL_CHARACTERS = 10_000_000

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
class Table:
    """What a reader found in a file.

    Attributes:
        format: csv, tsv, jsonl or json.
        encoding: how the bytes were decoded.
        delimiter: between cells; None for JSON.
        columns: distinct, visible names.
        json_columns: names of columns with nested values, kept as JSON text.
        lines: physical line of each row.
        cells: text of each row, in the order of `columns`.
        notes: what the reader decided that a person should know.
    """

    format: str
    encoding: str
    delimiter: str | None
    columns: tuple[str, ...]
    json_columns: frozenset[str]
    lines: Sequence[int]
    cells: Sequence[Sequence[str]]
    notes: tuple[str, ...] = field(default=())

    def rows(self) -> list[Row]:
        """List the rows by column name.

        Returns:
            All rows in file order.
        """
        return [
            Row(number, line, dict(zip(self.columns, cells, strict=True)))
            for number, (line, cells) in enumerate(zip(self.lines, self.cells, strict=True), 1)
        ]


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
