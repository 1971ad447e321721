"""Bad tables: input -> one sentence with what, where and how to fix it; nothing is left behind."""

import gzip
import io
import json
import zipfile
from pathlib import Path

import pytest

from data_prep.mapping import ColumnMapping
from data_prep.prepare import prepare
from data_prep.recipe import PrepRecipe, Step, default_recipe
from data_prep.splits import SplitOptions
from data_prep.upload import read_upload
from templates.builtin import TEMPLATES
from templates.errors import DataError
from tests.data_prep.workbooks import cell, sheet, table_sheet, workbook

_ZIP = io.BytesIO()
with zipfile.ZipFile(_ZIP, "w") as _archive:
    _archive.writestr("readme.txt", "hello")
_XLSX = io.BytesIO()
with zipfile.ZipFile(_XLSX, "w") as _archive:
    _archive.writestr("xl/workbook.xml", "<workbook/>")

_TABLE = workbook({"A": table_sheet(("text", "label"), ("x", "y"))})
_PASSWORD = (
    b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600) + "EncryptedPackage".encode("utf-16-le")
)


def _zip(*members: tuple[str, bytes], **options: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content, **options)
    return file.getvalue()


def _forged_size(archive: bytes, size: int) -> bytes:
    """Let the directory at the end promise another size for its last file."""
    place = archive.rindex(b"PK\x01\x02") + 24
    return archive[:place] + size.to_bytes(4, "little") + archive[place + 4 :]


def _encrypted(archive: bytes) -> bytes:
    place = archive.rindex(b"PK\x01\x02") + 8
    return archive[:place] + b"\x01" + archive[place + 1 :]


_MUCH = b" " * (70 << 20)
_LARGE = workbook({"A": ""}, more={"xl/media/x.xml": _MUCH})
_ZEROS = _zip(("a.txt", _MUCH))


