"""The only owner of DuckDB: rows land here with their line numbers, and are profiled in SQL.

`rows(row, line, cells)` holds one text per column in `cells`, in the order of `columns`. The SQL
is constant: no name or text of a person's table ever becomes part of a statement.
"""

from collections import defaultdict
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import duckdb

from data_prep.table import BATCH_ROWS, Facts, Reading, Row, shortened
from templates.errors import RunError
from templates.files import disk_full

_MOST_VALUES = 8
_SHOWN_CHARACTERS = 60
_MOST_BINS = 20
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
_PAD = "UPDATE rows SET cells = list_resize(cells, $width, '') WHERE len(cells) < $width"
_CELLS = r"""
    WITH cells AS (
        SELECT row, unnest(cells) AS text, generate_subscripts(cells, 1) AS position FROM rows
    ), marked AS (
        SELECT *, regexp_full_match(text, '[\s\x{00a0}]*') AS is_empty FROM cells
    )
"""
_PROFILE = rf"""
    {_CELLS}
    SELECT
        count(*) FILTER (is_empty) AS num_empty,
        coalesce(min(length(text)), 0) AS min_characters,
        coalesce(avg(length(text)), 0) AS mean_characters,
        coalesce(max(length(text)), 0) AS max_characters,
        coalesce(bool_and(regexp_full_match(text, '\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*'))
            FILTER (NOT is_empty), false) AS all_numbers,
        coalesce(bool_and(lower(trim(text)) IN ('true', 'false', 'yes', 'no'))
            FILTER (NOT is_empty), false) AS all_booleans,
        coalesce(arg_min(text[:200], row, 5) FILTER (NOT is_empty), []) AS samples
    FROM marked GROUP BY position ORDER BY position
"""  # noqa: S608 - constant
# Values are told apart by their MD5: texts of many columns and rows would fill the memory.
_VALUES = rf"""
    {_CELLS}, counted AS (
        SELECT position, min(row) AS row, count(*) AS num FROM marked WHERE NOT is_empty
        GROUP BY position, md5_number(text)
    ), ranked AS (
        SELECT *, count(*) OVER (PARTITION BY position) AS num_distinct,
            row_number() OVER (PARTITION BY position ORDER BY num DESC, row) AS rank
        FROM counted
    )
    SELECT position, num_distinct, rows.cells[position][:$characters], num
    FROM ranked JOIN rows USING (row) WHERE rank <= $most ORDER BY position, rank
"""  # noqa: S608 - constant
_BINS = rf"""
    {_CELLS}, measured AS (
        SELECT position, CASE WHEN $numbers[position] THEN try_cast(trim(text) AS DOUBLE)
            ELSE length(text) END AS value
        FROM marked WHERE NOT is_empty
    ), finite AS (
        SELECT * FROM measured WHERE isfinite(value)
    ), ends AS (
        SELECT position, min(value) AS low, max(value) AS high,
            CASE WHEN $numbers[position] THEN (high - low) / $most
                ELSE greatest(1, ceil((high - low + 1) / $most)) END AS width
        FROM finite GROUP BY position
    )
    SELECT position, any_value(low), any_value(width),
        CASE WHEN width > 0 THEN least(floor((value - low) / width), $most - 1) ELSE 0 END AS bin,
        count(*)
    FROM finite JOIN ends USING (position) WHERE isfinite(width)
    GROUP BY position, bin ORDER BY position, bin
"""  # noqa: S608 - constant
_PAGE = "SELECT row, line, cells FROM rows WHERE row > $after ORDER BY row LIMIT $limit"


_at_work: set[duckdb.DuckDBPyConnection] = set()
DatabaseError = duckdb.Error  # for those who ask in SQL of their own


@dataclass(frozen=True)
class ColumnProfile:
    """What SQL says about one column; lengths in characters.

    Attributes:
        top: the most frequent values, shortened, and how often they occur.
        histogram: start, end and count of equal bins: of the numbers where all are numbers,
            else of the lengths. Empty cells are in none of them.
    """

    num_empty: int
    num_distinct: int
    min_characters: int
    mean_characters: float
    max_characters: int
    all_numbers: bool
    all_booleans: bool
    samples: Sequence[str]
    top: Sequence[tuple[str, int]]
    histogram: Sequence[tuple[float, float, int]]


