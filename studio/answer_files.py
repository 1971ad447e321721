"""Answers as files that people take away: JSON Lines, and CSV that no spreadsheet runs."""

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?")


def as_jsonl(rows: Iterable[Mapping[str, Any]]) -> str:
    """Write one JSON object a line, its keys in the order of the columns.

    Args:
        rows: any.

    Returns:
        The content of a file.
    """
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def as_csv(rows: Iterable[Mapping[str, Any]]) -> str:
    """Write a table that a spreadsheet shows and does not run.

    Args:
        rows: all with the same columns.

    Returns:
        The content of a file; empty where there is no row.
    """
    text = io.StringIO()
    writer = csv.writer(text)  # its line ends are \r\n, so it quotes a cell that holds either
    for number, row in enumerate(rows):
        if not number:
            writer.writerow([_no_formula(name) for name in row])
        writer.writerow([_no_formula(str(cell)) for cell in row.values()])
    return text.getvalue()


def _no_formula(cell: str) -> str:
    """Keep a spreadsheet from running what a cell says; a number stays a number."""
    if not cell.startswith(_FORMULA_STARTS) or _NUMBER.fullmatch(cell):
        return cell
    return f"'{cell}"
