"""Files that are not text, told by their first bytes and never by their extension."""

from templates.errors import DataError

# First bytes and what to call such a file; the longer, more certain ones come first.
_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"SQLite format 3\x00", "a SQLite database"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office file (.xls or .doc)"),
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"\xfd7zXZ\x00", "an xz archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"\x7fELF", "a program (ELF)"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"%PDF-", "a PDF document"),
    (b"{\\rtf", "a rich text document (.rtf)"),
    (b"GIF87a", "a GIF image"),
    (b"GIF89a", "a GIF image"),
    (b"PAR1", "a Parquet file"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x1f\x8b", "a gzip archive"),
)
_ENDINGS = {"a Parquet file": ".parquet"}
# Kinds whose readers look closer themselves, and say more.
_SAY_MORE: dict[str | None, tuple[str | None, ...]] = {
    "an Excel workbook (.xlsx)": ("an old Office file (.xls or .doc)", "a zip archive"),
}
_NEED_NUL: tuple[tuple[bytes, str], ...] = (
    (b"MZ", "a Windows program (.exe)"),
    (b"BZh", "a bzip2 archive"),
)


def describe_binary(data: bytes) -> str | None:
    """Name the kind of a file that is not text.

    Args:
        data: the content, or its beginning.

    Returns:
        Such as "a PNG image"; None when the first bytes could be text.
    """
    for start, kind in _SIGNATURES:
        if data.startswith(start):
            return kind
    for start, kind in _NEED_NUL:
        if data.startswith(start) and b"\x00" in data[:4096]:
            return kind
    if data.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        if b"xl/" in data[:4096] or b"xl/workbook" in data:
            return "an Excel workbook (.xlsx)"
        if b"opendocument.spreadsheet" in data[:4096]:
            return "an OpenDocument workbook (.ods)"
        return "a zip archive"
    if data[:512].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return "a web page (HTML)"
    return None


def refuse_binary(data: bytes, *, name: str, wanted: str, accepted: str | None = None) -> None:
    """Refuse a file whose content is not what its name promises.

    Args:
        data: the content, or its beginning.
        name: the file name, for the sentence.
        wanted: the format the name promises, such as "CSV".
        accepted: the kind of binary file that the name promises; None: text.

    Raises:
        DataError: the content is of another kind.
    """
    kind = describe_binary(data)
    if kind == accepted or (accepted in _SAY_MORE and kind in _SAY_MORE[accepted]):
        return
    fix = "Upload a CSV, TSV, JSONL or JSON file, or give this one its own ending"
    if kind in _ENDINGS:
        fix = f"Give it a name ending in {_ENDINGS[kind]}"
    if kind and ("Excel" in kind or "Office" in kind or "OpenDocument" in kind):
        fix = "Save it as .xlsx with that ending, or save the sheet as CSV UTF-8, and upload that"
    elif kind and "archive" in kind:
        fix = "Unpack it and upload the table inside"
    raise DataError(f"This is {kind or 'text'}, not {wanted}", where=name, fix=fix)