@contextmanager
def _connect(path: Path, *, read_only: bool) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open the file for a moment; disk and lock trouble become sentences."""
    try:
        with duckdb.connect(path, read_only=read_only, config=_SETTINGS) as connection:
            _at_work.add(connection)
            try:
                yield connection
            finally:
                _at_work.discard(connection)
    except duckdb.InterruptException:
        raise RunError("Reading the table was stopped", fix="Start it again") from None
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


def interrupt() -> None:
    """End the statements that other threads are waiting for."""
    for connection in tuple(_at_work):
        connection.interrupt()


@contextmanager
def read_files(
    what: str, *, if_damaged: str = "Make it again"
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open an empty workplace in memory whose statements may read files.

    What is made in it as temporary is gone afterwards, and unseen by others meanwhile.

    Args:
        what: what is read, such as "the run's events".
        if_damaged: what to do where a statement finds a damaged line and does not pass it over.

    Yields:
        A connection of this caller's own.

    Raises:
        RunError: a file went away, may not be read, or is damaged.
    """
    with _memory().cursor() as connection:
        try:
            yield connection
        except (duckdb.IOException, duckdb.PermissionException):
            fix = "Check that its folder still exists and may be read"
            raise RunError(f"Reading {what} did not work", fix=fix) from None
        except duckdb.InvalidInputException:
            raise RunError(f"A line of {what} is damaged", fix=if_damaged) from None


@cache
def _memory() -> duckdb.DuckDBPyConnection:
    """One for the process: opening takes as long as reading some megabytes."""
    settings = _SETTINGS | {"enable_external_access": "true", "threads": "1"}
    return duckdb.connect(":memory:", config=settings)


def write_rows(path: Path, reading: Reading) -> Generator[tuple[int, int], None, Facts]:
    """Store what a reader gives in a new database file, in one transaction.

    Args:
        path: a file that does not exist yet.
        reading: a reader that was not begun.

    Returns:
        How many rows are stored so far, and how many characters have just been added; and in
        the end how the file was understood.
    """
    num_rows = 0
    with _connect(path, read_only=False) as connection:
        connection.execute(_SCHEMA)
        connection.begin()
        while True:
            try:
                lines, cells = next(reading)
            except StopIteration as end:
                facts: Facts = end.value
                break
            numbers = list(range(num_rows + 1, num_rows + len(lines) + 1))
            connection.execute(_INSERT, {"rows": numbers, "lines": lines, "cells": cells})
            num_rows += len(lines)
            yield num_rows, sum(sum(map(len, row)) for row in cells)
        names = list(enumerate(facts.columns))
        connection.executemany("INSERT INTO columns VALUES (?, ?)", names)
        connection.execute(_PAD, {"width": len(names)})
        connection.commit()
    return facts


def profile_columns(path: Path) -> Generator[None, None, list[ColumnProfile]]:
    """Describe each column; exact.

    Args:
        path: the database file.

    Returns:
        Nothing, between the questions to the database; and in the end one profile per column,
        in table order.
    """
    with _connect(path, read_only=True) as connection:
        found = connection.execute(_PROFILE)
        names = [column[0] for column in found.description or ()]
        profiles = [dict(zip(names, line, strict=True)) for line in found.fetchall()]
        yield
        sizes = {"characters": _SHOWN_CHARACTERS + 1, "most": _MOST_VALUES}
        values = connection.execute(_VALUES, sizes).fetchall()
        yield
        kinds = {"numbers": [profile["all_numbers"] for profile in profiles], "most": _MOST_BINS}
        bins = connection.execute(_BINS, kinds).fetchall()
    top: dict[int, list[tuple[str, int]]] = defaultdict(list)
    num_distinct: dict[int, int] = defaultdict(int)
    for position, num_values, value, count in values:
        num_distinct[position] = num_values
        top[position].append((shortened(value, _SHOWN_CHARACTERS), count))
    histogram: dict[int, list[tuple[float, float, int]]] = defaultdict(list)
    for position, low, width, number, count in bins:
        start, end = low + width * number, low + width * (number + 1)
        histogram[position].append((start, end, count))
    return [
        ColumnProfile(
            num_distinct=num_distinct[position],
            top=top[position],
            histogram=histogram[position],
            **facts,
        )
        for position, facts in enumerate(profiles, 1)
    ]


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
        page = BATCH_ROWS if left is None else min(left, BATCH_ROWS)
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
