import subprocess
import sys
import threading
import time
from pathlib import Path

import duckdb
import pytest

from data_prep import database
from data_prep.database import ColumnProfile, profile_columns, read_table_rows, write_rows
from data_prep.table import Facts, Reading, Row
from templates.errors import RunError


def table(*cells: tuple[str, str]) -> Reading:
    rows = [list(pair) for pair in cells]
    lines = list(range(2, len(rows) + 2))
    yield lines, rows
    return Facts("csv", "utf-8", ",", ("text", 'x"; DROP'))


def write_table(path: Path, reading: Reading) -> None:
    list(write_rows(path, reading))


def profile_table(path: Path) -> list[ColumnProfile]:
    asking = profile_columns(path)
    while True:
        try:
            next(asking)
        except StopIteration as end:
            return end.value


def test_rows_come_back_in_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BATCH_ROWS", 3)
    path = tmp_path / "rows.duckdb"
    write_table(path, table(*[(f"é{number}\x00\n", str(number)) for number in range(8)]))
    rows = list(read_table_rows(path))
    assert rows[7] == Row(8, 9, {"text": "é7\x00\n", 'x"; DROP': "7"})
    assert [row.number for row in rows] == list(range(1, 9))
    assert [row.number for row in read_table_rows(path, limit=4, offset=2)] == [3, 4, 5, 6]
    assert list(read_table_rows(path, limit=0)) == []
    assert list(read_table_rows(path, offset=99)) == []


def test_profile(tmp_path: Path) -> None:
    write_table(
        tmp_path / "rows.duckdb",
        table(("one", "1"), ("one", "-2.5e3"), (" \u00a0\n", ""), ("three", "7")),
    )
    text, number = profile_table(tmp_path / "rows.duckdb")
    assert (text.num_empty, text.num_distinct, text.all_numbers) == (1, 2, False)
    assert (text.min_characters, text.mean_characters, text.max_characters) == (3, 3.5, 5)
    assert list(text.samples) == ["one", "one", "three"]
    assert (number.num_empty, number.num_distinct, number.all_numbers) == (1, 3, True)


def test_the_most_frequent_values(tmp_path: Path) -> None:
    cells = [("b" * 99, "x"), ("a", "x"), ("a", ""), ("b" * 99, "y"), ("b" * 99, " ")]
    cells += [(f"once {number}", "x") for number in range(9)]
    write_table(tmp_path / "rows.duckdb", table(*cells))
    text, short = profile_table(tmp_path / "rows.duckdb")
    assert text.top[:3] == [("b" * 59 + "…", 3), ("a", 2), ("once 0", 1)]
    assert len(text.top) == 8 and text.num_distinct == 11
    assert short.top == [("x", 11), ("y", 1)], "empty cells are no value"


def test_histograms_of_numbers_and_lengths(tmp_path: Path) -> None:
    cells = [("x" * length, str(length / 10)) for length in range(1, 102)]
    write_table(tmp_path / "rows.duckdb", table(*cells, ("", " "), ("", "1e999")))
    text, number = profile_table(tmp_path / "rows.duckdb")
    assert text.histogram[0] == (1, 7, 6) and text.histogram[-1][0] <= 101 < text.histogram[-1][1]
    assert sum(count for *_, count in text.histogram) == 101
    assert number.all_numbers and len(number.histogram) == 20
    assert number.histogram[0][0] == 0.1 and number.histogram[-1][1] == pytest.approx(10.1)
    assert sum(count for *_, count in number.histogram) == 101, "what is too large is left out"


def test_one_number_makes_one_bin(tmp_path: Path) -> None:
    write_table(tmp_path / "rows.duckdb", table(("same", "5"), ("also", "5"), ("", "")))
    text, number = profile_table(tmp_path / "rows.duckdb")
    assert (text.histogram, number.histogram) == ([(4, 5, 2)], [(5, 5, 2)])


def test_nan_and_inf_are_no_numbers(tmp_path: Path) -> None:
    write_table(tmp_path / "rows.duckdb", table(("nan", "yes"), ("inf", "No")))
    text, flag = profile_table(tmp_path / "rows.duckdb")
    assert not text.all_numbers and flag.all_booleans


def test_the_connection_is_locked_down(tmp_path: Path) -> None:
    write_table(tmp_path / "rows.duckdb", table(("a", "b")))
    with database._connect(tmp_path / "rows.duckdb", read_only=True) as connection:
        for statement in (
            "SELECT * FROM read_csv('/etc/passwd')",
            "ATTACH '/tmp/other.duckdb'",
            "INSTALL httpfs",
            "SET enable_external_access = true",
        ):
            with pytest.raises(duckdb.Error):
                connection.execute(statement)


def test_a_file_locked_by_another_process_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "rows.duckdb"
    write_table(path, table(("a", "b")))
    script = "import duckdb,sys; c=duckdb.connect(sys.argv[1]); print('open',flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout and other.stdout.readline() == b"open\n"
        with pytest.raises(RunError, match=r"Another program has this table open.*Wait"):
            list(read_table_rows(path))
        other.communicate(b"\n")
    assert len(list(read_table_rows(path))) == 1


# Kinds by name: DuckDB complains at exit about its classes still held by pytest.
@pytest.mark.parametrize(
    ("kind", "message", "sentence"),
    [
        ("IOException", "No space left on device", "The disk is full"),
        ("IOException", "corrupt", r"cannot be opened.*Upload the file again"),
        ("OutOfMemoryException", "no", r"does not fit into the memory.*fewer rows"),
    ],
)
def test_disk_trouble(
    kind: str, message: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise getattr(duckdb, kind)(message)

    monkeypatch.setattr(duckdb, "connect", fail)
    with pytest.raises(RunError, match=sentence):
        profile_table(tmp_path / "rows.duckdb")


def test_a_missing_or_foreign_file(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot be opened"):
        profile_table(tmp_path / "none.duckdb")
    (tmp_path / "rows.duckdb").write_bytes(b"no database" * 1000)
    with pytest.raises(RunError, match="cannot be opened"):
        profile_table(tmp_path / "rows.duckdb")


def test_a_slow_statement_can_be_ended(tmp_path: Path) -> None:
    path = tmp_path / "rows.duckdb"
    write_table(path, table(("a", "b")))
    ending = threading.Timer(0.5, database.interrupt)
    ending.start()
    started = time.monotonic()
    with (
        pytest.raises(RunError, match="Reading the table was stopped"),
        database._connect(path, read_only=True) as connection,
    ):
        connection.execute("SELECT count(*) FROM range(100_000_000_000) a, range(9) b").fetchall()
    assert time.monotonic() - started < 10
    database.interrupt()
    assert len(list(read_table_rows(path))) == 1
