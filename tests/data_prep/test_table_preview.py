import gzip
import json
import time
from pathlib import Path

import pytest

from data_prep.table_file import Corrections
from data_prep.table_preview import TablePreview, preview_table
from tests.data_prep.test_parquet import written
from tests.data_prep.test_text_archive import zipped
from tests.data_prep.workbooks import table_sheet, workbook


def preview(path: Path, content: str | bytes, **corrections: object) -> TablePreview:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return preview_table(
        path, name=path.name, corrections=Corrections.model_validate(corrections), limit=3
    )


def test_a_small_file_is_seen_whole(tmp_path: Path) -> None:
    shown = preview(tmp_path / "a.csv", "a;b\n1;2\n")
    assert (shown.columns, shown.rows) == (("a", "b"), (("1", "2"),))
    assert (shown.format, shown.encoding, shown.delimiter) == ("csv", "utf-8", ";")
    assert (shown.has_header, shown.is_complete, shown.problem) == (True, True, None)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "text,label\n" + '"one, ""é""\n😀",x\n' * 200_000),
        ("a.jsonl", '{"text": "one, \\"é\\"\\n😀", "label": "x"}\n' * 100_000),
        ("a.json", json.dumps([{"text": 'one, "é"\n😀', "label": "x"}] * 50_000)),
        ("a.json", json.dumps({"data": [{"text": 'one, "é"\n😀', "label": "x"}] * 50_000})),
    ],
)
def test_of_a_large_file_only_the_beginning_is_read(
    name: str, content: str, tmp_path: Path
) -> None:
    for path, data in (
        (tmp_path / name, content.encode()),
        (tmp_path / f"{name}.gz", gzip.compress(content.encode())),
    ):
        seconds = []
        for _ in range(3):  # the least counts: something else may be running beside
            start = time.process_time()
            shown = preview(path, data)
            seconds.append(time.process_time() - start)
        assert min(seconds) < 0.5
        assert (shown.columns, shown.problem) == (("text", "label"), None)
        assert shown.rows == (('one, "é"\n😀', "x"),) * 3 and not shown.is_complete


def test_a_record_larger_than_the_beginning(tmp_path: Path) -> None:
    shown = preview(tmp_path / "a.csv", "a,b\n" + "x" * 1_000_000 + ",1\n" + "y,2\n" * 500_000)
    assert shown.rows[0] == ("x" * 299 + "…", "1") and shown.problem is None


def test_a_first_row_without_an_end(tmp_path: Path) -> None:
    for name, start in (("a.csv", '"'), ("a.json", '[{"a": "'), ("a.json", "[{,")):
        shown = preview(tmp_path / name, start + "x" * (17 << 20))
        assert shown.problem is not None and "does not end within 16 MB" in shown.problem.what


def test_a_problem_is_part_of_the_answer(tmp_path: Path) -> None:
    shown = preview(tmp_path / "a.csv", "a,b\n1,2,3\n4,5\n")
    assert shown.problem is not None and "1 row(s)" in shown.problem.what
    assert shown.problem.where == "a.csv, line 2 (3 cells)" and "comma" in shown.problem.fix
    assert shown.lines == ("a,b", "1,2,3", "4,5") and not shown.is_complete
    for name, content, words in (
        ("b.xlsx", b"PK\x03\x04", "damaged"),
        ("c.csv", b"\x89PNG\r\n\x1a\n\x00", "a PNG image"),
        ("d.csv.gz", b"\x1f\x8b\x08\x00broken", "gzip file is damaged"),
        ("e.csv", b"", "The file is empty"),
        ("f.csv", b"a\n\x00", "NUL bytes"),
    ):
        problem = preview(tmp_path / name, content).problem
        assert problem is not None and words in problem.what
    assert preview(tmp_path / "g.csv", "é", encoding="ascii").problem is not None
    missing = preview_table(tmp_path / "none.csv", name="none.csv", corrections=Corrections())
    assert missing.problem is not None and "no such file" in missing.problem.what


def test_corrections_change_it(tmp_path: Path) -> None:
    table = "1;é\n2;b\n".encode("cp1250")
    shown = preview(tmp_path / "a.csv", table, delimiter=";", encoding="cp1250", has_header=False)
    assert shown.rows == (("1", "é"), ("2", "b")) and shown.columns == ("column 1", "column 2")
    shown = preview(tmp_path / "a.txt", "a\tb\n1\t2\n", delimiter="\t")
    assert shown.columns == ("a", "b")


def test_files_that_are_no_text(tmp_path: Path) -> None:
    book = workbook({"A": table_sheet(("a", "b"), (1, 2)), "B": table_sheet(("c", "d"), (3, 4))})
    shown = preview(tmp_path / "a.xlsx", book, sheet="B")
    assert (shown.sheet, shown.sheets, shown.rows) == ("B", ("A", "B"), (("3", "4"),))
    texts = zipped(*((f"{number}.txt", f"text {number}") for number in range(9)))
    shown = preview(tmp_path / "a.zip", texts)
    assert shown.rows[2] == ("2.txt", "text 2") and len(shown.rows) == 3
    content = written(tmp_path / "a.parquet").read_bytes()
    shown = preview(tmp_path / "a.parquet", content)
    assert shown.rows[1][:3] == ("1", "text 1", "false") and len(shown.rows) == 3
    assert not shown.is_complete
