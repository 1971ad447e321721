"""The first step: a file becomes an upload folder whose rows can be queried.

<id>/original.<ext>   the bytes as they came
<id>/rows.duckdb      the rows with their line numbers
<id>/upload.json      this value, written last
"""

import json
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Literal
from uuid import uuid4

from pydantic import Field

from data_prep.database import ColumnProfile, profile_columns, read_table_rows, write_rows
from data_prep.table import Facts, Reading, Row
from data_prep.table_file import AS_FOUND, FORMATS, Corrections, check_file, read_batches
from templates.errors import DataError
from templates.files import (
    canonical_json,
    disk_errors,
    sha256_of_file,
    sync_folder,
    write_atomically,
)
from templates.values import Value, parse

MANIFEST = "upload.json"
_ROWS = "rows.duckdb"
_MAX_CATEGORIES = 200
_MAX_CATEGORY_CHARACTERS = 60

ColumnKind = Literal["text", "number", "boolean", "category", "json", "empty"]


class ValueCount(Value):
    """A value of a column, shortened, and how many cells have it."""

    value: str
    count: int


class Bin(Value):
    """How many cells lie from one number up to another; the last bin holds its end too."""

    from_: float
    to: float
    count: int


class Column(Value):
    """One column of an upload; lengths in characters."""

    name: str
    kind: ColumnKind
    num_empty: int
    num_distinct: int
    min_characters: int
    mean_characters: float
    max_characters: int
    samples: tuple[str, ...]
    top: tuple[ValueCount, ...] = Field(default=(), description="The most frequent values.")
    histogram: tuple[Bin, ...] = Field(
        default=(), description="Of the numbers where all are numbers, else of the lengths."
    )


class Upload(Value):
    """What a person uploaded and how it was understood."""

    id: str
    name: str
    sha256: str
    format: Literal["csv", "tsv", "jsonl", "json", "txt", "zip", "xlsx", "parquet"]
    encoding: str
    delimiter: str | None
    total_bytes: int
    num_rows: int = Field(ge=1)
    columns: tuple[Column, ...]
    notes: tuple[str, ...] = ()
    has_header: bool | None = Field(
        default=None, description="Whether the first row gave the names; None: the format says it."
    )
    sheet: str | None = None


class Reached(Value):
    """How far reading has come."""

    done_ratio: float = Field(ge=0, le=1)
    words: str


def read_upload(
    path: Path,
    folder: Path,
    *,
    name: str | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
    has_header: bool | None = None,
    sheet: str | None = None,
) -> Upload:
    """Read a table file strictly and keep it, its rows and its profile in a new folder.

    Args:
        path: the file to read.
        folder: where to keep it; absent or empty. Its name becomes the id.
        name: what the person calls the table; default: the file name. Only a label, unless the
            file has no ending that tells the format.
        delimiter: between the cells; None finds out.
        encoding: of the text; None finds out.
        has_header: whether the first row holds the column names; None finds out.
        sheet: which one of a workbook; None takes the first with rows.

    Returns:
        The upload.
    """
    corrections = Corrections(
        delimiter=delimiter, encoding=encoding, has_header=has_header, sheet=sheet
    )
    reading = reading_upload(path, folder, name=name, corrections=corrections)
    while True:
        try:
            next(reading)
        except StopIteration as end:
            upload: Upload = end.value
            return upload


