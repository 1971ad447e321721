import gzip
import os
from pathlib import Path

import pytest

from data_prep import table_file
from data_prep.table_file import read_table
from templates.errors import DataError


def test_reads_every_format_and_gzip(tmp_path: Path) -> None:
    contents = {
        "a.csv": "a,b\n1,2\n",
        "a.tsv": "a\tb\n1\t2\n",
        "a.jsonl": '{"a": 1, "b": 2}\n',
        "a.json": '[{"a": 1, "b": 2}]',
        "A.CSV": "a,b\n1,2\n",
        "noending": "a,b\n1,2\n",
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content.encode()))
        for path in (tmp_path / name, tmp_path / f"{name}.gz"):
            assert read_table(path).rows()[0].cells == {"a": "1", "b": "2"}


def test_the_name_decides_the_format(tmp_path: Path) -> None:
    (tmp_path / "upload").write_text('{"a": 1}')
    assert read_table(tmp_path / "upload", name="x.jsonl").format == "jsonl"


def test_notes_of_encoding_come_first(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,a\ncafé,1\n", encoding="utf-8-sig")
    table = read_table(tmp_path / "a.csv")
    assert table.notes == ("Byte order mark removed", "Columns renamed: 'a' → 'a (2)'")


def test_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_file, "MAX_FILE_BYTES", 1_048_576)
    (tmp_path / "bomb.csv.gz").write_bytes(gzip.compress(b"a,b\n" + b"0" * 2_000_000))
    with pytest.raises(DataError, match=r"larger than 1 MB.*Upload a part"):
        read_table(tmp_path / "bomb.csv.gz")
    (tmp_path / "a.csv").write_bytes(b"0" * 2_000_000)
    with pytest.raises(DataError, match="larger than 1 MB"):
        read_table(tmp_path / "a.csv")


def test_only_regular_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(DataError, match="This is not a file"):
        read_table(tmp_path / "pipe.csv")
    with pytest.raises(DataError, match=r"may not be read.*access to"):
        read_table(Path("bad\x00name.csv"))
