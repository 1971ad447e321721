"""One JSON value, read strictly: what two readers would understand differently is refused."""

import json
import re
from collections import Counter
from typing import Any

from templates.errors import DataError

MAX_DEPTH = 20
ONE_PER_LINE = "Write one complete JSON object on each line"
_TOO_DEEP = f"The JSON is nested more than {MAX_DEPTH} levels deep"
_FLATTEN = "Flatten the row: texts and labels belong at its top level"
_STRING = re.compile(r'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_ESCAPED = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_SPACE = re.compile(r"[ \t\r\n]*+")


class _Refused(ValueError):
    """JSON that Python would accept and others would not; carries what and fix."""

    def __init__(self, what: str, fix: str) -> None:
        super().__init__(what)
        self.what, self.fix = what, fix


def skip_space(text: str, position: int) -> int:
    """Pass over the white space that JSON allows.

    Args:
        text: the document.
        position: where to start.

    Returns:
        The position of the next other character, or the length of the text.
    """
    found = _SPACE.match(text, position)
    return found.end() if found else position


def ends_here(text: str, position: int) -> int | None:
    """Find where a value ends, without judging it.

    Args:
        text: the document.
        position: where the value starts.

    Returns:
        The position after it; None when it is not JSON or nested too deeply.
    """
    try:
        _refuse_depth(text)
        end: int = json.JSONDecoder().raw_decode(text, position)[1]
        return end
    except ValueError:
        return None


def load_value(
    text: str, position: int, name: str, *, line: int, first_line: int = 1
) -> tuple[Any, int]:
    """Parse one value; its failure becomes a sentence.

    Args:
        text: the document, or one line of it.
        position: where the value starts.
        name: the file name.
        line: the line of the file on which the value starts.
        first_line: the line of the file on which `text` starts.

    Returns:
        The value and the position after it.

    Raises:
        DataError: this is not JSON, or JSON that is refused.
    """
    try:
        value, end = _DECODER.raw_decode(text, position)
        _refuse_depth(text[position:end])
        _refuse_half_characters(text[position:end])
        return value, end
    except _Refused as refused:
        raise DataError(refused.what, where=f"{name}, line {line}", fix=refused.fix) from None
    except json.JSONDecodeError as error:
        raise DataError(
            f"This is not JSON: {error.msg[0].lower()}{error.msg[1:]} at character {error.colno}",
            where=f"{name}, line {error.lineno + first_line - 1}",
            fix=f"{ONE_PER_LINE}; look for a missing quote, bracket or a comma too many",
        ) from None
    except RecursionError:
        raise DataError(_TOO_DEEP, where=f"{name}, line {line}", fix=_FLATTEN) from None
    except ValueError:
        # Python refuses to convert whole numbers of more than 4,300 digits.
        raise DataError(
            "A number has too many digits",
            where=f"{name}, line {line}",
            fix="Write it in quotes to keep it as text",
        ) from None


def load_cell(cell: str) -> Any:
    """Parse a cell that is one JSON value and nothing else.

    Args:
        cell: the text of the cell.

    Returns:
        The value.

    Raises:
        DataError: the cell is not JSON, or JSON that is refused.
    """
    value, end = load_value(cell, skip_space(cell, 0), "cell", line=1)
    if skip_space(cell, end) < len(cell):
        raise DataError("More text follows after the JSON value", where="cell", fix="Remove it")
    return value


def without_escapes(text: str) -> str:
    """Write a JSON text as it would be read, for people and for the search of personal data.

    Args:
        text: JSON, perhaps damaged.

    Returns:
        The text with every escape replaced by its character; half characters become U+FFFD.
    """
    return _ESCAPE.sub(_unescape, text)


def _unescape(escape: re.Match[str]) -> str:
    if escape[1] is None:
        return _ESCAPED.get(escape[2], escape[2])
    code = int(escape[1], 16)
    return "\ufffd" if 0xD800 <= code <= 0xDFFF else chr(code)


def _refuse_depth(text: str) -> None:
    """Count brackets outside strings before the parser, which would recurse, sees them."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    depth = 0
    for bracket in re.findall(r"[\[\]{}]", _STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > MAX_DEPTH:
            raise _Refused(_TOO_DEEP, _FLATTEN)


def _refuse_half_characters(text: str) -> None:
    if "\\ud" not in text and "\\uD" not in text:
        return
    rest = re.sub(r"\\\\|\\u[dD][89abAB]..\\u[dD][c-fC-F]..", "", text)
    if re.search(r"\\u[dD][89a-fA-F]", rest):
        raise _Refused(
            "A text holds half of a character (a lone surrogate such as \\ud800)",
            "Remove it, or export the table again with whole characters",
        )


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise _Refused(
            f"The key {twice!r} stands twice in one object", "Keep one of them, or rename the other"
        )
    return content


def _refuse_constant(literal: str) -> Any:
    raise _Refused(
        f"{literal} is not a JSON number", 'Leave the cell empty (""), or write the value in quotes'
    )


def _finite(literal: str) -> float:
    number = float(literal)
    if number in (float("inf"), float("-inf")):
        raise _Refused(
            f"The number {literal} is too large", "Write it in quotes to keep it as text"
        )
    return number


_DECODER = json.JSONDecoder(
    object_pairs_hook=_no_duplicates, parse_constant=_refuse_constant, parse_float=_finite
)
