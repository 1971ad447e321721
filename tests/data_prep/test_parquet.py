import json
import random
from pathlib import Path

import duckdb
import pytest

from data_prep import parquet
from data_prep.table_file import read_table
from templates.errors import DataError

TYPED = """
    SELECT i AS id, 'text ' || i AS text, i % 2 = 0 AS ok, i / 4.0 AS score,
        [{'role': 'user', 'content': 'é' || i}] AS messages, MAP {'k': i} AS map,
        DATE '2024-01-02' AS day, TIMESTAMP '2024-01-02 03:04:05' AS at, NULL::INT AS nothing,
        'nan'::DOUBLE AS none, 'ab'::BLOB AS bytes
    FROM range(150) rows(i)
"""


def written(path: Path, query: str = TYPED) -> Path:
    with duckdb.connect() as connection:
        connection.sql(query).write_parquet(str(path))
    return path


def test_types_become_text(tmp_path: Path) -> None:
    table = read_table(written(tmp_path / "a.parquet"))
    assert table.json_columns == {"messages", "map"}
    row = dict(zip(table.columns, table.cells[3], strict=True))
    assert json.loads(row.pop("messages")) == [{"role": "user", "content": "é3"}]
    assert row == {
        "id": "3", "text": "text 3", "ok": "false", "score": "0.75", "map": '{"k": 3}',
        "day": "2024-01-02", "at": "2024-01-02 03:04:05", "nothing": "", "none": "", "bytes": "ab",
    }  # fmt: skip
    assert (len(table.lines), table.lines[149], table.format) == (150, 150, "parquet")


def test_a_folder_says_nothing_about_columns(tmp_path: Path) -> None:
    folder = tmp_path / "year=2024"
    folder.mkdir()
    path = written(folder / "a.parquet", "SELECT 'x' AS text")
    assert read_table(path).columns == ("text",)


def test_a_damaged_file_is_a_sentence(tmp_path: Path) -> None:
    content = written(tmp_path / "a.parquet").read_bytes()
    draw = random.Random(0)
    broken = tmp_path / "b.parquet"
    told = set()
    for number in range(60):
        flipped = bytearray(content)
        if number % 2:
            del flipped[draw.randrange(4, len(content) - 8) : -8]
        else:
            flipped[draw.randrange(len(content) // 2, len(content) - 4)] ^= 0xFF
        broken.write_bytes(flipped)
        try:
            read_table(broken)
        except DataError as error:
            told.add(error.what)
    assert told == {"The Parquet file is damaged, or holds something that is not read"}


def test_what_would_unpack_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its footer, and where a dictionary repeats one long text, by counting."""
    monkeypatch.setattr(parquet, "MAX_UNPACKED_BYTES", 1 << 20)
    plain = written(tmp_path / "a.parquet", "SELECT md5(i::TEXT) AS a FROM range(99999) t(i)")
    repeated = written(tmp_path / "b.parquet", "SELECT repeat('x', 9999) AS a FROM range(9999)")
    assert repeated.stat().st_size < 100_000
    for path in (plain, repeated):
        with pytest.raises(DataError, match=r"Unpacked, the table is larger.*a part of the rows"):
            read_table(path)


def test_no_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="The file has no rows"):
        read_table(written(tmp_path / "a.parquet", "SELECT 1 AS a WHERE false"))
