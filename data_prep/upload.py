"""The first step: a file becomes an upload folder whose rows can be queried.

<id>/original.<ext>   the bytes as they came
<id>/rows.duckdb      the rows with their line numbers
<id>/upload.json      this value, written last
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from uuid import uuid4

from pydantic import Field

from data_prep.database import ColumnProfile, profile_table, read_table_rows, write_table
from data_prep.table import Row
from data_prep.table_file import FORMATS, parse_table, read_bytes
from templates.errors import DataError
from templates.files import (
    canonical_json,
    disk_errors,
    sha256_of_bytes,
    sync_folder,
    write_atomically,
)
from templates.values import Value, parse

MANIFEST = "upload.json"
_ROWS = "rows.duckdb"
_MAX_CATEGORIES = 200
_MAX_CATEGORY_CHARACTERS = 60

ColumnKind = Literal["text", "number", "boolean", "category", "json", "empty"]


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


class Upload(Value):
    """What a person uploaded and how it was understood."""

    id: str
    name: str
    sha256: str
    format: Literal["csv", "tsv", "jsonl", "json"]
    encoding: str
    delimiter: str | None
    total_bytes: int
    num_rows: int = Field(ge=1)
    columns: tuple[Column, ...]
    notes: tuple[str, ...] = ()


def read_upload(
    path: Path,
    folder: Path,
    *,
    name: str | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
) -> Upload:
    """Read a table file strictly and keep it, its rows and its profile in a new folder.

    Args:
        path: the file to read.
        folder: where to keep it; absent or empty. Its name becomes the id.
        name: what the person calls the table; default: the file name. Only a label, unless the
            file has no ending that tells the format.
        delimiter: between the cells; None finds out.
        encoding: of the text; None finds out.

    Returns:
        The upload.

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
    data = read_bytes(path)
    table = parse_table(data, name=source, delimiter=delimiter, encoding=encoding)
    temporary = folder.with_name(f".{folder.name}.{uuid4().hex[:8]}.tmp")
    try:
        with disk_errors("the upload"):
            temporary.mkdir(parents=True)
            (temporary / f"original{_ending(source)}").write_bytes(data)
            write_table(temporary / _ROWS, table)
            columns = [
                _column(column, column in table.json_columns, profile, len(table.lines))
                for column, profile in zip(
                    table.columns, profile_table(temporary / _ROWS), strict=True
                )
            ]
            content = {
                "id": folder.name,
                "name": label,
                "sha256": sha256_of_bytes(data),
                "format": table.format,
                "encoding": table.encoding,
                "delimiter": table.delimiter,
                "total_bytes": len(data),
                "num_rows": len(table.lines),
                "columns": tuple(columns),
                "notes": table.notes,
            }
            upload = Upload.model_validate(content)
            manifest = canonical_json(upload.model_dump(mode="json"), indent=1)
            write_atomically(temporary / MANIFEST, manifest + "\n")
            temporary.rename(folder)
            sync_folder(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return upload


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