# name, content, options of read_upload, what the sentence says
FILES = {
    "empty": ("a.csv", b"", {}, ["The file is empty", "a.csv", "Upload a table"]),
    "only spaces": ("a.csv", b" \n\n", {}, ["The file is empty"]),
    "empty jsonl": ("a.jsonl", b"\n", {}, ["The file is empty"]),
    "header only": ("a.csv", b"text,label\n", {}, ["no rows", "line 1", "Add rows"]),
    "ragged": (
        "a.csv",
        b"text,label\na,1\nb\n\nc,2,3\nd,4\n",
        {},
        ["2 row(s)", "2 cell(s)", "line 3 (1 cells), 5 (3 cells)", "double quotes", "comma"],
    ),
    "ragged, many": (
        "a.csv",
        b"text,label\n" + b"a\n" * 30,
        {},
        ["30 row(s)", "line 2 (1 cells), 3 (1", "11 (1 cells) and 20 more"],
    ),
    "unclosed quote": (
        "a.csv",
        b'text,label\nfine,1\n"open,2\nx,3\ny,4\n',
        {},
        ["never closed", "opened in line 3", 'Close the cell with "'],
    ),
    "unclosed quote, met by a later one": (
        "a.csv",
        b'text,label\n"open,2\nx,3\n"y",4\n',
        {},
        ["not closed properly", "opened in line 2", "line 4"],
    ),
    "second cell unclosed": (
        "a.csv",
        b'text,label\n"two\nlines","open,2\nx,3\n',
        {},
        ["never closed", "opened in line 3"],
    ),
    "bad delimiter": ("a.csv", b"a,b\n1,2\n", {"delimiter": '"'}, ["cannot be a delimiter"]),
    "xlsx as csv": (
        "a.csv",
        _XLSX.getvalue(),
        {},
        ["an Excel workbook", "not CSV", "a.csv", "save the sheet as CSV"],
    ),
    "zip as csv": ("a.csv", _ZIP.getvalue(), {}, ["a zip archive, not CSV", "Unpack"]),
    "parquet as jsonl": ("a.jsonl", b"PAR1\x00\x01", {}, ["a Parquet file, not JSON Lines"]),
    "pdf as tsv": ("a.tsv", b"%PDF-1.7 ...", {}, ["a PDF document, not TSV", "Upload a CSV"]),
    "png as csv": ("a.csv", b"\x89PNG\r\n\x1a\n\x00", {}, ["a PNG image, not CSV"]),
    "exe as csv": ("a.csv", b"MZ\x90\x00\x03\x00", {}, ["a Windows program"]),
    "gzip inside gzip": ("a.csv.gz", gzip.compress(gzip.compress(b"a,b\n1,2")), {}, ["a gzip"]),
    "gzip behind csv": ("a.csv", gzip.compress(b"a,b\n1,2"), {}, ["a gzip archive, not CSV"]),
    "damaged gzip": ("a.csv.gz", b"\x1f\x8b\x08\x00broken", {}, ["gzip file is damaged"]),
    "web page": ("a.csv", b"<!DOCTYPE html><p>", {}, ["a web page (HTML), not CSV"]),
    "json as csv": ("a.csv", b'{"a": 1}\n', {}, ["This is JSON, not CSV", ".jsonl"]),
    "unknown ending": ("a.xml", b"<a/>", {}, ["Files ending in .xml are not read", "Save"]),
    "NUL": ("a.csv", b"a,b\n1,\x002\n", {}, ["NUL bytes", "a.csv, line 2", "Export"]),
    "damaged UTF-8": (
        "a.csv",
        "text,label\né,1\nè,2\nx\udcff,3\n".encode("utf-8", "surrogateescape"),
        {},
        ["1 line(s) hold damaged bytes", "line 4", "choose the encoding"],
    ),
    "wrong encoding chosen": (
        "a.csv",
        "text\né\n".encode("cp1252"),
        {"encoding": "utf-8"},
        ["The file is not utf-8", "line 2", "Leave the encoding empty"],
    ),
    "unknown encoding": ("a.csv", b"a\n1", {"encoding": "klingon"}, ["'klingon'", "cp1252"]),
    "no text encoding": ("a.csv", b"a\n1", {"encoding": "zlib"}, ["'zlib'", "Choose one such"]),
    "utf-16 chosen as utf-8": (
        "a.csv",
        "a,b\n1,2\n".encode("utf-16-le"),
        {"encoding": "utf-8"},
        ["Read as utf-8", "NUL characters", "line 1"],
    ),
    "too many columns": ("a.csv", b"," * 600 + b"\n1", {}, ["601 columns", "at most 500"]),
    "broken JSON line": (
        "a.jsonl",
        b'{"a": 1}\n{"a": 2\n{"a": 3}\n',
        {},
        ["This is not JSON", "a.jsonl, line 2", "one complete JSON object"],
    ),
    "trailing comma": ("a.jsonl", b'{"a": 1},\n{"a": 2}\n', {}, ["More text follows", "line 1"]),
    "deep nesting": (
        "a.jsonl",
        b'{"a": 1}\n{"a": ' + b"[" * 5000 + b"]" * 5000 + b"}\n",
        {},
        ["more than 20 levels", "line 2", "Flatten"],
    ),
    "deep nesting, open": ("a.json", b"[" * 100_000, {}, ["20 levels", "line 1"]),
    "NaN": ("a.jsonl", b'{"a": 1}\n{"a": NaN}', {}, ["NaN is not a JSON number", "line 2"]),
    "infinity": ("a.jsonl", b'{"a": -Infinity}', {}, ["-Infinity", "Leave the cell empty"]),
    "1e999": ("a.jsonl", b'{"a": 1e999}', {}, ["1e999 is too large", "in quotes"]),
    "5,000 digits": ("a.jsonl", b'{"a": ' + b"9" * 5000 + b"}", {}, ["too many digits", "line 1"]),
    "duplicate key": (
        "a.jsonl",
        b'{"a": 1}\n{"text": "x", "text": "y"}',
        {},
        ["The key 'text' stands twice", "line 2", "Keep one"],
    ),
    "half a character": ("a.jsonl", b'{"a": "\\ud800"}', {}, ["half of a character", "line 1"]),
    "not an object": ("a.jsonl", b'{"a": 1}\n[1]\n', {}, ["A row is a list", "line 2", "Write"]),
    "number as row": ("a.json", b"[1]", {}, ["A row is a number", "line 1"]),
    "null as row": ("a.json", b"[null]", {}, ["A row is null"]),
    "two lists": ("a.json", b'{"a": [], "b": []}', {}, ["lists: a, b", '{"data"']),
    "no list": ("a.json", b'{"a": 1}', {}, ["holds no list"]),
    "array broken off": ("a.json", b'[{"a": 1},\n{"a": 2}', {}, ["broken off", "line 2"]),
    "text after the array": ("a.json", b'[{"a": 1}]\n[2]', {}, ["after the JSON array", "line 2"]),
    "xlsm": ("a.xlsm", _TABLE, {}, ["ending in .xlsm are not read", "save it as .xlsx"]),
    "xls": ("a.xls", _PASSWORD, {}, ["ending in .xls are not read", "save it as .xlsx"]),
    "ods": ("a.ods", _TABLE, {}, ["ending in .ods are not read", "save it as .xlsx"]),
    "old workbook as xlsx": (
        "a.xlsx",
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600),
        {},
        ["an old Office file (.xls)", "save it as .xlsx"],
    ),
    "workbook with a password": (
        "a.xlsx",
        _PASSWORD,
        {},
        ["with a password", "without a password"],
    ),
    "workbook with macros": (
        "a.xlsx",
        workbook({"A": "<worksheet/>"}, more={"xl/vbaProject.bin": b"x"}),
        {},
        ["holds macros", "Save it as .xlsx"],
    ),
    "zip as xlsx": ("a.xlsx", _zip(("a.txt", b"x")), {}, ["damaged, or not an Excel workbook"]),
    "csv as xlsx": ("a.xlsx", b"a,b\n1,2\n", {}, ["This is text, not an Excel workbook"]),
    "half a workbook": ("a.xlsx", _TABLE[: len(_TABLE) // 2], {}, ["damaged", "Save or pack"]),
    "workbook that unpacks to too much": (
        "a.xlsx",
        _LARGE,
        {},
        ["Unpacked, this would be 7 file(s) of 73 MB", "Upload a part"],
    ),
    "workbook that lies about its size": (
        "a.xlsx",
        _forged_size(_LARGE, 1000),
        {},
        ["damaged: it cannot be unpacked"],
    ),
    "one cell far away": (
        "a.xlsx",
        workbook({"A": sheet({1: cell("A1", 1), 1048576: cell("XFD1048576", 1)})}),
        {},
        ["1,048,576 rows and 16,384 columns", "at most 500"],
    ),
    "empty workbook": ("a.xlsx", workbook({"A": sheet({})}), {}, ["The file is empty"]),
    "sheet with a header only": (
        "a.xlsx",
        workbook({"A": table_sheet(("text", "label"))}),
        {},
        ["'A' has a header but no rows", "a.xlsx, row 1"],
    ),
    "unknown sheet": ("a.xlsx", _TABLE, {"sheet": "B"}, ["no sheet 'B'", "its sheets: A"]),
    "csv as parquet": ("a.parquet", b"a,b\n1,2\n", {}, ["This is text, not Parquet"]),
    "forged parquet": ("a.parquet", b"PAR1" + bytes(40) + b"PAR1", {}, ["Parquet file is damaged"]),
    "zip without texts": (
        "a.zip",
        _zip(("a.csv", b"x"), ("b/c.zip", b"y")),
        {},
        ["no .txt file in the zip; it holds a.csv, b/c.zip", "Pack one .txt file"],
    ),
    "zip with a password": ("a.zip", _encrypted(_zip(("a.txt", b"x"))), {}, ["with a password"]),
    "zip of many zeros": (
        "a.zip",
        _ZEROS,
        {},
        ["Unpacked, this would be 1 file(s) of 73 MB"],
    ),
    "zip that lies about its size": (
        "a.zip",
        _forged_size(_zip(("a.txt", b"x" * 100_000)), 10),
        {},
        ["damaged: it cannot be unpacked"],
    ),
    "zip of binary texts": ("a.zip", _zip(("a.txt", b"x\x00y")), {}, ["NUL bytes", "a.zip, a.txt"]),
    "zip of a damaged zip": ("a.zip", b"PK\x03\x04" + bytes(100), {}, ["cannot be unpacked"]),
    "empty text": ("a.txt", b" \n\n", {}, ["The file is empty"]),
    "array without rows": ("a.json", b"[]", {}, ["The file has no rows", "Add rows"]),
}


@pytest.mark.parametrize("case", FILES)
def test_bad_file(case: str, tmp_path: Path) -> None:
    name, content, options, parts = FILES[case]
    path = tmp_path / "source"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_upload(path, tmp_path / "uploads" / "one", name=name, **options)
    for part in parts:
        assert part in str(caught.value)
    assert caught.value.fix and name in caught.value.where
    assert not list((tmp_path / "uploads").glob("*")), "nothing is left"


def test_missing_file_folder_and_used_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="There is no such file"):
        read_upload(tmp_path / "none.csv", tmp_path / "up")
    with pytest.raises(DataError, match="This is not a file"):
        read_upload(tmp_path, tmp_path / "up")
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    read_upload(tmp_path / "a.csv", tmp_path / "up")
    with pytest.raises(DataError, match=r"already something in this folder.*new folder"):
        read_upload(tmp_path / "a.csv", tmp_path / "up")


