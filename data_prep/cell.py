"""A value of a typed file, such as a workbook, as the text that a person would write for it."""

import json
from datetime import UTC, date, datetime, time
from decimal import Decimal
from math import isfinite
from typing import Any

_EXACT_DIGITS = 15  # what a spreadsheet shows of a number


def cell_text(value: Any) -> str:
    """Write a value as text.

    Args:
        value: None, a plain value, or lists and mappings of them.

    Returns:
        "" for None and for what is no number; ISO dates; whole numbers without a point; JSON for
        lists and mappings.
    """
    if isinstance(value, list | tuple | dict):
        return json.dumps(_plain(value), ensure_ascii=False)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal) and value.is_finite():
        return f"{value:f}".rstrip("0").rstrip(".") if "." in f"{value:f}" else f"{value:f}"
    plain = _plain(value)
    return "" if plain is None else str(plain)


def _plain(value: Any) -> Any:
    """Reduce a value to what JSON has."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float | Decimal):
        if not isfinite(value):
            return None
        if value == int(value) and abs(value) < 10**_EXACT_DIGITS:
            return int(value)
        return float(f"{value:.{_EXACT_DIGITS}g}")
    if isinstance(value, datetime):
        if value.tzinfo is not None:
            value = value.astimezone(UTC)  # else it depends on the machine
        at_midnight = value.time() == time() and value.tzinfo is None
        return value.date().isoformat() if at_midnight else value.isoformat(" ")
    if isinstance(value, date | time):
        return value.isoformat()
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, bytes):
        return _text_in(value)
    return str(value)  # such as an identifier or a length of time


def _text_in(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return f"({len(value):,} bytes)"
