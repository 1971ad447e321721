"""A file on disk -> its rows: size, gzip, kind of file, encoding, reader."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain
from pathlib import Path
from tempfile import TemporaryFile
from typing import BinaryIO

from pydantic import Field

from data_prep.delimited import read_delimited
from data_prep.encoding import open_text
from data_prep.json_lines import read_json_table
from data_prep.parquet import read_parquet
from data_prep.plain_text import read_plain_text
from data_prep.signatures import refuse_binary
from data_prep.table import Reading, Table, collect, empty_file
from data_prep.text_archive import read_text_archive
from data_prep.workbook import read_workbook
from templates.errors import DataError
from templates.files import disk_errors
from templates.values import Value

MAX_FILE_BYTES = 512 * 1024**2
FORMATS = {
    ".csv": "CSV",
    ".tsv": "TSV",
    ".tab": "TSV",
    ".txt": "text",
    ".jsonl": "JSON Lines",
    ".ndjson": "JSON Lines",
    ".json": "JSON",
    ".parquet": "Parquet",
    ".xlsx": "an Excel workbook",
    ".zip": "a zip of text files",
}
WANTED = "a CSV, TSV, JSONL, JSON, Parquet, Excel (.xlsx) or text file, or a zip of .txt files"
_BINARY = {
    "Parquet": "a Parquet file",
    "an Excel workbook": "an Excel workbook (.xlsx)",
    "a zip of text files": "a zip archive",
}
_SPREADSHEETS = (".xlsm", ".xlsb", ".xls", ".xltx", ".xltm", ".ods", ".numbers")
_COPIED_BYTES = 1 << 20
_HEAD_BYTES = 1 << 20


class Corrections(Value):
    """What a person says about a file; what is None is found out."""

    delimiter: str | None = Field(
        default=None, title="Delimiter", description="The character between the cells."
    )
    encoding: str | None = Field(
        default=None, title="Encoding", description="How the text is stored, such as utf-8."
    )
    has_header: bool | None = Field(
        default=None, title="Header", description="Whether the first row holds the column names."
    )
    sheet: str | None = Field(
        default=None, title="Sheet", description="Which sheet of a workbook is read."
    )


AS_FOUND = Corrections()


def read_table(
    path: Path, *, name: str | None = None, corrections: Corrections = AS_FOUND
) -> Table:
    """Read a whole table into memory; any of the formats may be gzipped.

    Args:
        path: the file.
        name: what to call the file in sentences, and whose ending tells the format.
        corrections: what a person says about the file.

    Returns:
        The table.
    """
    return collect(read_batches(path, name=name or path.name, corrections=corrections))


def read_batches(path: Path, *, name: str, corrections: Corrections = AS_FOUND) -> Reading:
    """Read a table file a batch of rows at a time, in bounded memory where the format allows it.

    Args:
        path: the file.
        name: what to call it in sentences; its ending tells the format.
        corrections: what a person says about the file.

    Returns:
        The rows, a batch at a time; and in the end how the file was understood.

    Raises:
        DataError: the file is missing, too large, of another kind, or not a table.
    """
    check_file(path)
    with unzipped(path, name) as plain:
        kind = kind_of(beginning(plain, _HEAD_BYTES), name)
        if kind in _BINARY:
            return (yield from read_binary(plain, kind, name=name, corrections=corrections))
        with plain.open("rb") as file:
            return (yield from read_text(file, kind, name=name, corrections=corrections))


def read_text(
    file: BinaryIO, kind: str, *, name: str, corrections: Corrections, is_cut: bool = False
) -> Reading:
    """Read a table that is text.

    Args:
        file: the file, or its beginning.
        kind: one of the values of `FORMATS`, or "" where the name does not tell.
        name: what to call the file in sentences.
        corrections: what a person says about it.
        is_cut: whether this is only the beginning of the file.

    Returns:
        The rows, a batch at a time; and in the end how the file was understood.

    Raises:
        DataError: the text is not a table.
    """
    text = open_text(file, name=name, encoding=corrections.encoding, is_cut=is_cut)
    pieces = _from_first_word(text.pieces)
    head = next(pieces, "")
    if not head:
        raise empty_file(name)
    pieces = chain([head], pieces)
    reading: Reading
    if kind in ("JSON", "JSON Lines"):
        reading = read_json_table(pieces, name=name, encoding=text.encoding, is_cut=is_cut)
    elif kind == "text" and corrections.delimiter is None:
        reading = read_plain_text(pieces, name=name, encoding=text.encoding, is_cut=is_cut)
    else:
        if head.lstrip().startswith(('{"', '[{"')):
            raise DataError(
                f"This is JSON, not {kind or 'CSV'}",
                where=name,
                fix="Give the file a name ending in .jsonl (one object a line) or .json",
            )
        reading = read_delimited(
            pieces,
            name=name,
            encoding=text.encoding,
            delimiter=corrections.delimiter,
            has_header=corrections.has_header,
            is_cut=is_cut,
        )
    facts = yield from reading
    return replace(facts, notes=text.notes + facts.notes)


def read_binary(
    path: Path, kind: str, *, name: str, corrections: Corrections, max_rows: int | None = None
) -> Reading:
    """Read a table that is not text.

    Args:
        path: the file.
        kind: one of the values of `FORMATS`.
        name: what to call the file in sentences.
        corrections: what a person says about it.
        max_rows: leave out what follows, where that saves time; None reads all.

    Returns:
        The reader, which gives the rows and then the facts.
    """
    if kind == "Parquet":
        return read_parquet(path, name=name, max_rows=max_rows)
    if kind == "an Excel workbook":
        has_header, sheet = corrections.has_header, corrections.sheet
        return read_workbook(path, name=name, has_header=has_header, sheet=sheet)
    return read_text_archive(path, name=name, encoding=corrections.encoding, max_rows=max_rows)


def is_text(kind: str) -> bool:
    """Say whether files of a kind are text, which may be read from its beginning.

    Args:
        kind: what `kind_of` gave.

    Returns:
        Whether they are.
    """
    return kind not in _BINARY


def kind_of(head: bytes, name: str) -> str:
    """Tell the kind of a file by its name, and check that its content agrees.

    Args:
        head: its first bytes, unzipped.
        name: its name; one without an ending is text.

    Returns:
        One of the values of `FORMATS`, or "" where the name has no ending.

    Raises:
        DataError: files of this kind are not read, or the content is of another kind.
    """
    endings = [ending.lower() for ending in Path(name).suffixes if ending.lower() != ".gz"]
    ending = endings[-1] if endings else ""
    kind = FORMATS.get(ending, "")
    if ending in _SPREADSHEETS:
        raise DataError(
            f"Workbooks ending in {ending} are not read",
            where=name,
            fix="Open it in a spreadsheet, save it as .xlsx and upload that",
        )
    if not head and kind:
        raise empty_file(name)
    refuse_binary(head, name=name, wanted=kind or "a table", accepted=_BINARY.get(kind))
    if ending and not kind:
        raise DataError(
            f"Files ending in {ending} are not read", where=name, fix=f"Save the table as {WANTED}"
        )
    return kind


def beginning(path: Path, num_bytes: int, *, name: str = "") -> bytes:
    """Read the first bytes of a file.

    Args:
        path: the file.
        num_bytes: at most so many.
        name: what to call it in sentences; of one that ends in .gz the unzipped bytes are read.

    Returns:
        The bytes; fewer than asked for where the file has no more.
    """
    if name.lower().endswith(".gz"):
        head = b""
        for block in gunzip(path, name):
            head += block
            if len(head) >= num_bytes:
                break
        return head[:num_bytes]
    with path.open("rb") as file:
        return file.read(num_bytes)


def check_file(path: Path) -> int:
    """Accept a regular file of acceptable size.

    Args:
        path: the file.

    Returns:
        Its size in bytes.

    Raises:
        DataError: there is no such file, it may not be read, or it is too large.
    """
    try:
        if path.is_dir() or (path.exists() and not path.is_file()):
            raise DataError("This is not a file", where=str(path), fix="Choose a table file")
        with path.open("rb"):
            size = path.stat().st_size
    except FileNotFoundError:
        raise DataError(
            "There is no such file", where=str(path), fix="Check the name and the folder"
        ) from None
    except (PermissionError, ValueError):
        raise DataError(
            "The file may not be read", where=str(path), fix="Choose a file you have access to"
        ) from None
    if size > MAX_FILE_BYTES:
        raise _too_large(path.name)
    return size


@contextmanager
def unzipped(path: Path, name: str) -> Iterator[Path]:
    """Give a file that is not gzipped: this one, or one that is there for a while.

    Args:
        path: the file.
        name: its name; one ending in .gz is gzipped.

    Yields:
        The plain file; an unpacked one has no name, so that nothing is left where we are killed.

    Raises:
        DataError: it is not gzip, or too large when unpacked.
    """
    if not name.lower().endswith(".gz"):
        yield path
        return
    with disk_errors("the unpacked table"), TemporaryFile() as file:
        for block in gunzip(path, name):
            file.write(block)
        file.flush()
        yield Path(f"/proc/self/fd/{file.fileno()}")


def gunzip(path: Path, name: str) -> Iterator[bytes]:
    """Unpack with a limit, so that a small file cannot fill the disk.

    Args:
        path: the gzip file.
        name: what to call it in sentences.

    Yields:
        The content, a block at a time.

    Raises:
        DataError: it is not gzip, or too large when unpacked.
    """
    left = MAX_FILE_BYTES
    try:
        with gzip.open(path) as file:
            while block := file.read(_COPIED_BYTES):
                left -= len(block)
                if left < 0:
                    raise _too_large(name)
                yield block
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise DataError(
            "The gzip file is damaged or not gzip", where=name, fix="Upload the table uncompressed"
        ) from None


def _from_first_word(pieces: Iterator[str]) -> Iterator[str]:
    """Join the beginning up to the first character that is no space; nothing without one."""
    head = ""
    for piece in pieces:
        head += piece
        if head and not head.isspace():
            yield head
            yield from pieces


def _too_large(name: str) -> DataError:
    return DataError(
        f"The table is larger than {MAX_FILE_BYTES // 1024**2} MB",
        where=name,
        fix="Upload a part of the rows; a few thousand good ones are enough",
    )