def _rows(*cells: tuple[str, str]) -> str:
    return "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in cells)


_GOOD = [
    (f"text {number} {'odd' if number % 2 else 'even'}", "ab"[number % 2]) for number in range(20)
]
_CLASSIFY = PrepRecipe(
    template=TEMPLATES["classification"],
    mapping=ColumnMapping(fields={"text": "text"}, label="label"),
)


def _with(**changes: object) -> PrepRecipe:
    return _CLASSIFY.model_copy(update=changes)


def _words(**changes: object) -> PrepRecipe:
    return _with(template=TEMPLATES["classification"].model_copy(update=changes))


RECIPES = {
    "one class": (
        _rows(*[(text, "a") for text, _ in _GOOD]),
        _CLASSIFY,
        ["one label 'a'", "Add rows of another class"],
    ),
    "fewer than 10 rows": (_rows(*_GOOD[:9]), _CLASSIFY, ["Only 9 row(s)", "at least 10", "Add"]),
    "all answers empty": (
        _rows(*[(text, "") for text, _ in _GOOD]),
        default_recipe(_CLASSIFY.template, _CLASSIFY.mapping),
        ["Only 0 row(s)", "which step dropped them"],
    ),
    "an empty answer": (
        _rows(*_GOOD, ("more", " ")),
        _CLASSIFY,
        ["1 row(s) have no answer", "row 21", "cleaner 'empty'"],
    ),
    "separator in the data": (
        _rows(*_GOOD, ("one\n\n###\n\ntwo", "a")),
        _CLASSIFY,
        ["The separator", "occurs in the data", "row 21", r"for example '\n\n~~~\n\n'"],
    ),
    "stop in the data": (
        _rows(*_GOOD, ("THE END of it", "a"), ("X END", "b")),
        _CLASSIFY,
        ["The stop sequence ' END' occurs in the data", "rows 21, 22", "' ~END~'"],
    ),
    "stop in a label": (_rows(*_GOOD, ("x", "DEAD END")), _CLASSIFY, ["stop sequence", "row 21"]),
    "stop in a label word": (
        _rows(*_GOOD),
        _words(verbalizer={"a": "THE END", "b": "b"}),
        ["occurs in the wording or a label word"],
    ),
    "separator in the wording": (
        _rows(*_GOOD),
        _words(wording="{text}\n\n###\n\n"),
        ["occurs in the wording", "Choose another separator"],
    ),
    "clashing label words": (
        _rows(*_GOOD),
        _words(verbalizer={"a": "yes", "b": "yes"}),
        ["'a' and 'b' have the same label word 'yes'", "its own word"],
    ),
    "unknown column": (
        _rows(*_GOOD),
        _with(mapping=ColumnMapping(fields={"text": "body"}, label="label")),
        ["no column 'body' for text", "text, label"],
    ),
    "unknown slot": (
        _rows(*_GOOD),
        _with(mapping=ColumnMapping(fields={"text": "text", "extra": "text"}, label="label")),
        ["no slot extra", "its slots: text"],
    ),
    "no label mapped": (
        _rows(*_GOOD),
        _with(mapping=ColumnMapping(fields={"text": "text"})),
        ["No column is mapped to label", "the table has: text, label"],
    ),
    "no input mapped": (
        _rows(*_GOOD),
        _with(template=TEMPLATES["generation"], mapping=ColumnMapping(references="label")),
        ["No column is mapped to instruction or input"],
    ),
    "input is the answer": (
        _rows(*_GOOD),
        _with(mapping=ColumnMapping(fields={"text": "label"}, label="label")),
        ["'label' is both the input text and the answer", "learns to copy"],
    ),
    "unknown cleaner": (
        _rows(*_GOOD),
        _with(steps=(Step(name="polish"),)),
        ["no cleaner called 'polish'", "empty, exact_duplicates, length"],
    ),
    "unknown augmenter": (
        _rows(*_GOOD),
        _with(augmenters=(Step(name="magic"),)),
        ["no augmenter called 'magic'", "word_noise"],
    ),
    "unknown option": (
        _rows(*_GOOD),
        _with(steps=(Step(name="length", options={"max_words": 3}),)),
        ["'max_words'", "options of length", "max_characters"],
    ),
    "option of a step without options": (
        _rows(*_GOOD),
        _with(steps=(Step(name="trim", options={"hard": True}),)),
        ["'hard'", "the settings are: none"],
    ),
    "option out of range": (
        _rows(*_GOOD),
        _with(steps=(Step(name="length", options={"max_characters": 0}),)),
        ["max_characters", "greater than or equal to 1", "but it is 0"],
    ),
    "limits the wrong way round": (
        _rows(*_GOOD),
        _with(steps=(Step(name="length", options={"min_characters": 9, "max_characters": 3}),)),
        ["min_characters must not exceed max_characters"],
    ),
    "unknown region": (
        _rows(*_GOOD),
        _with(steps=(Step(name="mask_personal_data", options={"region": "Mars"}),)),
        ["region", "two-letter country code", "'Mars'"],
    ),
    "all rows alike": (
        _rows(*[("same", "ab"[number % 2]) for number in range(20)]),
        _CLASSIFY,
        ["No row is left for the validation split", "1 different inputs", "Add rows"],
    ),
    "nothing left to train on": (
        _rows(*_GOOD),
        _with(splits=SplitOptions(test_rows=12, validation_rows=7)),
        ["less than a tenth", "20 rows", "Ask for fewer"],
    ),
    "split column says something else": (
        _rows(*_GOOD),
        _with(mapping=ColumnMapping(fields={"text": "text"}, label="label", split="label")),
        ["The split column says 'a'", "row 1", "Write train, validation or test"],
    ),
}


@pytest.mark.parametrize("case", RECIPES)
def test_bad_content(case: str, tmp_path: Path) -> None:
    content, recipe, parts = RECIPES[case]
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    read_upload(path, tmp_path / "up")
    with pytest.raises(DataError) as caught:
        prepare(tmp_path / "up", recipe, tmp_path / "datasets")
    for part in parts:
        assert part in str(caught.value)
    assert caught.value.fix
    assert not list((tmp_path / "datasets").glob("*")), "nothing is left"


def test_all_errors_are_told_together(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(_rows(("THE END", "a"), ("x", "a")))
    read_upload(path, tmp_path / "up")
    with pytest.raises(DataError, match=r"Only 2 row.*one label 'a'.*stop sequence"):
        prepare(tmp_path / "up", _CLASSIFY, tmp_path / "datasets")
