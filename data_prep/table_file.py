"""A file on disk -> Table: size, gzip, kind of file, encoding, reader."""

import gzip
import zlib
from io import BytesIO
from pathlib import Path

from data_prep.delimited import read_delimited
from data_prep.encoding import decode
from data_prep.json_lines import read_json_table
from data_prep.signatures import refuse_binary
from data_prep.table import Table
from templates.errors import DataError

MAX_FILE_BYTES = 512 * 1024**2
FORMATS = {
    ".csv": "CSV",
    ".tsv": "TSV",
    ".tab": "TSV",
    ".txt": "CSV",
    ".jsonl": "JSON Lines",
    ".ndjson": "JSON Lines",
    ".json": "JSON",
}


def read_table(
    path: Path,
    *,
    delimiter: str | None = None,
    encoding: str | None = None,
    name: str | None = None,
) -> Table:
    """Read a table from a CSV, TSV, JSONL or JSON file; any of them may be gzipped.

    Args:
        path: the file.
        delimiter: between the cells; None finds out.
        encoding: of the text; None finds out.
        name: what to call the file in sentences, and whose ending tells the format.

    Returns:
        The table.

    Raises:
        DataError: the file is missing, of another kind, or not a table.
    """
    return parse_table(
        read_bytes(path), name=name or path.name, delimiter=delimiter, encoding=encoding
    )


def read_bytes(path: Path) -> bytes:
    """Read a regular file of acceptable size.

    Args:
        path: the file.

    Returns:
        Its content.

    Raises:
        DataError: there is no such file, or it is too large.
    """
    try:
        if path.is_dir() or (path.exists() and not path.is_file()):
            raise DataError("This is not a file", where=str(path), fix="Choose a table file")
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise _too_large(path.name)
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(
            "There is no such file", where=str(path), fix="Check the name and the folder"
        ) from None
    except (PermissionError, ValueError):
        raise DataError(
            "The file may not be read", where=str(path), fix="Choose a file you have access to"
        ) from None


def parse_table(
    data: bytes, *, name: str, delimiter: str | None = None, encoding: str | None = None
) -> Table:
    """Read a table from bytes.

    Args:
        data: the content of the file, possibly gzipped.
        name: the file name; its ending tells the format.
        delimiter: between the cells; None finds out.
        encoding: of the text; None finds out.

    Returns:
        The table.

    Raises:
        DataError: the content is of another kind, or not a table.
    """
    endings = [ending.lower() for ending in Path(name).suffixes]
    if endings[-1:] == [".gz"]:
        data = _unzip(data, name)
        endings.pop()
    wanted = FORMATS.get(endings[-1] if endings else "")
    refuse_binary(data, name=name, wanted=wanted or "a table in CSV, TSV, JSONL or JSON")
    if endings and wanted is None:
        raise DataError(
            f"Files ending in {endings[-1]} are not read",
            where=name,
            fix="Save the table as CSV, TSV, JSONL or JSON",
        )
    decoded = decode(data, name=name, encoding=encoding)
    if not decoded.text.strip():
        raise DataError(
            "The file is empty", where=name, fix="Upload a table with a header and rows"
        )
    if wanted in ("JSON", "JSON Lines"):
        table = read_json_table(decoded.text, name=name, encoding=decoded.encoding)
    else:
        if decoded.text.lstrip().startswith(('{"', '[{"')):
            raise DataError(
                f"This is JSON, not {wanted or 'CSV'}",
                where=name,
                fix="Give the file a name ending in .jsonl (one object a line) or .json",
            )
        table = read_delimited(
            decoded.text, name=name, encoding=decoded.encoding, delimiter=delimiter
        )
    return Table(**{**vars(table), "notes": decoded.notes + table.notes})


def _unzip(data: bytes, name: str) -> bytes:
    """Decompress with a limit, so that a small file cannot fill the memory."""
    try:
        with gzip.open(BytesIO(data)) as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except (OSError, EOFError, zlib.error):
        raise DataError(
            "The gzip file is damaged or not gzip", where=name, fix="Upload the table uncompressed"
        ) from None
    if len(content) > MAX_FILE_BYTES:
        raise _too_large(name)
    return content


def _too_large(name: str) -> DataError:
    return DataError(
        f"The table is larger than {MAX_FILE_BYTES // 1024**2} MB",
        where=name,
        fix="Upload a part of the rows; a few thousand good ones are enough",
    )
