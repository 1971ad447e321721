import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from data_prep.upload import Upload, load_upload, read_rows, read_upload, reading_upload
from templates.errors import DataError, RunError
from templates.files import sha256_of_bytes


def test_an_upload_keeps_bytes_rows_and_profile(tmp_path: Path) -> None:
    content = "text,label,score,ok,none\n" + "".join(
        f"text {number},{'xy'[number % 2]},{number},yes,\n" for number in range(30)
    )
    (tmp_path / "My Table.csv").write_text(content)
    upload = read_upload(tmp_path / "My Table.csv", tmp_path / "uploads" / "up-1")
    folder = tmp_path / "uploads" / "up-1"
    assert sorted(path.name for path in folder.iterdir()) == [
        "original.csv",
        "rows.duckdb",
        "upload.json",
    ]
    assert (folder / "original.csv").read_text() == content
    assert upload.sha256 == sha256_of_bytes(content.encode())
    assert (upload.id, upload.name, upload.format) == ("up-1", "My Table.csv", "csv")
    assert (upload.encoding, upload.delimiter, upload.num_rows) == ("utf-8", ",", 30)
    assert upload.total_bytes == len(content)
    kinds = [column.kind for column in upload.columns]
    assert kinds == ["text", "category", "number", "boolean", "empty"]
    assert upload.columns[0].samples[:2] == ("text 0", "text 1")
    assert load_upload(folder) == upload
    assert next(read_rows(folder, offset=29)).cells["text"] == "text 29"


def test_columns_come_with_small_charts(make_upload: Callable[..., Path]) -> None:
    folder = make_upload("label,n\na,1\na,2\nb,4\n")
    label, number = load_upload(folder).columns
    assert [(value.value, value.count) for value in label.top] == [("a", 2), ("b", 1)]
    assert (number.histogram[0].from_, number.histogram[-1].to) == (1, pytest.approx(4))
    manifest = json.loads((folder / "upload.json").read_text())
    for column in manifest["columns"]:
        del column["top"], column["histogram"]
    del manifest["has_header"], manifest["sheet"]
    (folder / "upload.json").write_text(json.dumps(manifest))
    assert load_upload(folder).columns[0].top == (), "uploads of older versions are read"


def test_reading_step_by_step_leaves_nothing_when_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_prep.table.BATCH_ROWS", 10)
    (tmp_path / "a.csv").write_text("a,b\n" + "1,2\n" * 1000)
    steps = list(reading_upload(tmp_path / "a.csv", tmp_path / "uploads" / "one"))
    ratios = [step.done_ratio for step in steps]
    assert ratios == sorted(ratios) and len(steps) > 100 and steps[50].words == "490 rows read"
    for stop in (1, 2, 50, len(steps)):
        reading = reading_upload(tmp_path / "a.csv", tmp_path / "uploads" / "two")
        for _ in range(stop):
            next(reading)
        reading.close()
        assert [path.name for path in (tmp_path / "uploads").iterdir()] == ["one"]


def test_json_columns_and_long_samples(make_upload: Callable[..., Path]) -> None:
    folder = make_upload(
        json.dumps({"m": [{"a": "x" * 500}]}) + '\n{"m": "plain"}\n', name="a.jsonl"
    )
    (column,) = load_upload(folder).columns
    assert column.kind == "json" and len(column.samples[0]) == 200
    assert column.max_characters > 500


@pytest.mark.parametrize(
    ("name", "label", "stored"),
    [
        ("../../etc/passwd", "passwd", "original.txt"),
        ("C:\\data\\a.CSV", "a.CSV", "original.csv"),
        ("a\nb\x00.csv", "ab.csv", "original.csv"),
        ("x" * 300 + ".tsv", "x" * 116 + ".tsv", "original.tsv"),
        (".csv", ".csv", "original.txt"),
        ("CON", "CON", "original.txt"),
        ("🎉.csv", "🎉.csv", "original.csv"),
        ("/", "table", "original.txt"),
    ],
)
def test_names_are_labels_only(
    name: str, label: str, stored: str, make_upload: Callable[..., Path]
) -> None:
    folder = make_upload("a,b\n1,2\n", name=name)
    assert load_upload(folder).name == label
    assert (folder / stored).is_file()


def test_gzip_is_kept_as_it_came(make_upload: Callable[..., Path]) -> None:
    data = gzip.compress(b"a,b\n1,2\n")
    folder = make_upload(data, name="a.csv.gz")
    assert (folder / "original.csv.gz").read_bytes() == data
    assert load_upload(folder).num_rows == 1


def test_a_name_need_not_end_like_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": "x"}')
    upload = read_upload(tmp_path / "a.jsonl", tmp_path / "up", name="My tickets v1.5")
    assert (upload.name, upload.format) == ("My tickets v1.5", "jsonl")
    assert (tmp_path / "up" / "original.jsonl").is_file()


def test_overrides(make_upload: Callable[..., Path]) -> None:
    folder = make_upload("a;b\né;2\n".encode("cp1250"), encoding="cp1250", delimiter=";")
    upload = load_upload(folder)
    assert (upload.encoding, upload.delimiter) == ("cp1250", ";")
    assert next(read_rows(folder)).cells == {"a": "é", "b": "2"}


def test_no_upload_here(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"There is no upload here.*Upload a table"):
        load_upload(tmp_path)
    (tmp_path / "upload.json").write_text("{}")
    with pytest.raises(DataError, match="is missing"):
        load_upload(tmp_path)


def test_nothing_is_left_when_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("data_prep.upload.write_rows", full)
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    with pytest.raises(RunError, match="The disk is full: the upload"):
        read_upload(tmp_path / "a.csv", tmp_path / "uploads" / "up")
    assert not list((tmp_path / "uploads").iterdir())


def test_an_upload_is_a_frozen_value() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Upload.model_construct(id="x").id = "y"
