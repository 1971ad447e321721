import gzip
import os
import tempfile
from pathlib import Path

import pytest

from data_prep import table_file
from data_prep.table_file import read_table, unzipped
from templates.errors import DataError
from tests.data_prep.test_parquet import written
from tests.data_prep.test_text_archive import zipped
from tests.data_prep.workbooks import table_sheet, workbook


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


def test_an_unpacked_file_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads may be killed at any moment, and nothing may be left then."""
    places = tmp_path / "temporary"
    places.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(places))
    contents = {
        "a.csv": b"a,b\n1,2\n",
        "a.xlsx": workbook({"A": table_sheet(("a", "b"), (1, 2))}),
        "a.parquet": written(tmp_path / "b.parquet", "SELECT '1' AS a, '2' AS b").read_bytes(),
        "a.zip": zipped(("1.txt", b"one"), ("2.txt", b"two")),
    }
    for name, content in contents.items():
        path = tmp_path / f"{name}.gz"
        path.write_bytes(gzip.compress(content))
        with unzipped(path, path.name) as plain:
            assert plain.read_bytes() == content == plain.read_bytes()
            assert list(places.iterdir()) == []
        table = read_table(path)
        assert table.cells[0] == (["1", "2"] if name != "a.zip" else table.cells[0])
        assert len(table.cells) == (1 if name != "a.zip" else 2)