def reading_upload(
    path: Path, folder: Path, *, name: str | None = None, corrections: Corrections = AS_FOUND
) -> Generator[Reached, None, Upload]:
    """Do what `read_upload` does, step by step; who stops in between leaves nothing behind.

    Args:
        path: the file to read.
        folder: where to keep it; absent or empty. Its name becomes the id.
        name: what the person calls the table; default: the file name.
        corrections: what a person says about the file.

    Returns:
        How far it has come, several times a second for most tables; and in the end the upload.

    Raises:
        DataError: the file is not a table that can be read without guessing; nothing is kept.
    """
    if folder.exists() and any(folder.iterdir()):
        raise DataError(
            "There is already something in this folder",
            where=folder.name,
            fix="Choose a new folder for the upload",
        )
    label = _label(name or path.name)
    # A file without an ending, such as a temporary one, is told by the name a person gave it.
    source = path.name if path.suffix else label
    total_bytes = check_file(path)
    temporary = folder.with_name(f".{folder.name}.{uuid4().hex[:8]}.tmp")
    original = temporary / f"original{_ending(source)}"
    try:
        with disk_errors("the upload"):
            yield Reached(done_ratio=0, words="copying the file")
            temporary.mkdir(parents=True)
            shutil.copyfile(path, original)
            sha256 = sha256_of_file(original)
            yield Reached(done_ratio=0.05, words="reading")
            reading = read_batches(original, name=source, corrections=corrections)
            facts, num_rows = yield from _store(temporary / _ROWS, reading, total_bytes)
            yield Reached(done_ratio=0.8, words="looking at the columns")
            profiles = yield from _profile(temporary / _ROWS)
            columns = tuple(
                _column(column, column in facts.json_columns, profile, num_rows)
                for column, profile in zip(facts.columns, profiles, strict=True)
            )
            content = {
                "id": folder.name,
                "name": label,
                "sha256": sha256,
                "format": facts.format,
                "encoding": facts.encoding,
                "delimiter": facts.delimiter,
                "total_bytes": total_bytes,
                "num_rows": num_rows,
                "columns": columns,
                "notes": facts.notes,
                "has_header": facts.has_header,
                "sheet": facts.sheet,
            }
            upload = Upload.model_validate(content)
            manifest = canonical_json(upload.model_dump(mode="json"), indent=1)
            write_atomically(temporary / MANIFEST, manifest + "\n")
            temporary.rename(folder)
            sync_folder(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return upload


def _store(
    path: Path, reading: Reading, total_bytes: int
) -> Generator[Reached, None, tuple[Facts, int]]:
    """Put the rows into the database -> how the file was understood, number of rows."""
    writing = write_rows(path, reading)
    num_rows = num_characters = 0
    try:
        while True:
            try:
                num_rows, more = next(writing)
            except StopIteration as end:
                return end.value, num_rows
            num_characters += more
            # Never sure: characters are not bytes, and some files are packed.
            share = min(1.0, num_characters / max(1, total_bytes))
            words = f"{num_rows:,} rows read"
            yield Reached(done_ratio=0.05 + 0.7 * share, words=words)
    finally:
        writing.close()


def _profile(path: Path) -> Generator[Reached, None, list[ColumnProfile]]:
    asking = profile_columns(path)
    done_ratio = 0.8
    while True:
        try:
            next(asking)
        except StopIteration as end:
            profiles: list[ColumnProfile] = end.value
            return profiles
        done_ratio += 0.06
        yield Reached(done_ratio=done_ratio, words="looking at the columns")


def load_upload(folder: Path) -> Upload:
    """Read what `read_upload` kept.

    Args:
        folder: the upload folder.

    Returns:
        The upload.

    Raises:
        DataError: there is no upload in the folder.
    """
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise DataError(
            "There is no upload here", where=folder.name, fix="Upload a table"
        ) from None
    return parse(Upload, content, where=f"{folder.name}/{MANIFEST}", error=DataError)


def read_rows(folder: Path, *, limit: int | None = None, offset: int = 0) -> Iterator[Row]:
    """Read the rows of an upload.

    Args:
        folder: the upload folder.
        limit: at most so many; None reads all.
        offset: rows to pass over.

    Returns:
        The rows in upload order.
    """
    return read_table_rows(folder / _ROWS, limit=limit, offset=offset)


def _label(name: str) -> str:
    """Keep the last part of a file name as a label: printable, short, never used as a path."""
    last = name.replace("\\", "/").rsplit("/", 1)[-1]
    printable = "".join(char for char in last if char.isprintable()).strip()
    return printable[-120:] or "table"


def _ending(label: str) -> str:
    """Choose the ending of the stored file from the known ones only."""
    zipped = label.lower().endswith(".gz")
    ending = Path(label.lower().removesuffix(".gz")).suffix
    return (ending if ending in FORMATS else ".txt") + (".gz" if zipped else "")


def _column(name: str, is_json: bool, profile: ColumnProfile, num_rows: int) -> Column:
    facts = {key: value for key, value in vars(profile).items() if not key.startswith("all_")}
    facts["top"] = [{"value": value, "count": count} for value, count in profile.top]
    facts["histogram"] = [
        {"from_": start, "to": end, "count": count} for start, end, count in profile.histogram
    ]
    kind = _kind(is_json, profile, num_rows)
    return Column.model_validate({"name": name, "kind": kind, **facts})


def _kind(is_json: bool, profile: ColumnProfile, num_rows: int) -> ColumnKind:
    if profile.num_distinct == 0:
        return "empty"
    if is_json:
        return "json"
    if profile.all_booleans:
        return "boolean"
    if profile.all_numbers:
        return "number"
    few = profile.num_distinct <= min(_MAX_CATEGORIES, max(2, num_rows // 3))
    if few and profile.max_characters <= _MAX_CATEGORY_CHARACTERS:
        return "category"
    return "text"
