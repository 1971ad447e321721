"""JSON Lines and JSON tables: one object is one row."""

import json
from collections.abc import Iterator
from io import StringIO
from typing import Any

from data_prep.json_text import ONE_PER_LINE, ends_here, load_value, skip_space
from data_prep.table import MAX_CELL_CHARACTERS, Table, clean_names
from templates.errors import DataError

Item = tuple[int, Any]


def read_json_table(text: str, *, name: str, encoding: str) -> Table:
    """Read JSON Lines, an array of objects, or an object with one list of objects.

    Args:
        text: the whole file.
        name: the file name; a name ending in .jsonl or .ndjson is read line by line.
        encoding: reported in the table.

    Returns:
        The table; keys that only some rows have become columns with empty cells.

    Raises:
        DataError: a line is not JSON, not an object, nested too deeply, has a key twice,
            or holds NaN, infinity or half a character.
    """
    start = skip_space(text, 0)
    if start == len(text):
        raise DataError("The file is empty", where=name, fix="Upload a table with at least one row")
    by_line = name.lower().removesuffix(".gz").endswith((".jsonl", ".ndjson"))
    if text[start] == "[":
        kind, items = "json", _array_items(text, start, name, is_whole=True)
    elif text[start] == "{" and not by_line and _is_one_value(text, start):
        start = _find_list(text, start, name)
        kind, items = "json", _array_items(text, start, name, is_whole=False)
    else:
        kind, items = "jsonl", _line_items(text, name)
    return _build(kind, items, name, encoding)


def _line_items(text: str, name: str) -> Iterator[Item]:
    # StringIO splits at \n, \r\n and \r only: U+2028 may stand inside a JSON string.
    for number, line in enumerate(StringIO(text, newline=""), 1):
        # Without its line end, so that "it broke off here" names this line and not the next.
        line = line.rstrip("\r\n")
        start = skip_space(line, 0)
        if start == len(line):
            continue
        value, end = load_value(line, start, name, line=number, first_line=number)
        rest = skip_space(line, end)
        if rest < len(line):
            raise DataError(
                f"More text follows after the JSON object, at character {rest + 1}",
                where=f"{name}, line {number}",
                fix=ONE_PER_LINE,
            )
        yield number, value


def _array_items(text: str, start: int, name: str, *, is_whole: bool) -> Iterator[Item]:
    """Walk an array element by element, so that each knows its line."""
    position, line, counted = start + 1, text.count("\n", 0, start) + 1, start
    first = True
    while True:
        position = skip_space(text, position)
        if text.startswith("]", position) and first:
            return
        line, counted = line + text.count("\n", counted, position), position
        value, end = load_value(text, position, name, line=line)
        yield line, value
        first, position = False, skip_space(text, end)
        if text.startswith("]", position):
            rest = skip_space(text, position + 1)
            if is_whole and rest < len(text):
                raise DataError(
                    "More text follows after the JSON array",
                    where=f"{name}, line {text.count(chr(10), 0, rest) + 1}",
                    fix="Keep one array in the file, or write one object on each line",
                )
            return
        if not text.startswith(",", position):
            line += text.count("\n", counted, position)
            raise DataError(
                "The JSON array is broken off or a comma is missing",
                where=f"{name}, line {line}",
                fix="Separate the objects with commas and close the array with ]",
            )
        position += 1


def _is_one_value(text: str, start: int) -> bool:
    end = ends_here(text, start)
    if end is None:
        # Broken: if the first line stands for itself it was meant as lines.
        return not text[start:].split("\n", 1)[0].rstrip().endswith("}")
    return skip_space(text, end) == len(text)


def _find_list(text: str, start: int, name: str) -> int:
    """Find where the one list of an object such as {"data": [...]} begins."""
    line = text.count("\n", 0, start) + 1
    whole, _ = load_value(text, start, name, line=line)
    lists = [key for key, value in whole.items() if isinstance(value, list)]
    if len(lists) != 1:
        found = f"lists: {', '.join(lists)}" if lists else "no list"
        raise DataError(
            f"The JSON object holds {found}; one list of rows was expected",
            where=f"{name}, line {line}",
            fix='Write the rows as {"data": [ … ]}, as an array, or one object on each line',
        )
    decoder, position = json.JSONDecoder(), start + 1
    while True:
        key, position = decoder.raw_decode(text, skip_space(text, position))
        position = skip_space(text, skip_space(text, position) + 1)
        if key == lists[0]:
            return position
        _, position = decoder.raw_decode(text, position)
        position = skip_space(text, position) + 1


def _build(kind: str, items: Iterator[Item], name: str, encoding: str) -> Table:
    """Turn objects into rows of text under the union of their keys."""
    keys: dict[str, int] = {}
    nested: set[str] = set()
    lines: list[int] = []
    records: list[dict[str, str]] = []
    for line, item in items:
        if not isinstance(item, dict):
            raise DataError(
                f"A row is {_kind_of(item)}, not an object with named values",
                where=f"{name}, line {line}",
                fix='Write each row as {"column": "text", …}',
            )
        for key, value in item.items():
            keys.setdefault(key, len(keys))
            if isinstance(value, (dict, list)):
                nested.add(key)
        record = {key: _cell(value) for key, value in item.items()}
        if max(map(len, record.values()), default=0) > MAX_CELL_CHARACTERS:
            raise DataError(
                f"A cell is longer than {MAX_CELL_CHARACTERS:,} characters",
                where=f"{name}, line {line}",
                fix="Shorten the text",
            )
        lines.append(line)
        records.append(record)
    if not keys:
        raise DataError("The file has no rows", where=name, fix='Add rows such as {"text": "…"}')
    columns, notes = clean_names(list(keys), where=name)
    names = dict(zip(keys, columns, strict=True))
    short = sum(len(record) < len(keys) for record in records)
    if short:
        notes += (f"{short:,} row(s) lack some of the columns; these cells are empty",)
    cells = [[record.get(key, "") for key in keys] for record in records]
    json_columns = frozenset(names[key] for key in nested)
    return Table(kind, encoding, None, columns, json_columns, lines, cells, notes)


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    return json.dumps(value, ensure_ascii=False)


def _kind_of(value: Any) -> str:
    if value is None:
        return "null"
    kinds = {list: "a list", str: "a text", bool: "true or false", int: "a number"}
    return kinds.get(type(value), "a number")
