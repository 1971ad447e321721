"""The only owner of DuckDB: rows land here with their line numbers, and are profiled in SQL.

`rows(row, line, cells)` holds one text per column in `cells`, in the order of `columns`. The SQL
is constant: no name or text of a person's table ever becomes part of a statement.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import duckdb

from data_prep.table import Row, Table
from templates.errors import RunError
from templates.files import disk_full

_BATCH_ROWS = 10_000
_SETTINGS: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "memory_limit": "2GB",
    "threads": "2",
    "lock_configuration": "true",
}
_SCHEMA = """
    CREATE TABLE columns (position INTEGER, name VARCHAR);
    CREATE TABLE rows (row BIGINT, line BIGINT, cells VARCHAR[]);
"""
_INSERT = """
    INSERT INTO rows
    SELECT unnest($rows::BIGINT[]), unnest($lines::BIGINT[]), unnest($cells::VARCHAR[][])
"""
_PROFILE = r"""
    WITH cells AS (
        SELECT row, unnest(cells) AS text, generate_subscripts(cells, 1) AS position FROM rows
    ), marked AS (
        SELECT *, regexp_full_match(text, '[\s\x{00a0}]*') AS is_empty FROM cells
    )
    SELECT
        count(*) FILTER (is_empty),
        count(DISTINCT text) FILTER (NOT is_empty),
        coalesce(min(length(text)), 0),
        coalesce(avg(length(text)), 0),
        coalesce(max(length(text)), 0),
        coalesce(bool_and(regexp_full_match(text, '\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*'))
            FILTER (NOT is_empty), false),
        coalesce(bool_and(lower(trim(text)) IN ('true', 'false', 'yes', 'no'))
            FILTER (NOT is_empty), false),
        coalesce(arg_min(text[:200], row, 5) FILTER (NOT is_empty), [])
    FROM marked GROUP BY position ORDER BY position
"""
_PAGE = "SELECT row, line, cells FROM rows WHERE row > $after ORDER BY row LIMIT $limit"


@dataclass(frozen=True)
class ColumnProfile:
    """What SQL says about one column; lengths in characters."""

    num_empty: int
    num_distinct: int
    min_characters: int
    mean_characters: float
    max_characters: int
    all_numbers: bool
    all_booleans: bool
    samples: Sequence[str]


@contextmanager
def _connect(path: Path, *, read_only: bool) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open the file for a moment; disk and lock trouble become sentences."""
    try:
        with duckdb.connect(path, read_only=read_only, config=_SETTINGS) as connection:
            yield connection
    except duckdb.OutOfMemoryException:
        raise RunError(
            "The table does not fit into the memory that DuckDB may use",
            where=path.name,
            fix="Upload fewer rows or shorter cells",
        ) from None
    except duckdb.IOException as error:
        if "No space left" in str(error):
            raise disk_full("the table") from None
        if "lock" in str(error).lower():
            raise RunError(
                "Another program has this table open",
                where=f"{path.parent.name}/{path.name}",
                fix="Wait until its upload is finished, or close the program that reads the file",
            ) from None
        raise RunError(
            "The stored table cannot be opened",
            where=f"{path.parent.name}/{path.name}",
            fix="Upload the file again",
        ) from None


@contextmanager
def read_files(what: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open an empty workplace in memory whose statements may read files.

    What is made in it as temporary is gone afterwards, and unseen by others meanwhile.

    Args:
        what: what is read, such as "the run's events".

    Yields:
        A connection of this caller's own.

    Raises:
        RunError: a file went away or may not be read.
    """
    with _memory().cursor() as connection:
        try:
            yield connection
        except (duckdb.IOException, duckdb.PermissionException):
            fix = "Check that its folder still exists and may be read"
            raise RunError(f"Reading {what} did not work", fix=fix) from None


@cache
def _memory() -> duckdb.DuckDBPyConnection:
    """One for the process: opening takes as long as reading some megabytes."""
    settings = _SETTINGS | {"enable_external_access": "true", "threads": "1"}
    return duckdb.connect(":memory:", config=settings)


def write_table(path: Path, table: Table) -> None:
    """Store a table in a new database file, in one transaction.

    Args:
        path: a file that does not exist yet.
        table: what a reader found.
    """
    with _connect(path, read_only=False) as connection:
        connection.execute(_SCHEMA)
        connection.begin()
        connection.executemany("INSERT INTO columns VALUES (?, ?)", list(enumerate(table.columns)))
        for start in range(0, len(table.lines), _BATCH_ROWS):
            lines = table.lines[start : start + _BATCH_ROWS]
            content = {
                "rows": list(range(start + 1, start + len(lines) + 1)),
                "lines": list(lines),
                "cells": list(table.cells[start : start + _BATCH_ROWS]),
            }
            connection.execute(_INSERT, content)
        connection.commit()


def profile_table(path: Path) -> list[ColumnProfile]:
    """Describe each column.

    Args:
        path: the database file.

    Returns:
        One profile per column, in table order.
    """
    with _connect(path, read_only=True) as connection:
        found = connection.execute(_PROFILE).fetchall()
    return [ColumnProfile(*line) for line in found]


def read_table_rows(path: Path, *, limit: int | None = None, offset: int = 0) -> Iterator[Row]:
    """Read rows in upload order, a page at a time, so the file is never held open.

    Args:
        path: the database file.
        limit: at most so many; None reads all.
        offset: rows to pass over.

    Yields:
        The rows.
    """
    left = limit
    names: Sequence[str] | None = None
    while left is None or left > 0:
        page = _BATCH_ROWS if left is None else min(left, _BATCH_ROWS)
        with _connect(path, read_only=True) as connection:
            if names is None:
                ordered = "SELECT name FROM columns ORDER BY position"
                names = [name for (name,) in connection.execute(ordered).fetchall()]
            found = connection.execute(_PAGE, {"after": offset, "limit": page}).fetchall()
        for number, line, cells in found:
            yield Row(number, line, dict(zip(names, cells, strict=True)))
        offset += len(found)
        left = None if left is None else left - len(found)
        if len(found) < page:
            return
