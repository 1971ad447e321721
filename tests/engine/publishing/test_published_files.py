import os
import zipfile
from pathlib import Path

from engine.publishing.published_files import list_files, write_zip


def folder_in(path: Path, time: int) -> Path:
    (path / "part").mkdir(parents=True)
    for name, content in [("b.safetensors", b"\0" * 5000), ("part/a.txt", b"word " * 900)]:
        (path / name).write_bytes(content)
        os.utime(path / name, (time, time))
    return path


def test_lists_every_file_by_its_path(tmp_path: Path) -> None:
    files = list_files(folder_in(tmp_path, 0))
    assert [(file.name, file.size_bytes) for file in files] == [
        ("b.safetensors", 5000),
        ("part/a.txt", 4500),
    ]


def test_equal_folders_give_equal_zips(tmp_path: Path) -> None:
    for name, time in (("one", 10), ("two", 2_000_000_000)):
        write_zip(folder_in(tmp_path / name, time), tmp_path / f"{name}.zip", root="model")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.zip") as pack:
        assert pack.namelist() == ["model/b.safetensors", "model/part/a.txt"]
        assert pack.testzip() is None
        weights, text = pack.infolist()
        assert weights.compress_size == 5000, "weights are stored as they are"
        assert text.compress_size < 200
