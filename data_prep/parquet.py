"""Parquet files: every column as text, nested values as JSON."""

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

from data_prep.cell import cell_text
from data_prep.database import DatabaseError, read_files
from data_prep.table import (
    Batch,
    Facts,
    clean_names,
    in_batches,
    refuse_long_cells,
)
from templates.errors import DataError, RunError

MAX_UNPACKED_BYTES = 2 << 30
_FETCHED_ROWS = 64
_SIZE = """
    SELECT coalesce(sum(total_uncompressed_size), 0), count(*) FILTER (total_uncompressed_size < 0)
    FROM parquet_metadata($path)
"""
_ROWS = "SELECT * FROM read_parquet($path, hive_partitioning = false)"
_NESTED = ("list", "struct", "map", "array", "union", "json", "variant")


def read_parquet(
    path: Path, *, name: str, max_rows: int | None = None
) -> Generator[Batch, None, Facts]:
    """Read a Parquet file.

    Args:
        path: the file.
        name: what to call it in sentences.
        max_rows: leave out what follows; None reads all.

    Returns:
        The rows, a batch at a time; and in the end how the file was understood. The line of a
        row is its number.

    Raises:
        DataError: the file is damaged, too large when unpacked, or without rows.
    """
    try:
        with read_files("the Parquet file") as connection:
            size, num_wrong = connection.execute(_SIZE, {"path": str(path)}).fetchall()[0]
            if size > MAX_UNPACKED_BYTES or num_wrong:
                raise _too_large(name)
            found = connection.execute(_ROWS, {"path": str(path)})
            fields = [(field[0], str(field[1]).lower()) for field in found.description or []]
            columns, notes = clean_names([field for field, _ in fields], where=name)
            rows = _Rows(name)
            yield from in_batches(rows.read(found, max_rows))
    except (DatabaseError, RunError, RecursionError, OverflowError, ValueError):
        raise DataError(
            "The Parquet file is damaged, or holds something that is not read",
            where=name,
            fix="Write it again, or save the table as CSV or JSONL",
        ) from None
    if not rows.num_rows:
        raise DataError("The file has no rows", where=name, fix="Upload a table with rows")
    nested = (
        column
        for column, (_, kind) in zip(columns, fields, strict=True)
        if kind.endswith("]") or kind.startswith(_NESTED)
    )
    return Facts(
        format="parquet",
        encoding="",
        delimiter=None,
        columns=columns,
        json_columns=frozenset(nested),
        notes=notes,
    )


class _Rows:
    """Values fetched a few rows at a time, and counted."""

    def __init__(self, name: str) -> None:
        self.num_rows = 0
        self._name, self._num_characters = name, 0

    def read(self, found: Any, max_rows: int | None) -> Iterator[tuple[int, list[str]]]:
        """Give the rows; a dictionary may make much text out of few bytes, so it is counted."""
        while max_rows is None or self.num_rows < max_rows:
            values = found.fetchmany(_FETCHED_ROWS)
            if not values:
                return
            for row in values:
                self.num_rows += 1
                cells = [cell_text(value) for value in row]
                self._num_characters += sum(map(len, cells))
                if self._num_characters > MAX_UNPACKED_BYTES:
                    raise _too_large(self._name)
                refuse_long_cells(cells, f"{self._name}, row {self.num_rows}")
                yield self.num_rows, cells


def _too_large(name: str) -> DataError:
    return DataError(
        f"Unpacked, the table is larger than {MAX_UNPACKED_BYTES >> 30} GB",
        where=name,
        fix="Upload a part of the rows; a few thousand good ones are enough",
    )
