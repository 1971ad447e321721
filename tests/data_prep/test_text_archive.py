import io
import zipfile
from pathlib import Path

import pytest

from data_prep.table import Table
from data_prep.table_file import read_table


def zipped(*members: tuple[str, str | bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def read(tmp_path: Path, *members: tuple[str, str | bytes]) -> Table:
    (tmp_path / "a.zip").write_bytes(zipped(*members))
    return read_table(tmp_path / "a.zip")


def test_each_file_is_a_row_and_folders_may_be_labels(tmp_path: Path) -> None:
    table = read(
        tmp_path,
        ("reviews/", ""),
        ("reviews/pos/1.txt", "good\n\nfilm\n"),
        ("reviews/neg/2.TXT", "bad".encode("utf-16")),
        ("reviews/readme.md", "no"),
        ("reviews/more.zip", zipped(("x.txt", "y"))),
        ("__MACOSX/reviews/pos/._1.txt", "litter"),
    )
    assert table.columns == ("file", "folder", "text") and table.lines == [1, 2]
    assert table.cells == [["1.txt", "pos", "good\n\nfilm"], ["2.TXT", "neg", "bad"]]
    assert (table.format, table.encoding) == ("zip", "several")
    assert table.notes == (
        "2 text file(s), one row each",
        "2 other file(s) left out: reviews/readme.md, reviews/more.zip",
        "1 file(s): Byte order mark removed",
    )


def test_one_folder_is_no_label(tmp_path: Path) -> None:
    table = read(tmp_path, ("all/a.txt", "x"), ("all/b.txt", "y"))
    assert table.columns == ("file", "text")


@pytest.mark.parametrize(
    ("name", "file", "folder"),
    [
        ("../../etc/passwd.txt", "passwd.txt", "etc"),
        ("/root/a.txt", "a.txt", "root"),
        ("C:\\deep\\b.txt", "b.txt", "C:/deep"),
        ("x/<b>\n\u202e.txt", "<b>.txt", "x"),
    ],
)
def test_names_are_labels_only(name: str, file: str, folder: str, tmp_path: Path) -> None:
    table = read(tmp_path, (name, "t"), ("top.txt", "u"))
    assert table.cells == [[file, folder, "t"], ["top.txt", "", "u"]]
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]
