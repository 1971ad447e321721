"""How a person says that a file is to be read differently."""

import codecs
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from data_prep.table_file import FORMATS, Corrections
from data_prep.table_preview import Problem, TablePreview
from studio.web.html import callout, join, visible
from studio.web.words import count
from templates.errors import DataError
from templates.values import parse

FIND_OUT = ""  # what a field holds that leaves the decision to the reader
Choices = list[tuple[str, str]]

_DELIMITERS = {",": "Comma  ,", ";": "Semicolon  ;", "\t": "Tab", "|": "Pipe  |"}
_ENCODINGS = {
    "utf-8": "UTF-8, usual today",
    "cp1252": "Western European (Windows-1252)",
    "cp1250": "Central European (Windows-1250)",
    "cp1251": "Cyrillic (Windows-1251)",
    "cp1253": "Greek (Windows-1253)",
    "cp1254": "Turkish (Windows-1254)",
    "cp1255": "Hebrew (Windows-1255)",
    "cp1256": "Arabic (Windows-1256)",
    "cp932": "Japanese (Shift JIS)",
    "gb18030": "Chinese, simplified (GB 18030)",
    "big5": "Chinese, traditional (Big5)",
    "cp949": "Korean (CP949)",
    "utf-16": "UTF-16",
    "mac-roman": "Old Mac (Mac Roman)",
    "cp437": "Old DOS (CP437)",
}
_DELIMITED = frozenset(("delimiter", "encoding", "has_header"))
_FIELDS: Mapping[str, frozenset[str]] = {
    "CSV": _DELIMITED,
    "TSV": _DELIMITED,
    "": _DELIMITED,
    "text": frozenset(("delimiter", "encoding", "has_header")),
    "JSON Lines": frozenset(("encoding",)),
    "JSON": frozenset(("encoding",)),
    "a zip of text files": frozenset(("encoding",)),
    "an Excel workbook": frozenset(("has_header", "sheet")),
    "Parquet": frozenset(),
}
_YES, _NO = "yes", "no"
HEADER_CHOICES: Choices = [("Find out", FIND_OUT), ("Yes", _YES), ("No", _NO)]


def fields_for(name: str) -> frozenset[str]:
    """Say what can be corrected of a file.

    Args:
        name: of the file; its ending tells the format.

    Returns:
        Names of fields of `Corrections`.
    """
    ending = Path(name.lower().removesuffix(".gz")).suffix
    return _FIELDS[FORMATS.get(ending, "")] if ending in FORMATS or not ending else frozenset()


def delimiter_choices() -> Choices:
    """List the delimiters that tables have.

    Returns:
        Words and value of each.
    """
    return [("Find out", FIND_OUT), *((words, sign) for sign, words in _DELIMITERS.items())]


def encoding_choices(found: str = "") -> Choices:
    """List the encodings that tables have.

    Args:
        found: what the reader proposes, which may be another one.

    Returns:
        Words and value of each.
    """
    known = dict(_ENCODINGS)
    if found and canonical(found) not in known:
        known[canonical(found)] = canonical(found)
    return [("Find out", FIND_OUT), *((words, name) for name, words in known.items())]


def sheet_choices(sheets: Sequence[str]) -> Choices:
    """List the sheets of a workbook.

    Args:
        sheets: their names.

    Returns:
        Words and value of each.
    """
    return [("Find out", FIND_OUT), *((visible(sheet, 60), sheet) for sheet in sheets)]


def canonical(encoding: str) -> str:
    """Give the one name of an encoding that has several.

    Args:
        encoding: any of its names.

    Returns:
        The name that the choices use.
    """
    try:
        name = codecs.lookup(encoding).name
    except LookupError:
        return encoding
    return {"utf-8-sig": "utf-8", "shift_jis": "cp932", "iso8859-1": "cp1252"}.get(name, name)


def delimiter_name(delimiter: str) -> str:
    """Say a delimiter in words.

    Args:
        delimiter: one character.

    Returns:
        Such as "comma".
    """
    words = _DELIMITERS.get(delimiter)
    return words.split()[0].lower() if words else f"delimiter {visible(delimiter)}"


def corrections_of(delimiter: Any, encoding: Any, header: Any, sheet: Any) -> Corrections:
    """Read what the fields hold.

    Args:
        delimiter: one character, or what `FIND_OUT` is.
        encoding: a name.
        header: "yes" or "no".
        sheet: a name.

    Returns:
        What the person says about the file.

    Raises:
        DataError: a field holds what it cannot hold.
    """
    typed = str(delimiter or FIND_OUT)
    sign = {"\\t": "\t", "tab": "\t"}.get(typed.lower(), typed)
    if len(sign) > 1:
        sign = sign.strip()
    if len(sign) > 1:
        raise DataError(
            "A delimiter is one character", where="Delimiter", fix="Choose one from the list"
        )
    content = {
        "delimiter": sign or None,
        "encoding": str(encoding or FIND_OUT).strip() or None,
        "has_header": {_YES: True, _NO: False}.get(str(header)),
        "sheet": str(sheet or FIND_OUT) or None,
    }
    return parse(Corrections, content, where="correction", error=DataError)


def field_values(corrections: Corrections) -> tuple[str, str, str, str]:
    """Say what the fields hold for corrections.

    Args:
        corrections: what the person said, or what was found.

    Returns:
        Delimiter, encoding, header and sheet.
    """
    header = {True: _YES, False: _NO, None: FIND_OUT}[corrections.has_header]
    encoding = canonical(corrections.encoding) if corrections.encoding else FIND_OUT
    return corrections.delimiter or FIND_OUT, encoding, header, corrections.sheet or FIND_OUT


def problem_view(problem: Problem) -> Markup:
    """Say why a file cannot be read.

    Args:
        problem: of the reader.

    Returns:
        A callout.
    """
    return callout(
        "bad",
        visible(problem.what, 400),
        visible(problem.where, 400),
        fix=visible(problem.fix, 400),
    )


def summary(preview: TablePreview) -> str:
    """Say in one sentence how a file would be read.

    Args:
        preview: without a problem.

    Returns:
        Such as "2 columns, delimiter comma, UTF-8, names in the first row".
    """
    parts = [count(len(preview.columns), "column")]
    if preview.delimiter:
        parts.append(f"cells separated by {delimiter_name(preview.delimiter)}")
    if preview.encoding:
        parts.append(preview.encoding.upper())
    if preview.sheet:
        parts.append(f"sheet {visible(preview.sheet, 60)}")
    if preview.has_header is not None:
        parts.append("names in the first row" if preview.has_header else "no header")
    return ", ".join(parts)


def lines_view(lines: Sequence[str]) -> Markup:
    """Show the beginning of a file line by line, as it is.

    Args:
        lines: of the file.

    Returns:
        Numbered lines; nothing where there are none.
    """
    if not lines:
        return Markup("")
    items = join(Markup("<li><code>{}</code></li>").format(visible(line)) for line in lines)
    return Markup(
        '<p class="ts-soft">The file as it is, line by line:</p>'
        '<ol class="ts-up-lines" tabindex="0" aria-label="First lines of the file">{}</ol>'
    ).format(items)
