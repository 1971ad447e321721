"""JSON Lines and JSON tables: one object is one row."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from io import StringIO
from itertools import chain
from typing import Any

from data_prep.json_text import ONE_PER_LINE, ends_here, load_value, skip_space
from data_prep.table import (
    MAX_COLUMNS,
    Facts,
    Reading,
    clean_names,
    empty_file,
    in_batches,
    refuse_long_cells,
)
from templates.errors import DataError

Item = tuple[int, Any]
_FIRST_LIST = re.compile(r'":\s*(\[)\s*\{')


def read_json_table(
    pieces: Iterable[str], *, name: str, encoding: str, is_cut: bool = False
) -> Reading:
    """Read JSON Lines, an array of objects, or an object with one list of objects.

    Args:
        pieces: the text of the file, one after the other.
        name: the file name; a name ending in .jsonl or .ndjson is read line by line.
        encoding: reported in the facts.
        is_cut: whether this is only the beginning of a file; its last row is left out.

    Returns:
        The rows, a batch at a time; and in the end how the file was understood. Keys that only
        some rows have become columns with empty cells.

    Raises:
        DataError: a line is not JSON, not an object, nested too deeply, has a key twice,
            or holds NaN, infinity or half a character.
    """
    pieces = iter(pieces)
    text = ""
    while (start := skip_space(text, 0)) == len(text):
        if (piece := next(pieces, None)) is None:
            raise empty_file(name)
        text += piece
    by_line = name.lower().removesuffix(".gz").endswith((".jsonl", ".ndjson"))
    kind, items = "jsonl", _line_items(chain([text], pieces), name, is_cut)
    if text[start] == "[" or not by_line:  # where a value ends is seen only in the whole text
        text += "".join(pieces)
        items = _line_items([text], name, is_cut)
        found = _find_array(text, start, name, is_cut)
        if found is not None:
            kind = "json"
            items = _array_items(text, found, name, is_whole=found == start, is_cut=is_cut)
    return (yield from _Rows(name).read(kind, encoding, items, is_cut))


def _find_array(text: str, start: int, name: str, is_cut: bool) -> int | None:
    """Find where the array of rows begins; None where each line stands for itself."""
    if text[start] == "[":
        return start
    if text[start] != "{":
        return None
    if is_cut:
        first = _FIRST_LIST.search(text)
        return None if first is None or _is_line(text, start) else first.start(1)
    return _find_list(text, start, name) if _is_one_value(text, start) else None


def _is_line(text: str, start: int) -> bool:
    end = ends_here(text.split("\n", 1)[0], start)
    return end is not None


def _lines(pieces: Iterable[str], is_cut: bool) -> Iterator[str]:
    """Cut text into lines, with their ends."""
    rest: list[str] = []  # a line that is longer than a piece comes in many parts
    for piece in pieces:
        rest.append(piece)
        if "\n" not in piece and "\r" not in piece:
            continue
        # StringIO splits at \n, \r\n and \r only: U+2028 may stand inside a JSON string.
        *lines, last = StringIO("".join(rest), newline="")
        if last.endswith("\n"):
            lines.append(last)
            last = ""
        yield from lines
        rest = [last]  # what follows a last "\r" may be its "\n"
    if not is_cut:
        yield from StringIO("".join(rest), newline="")


def _line_items(pieces: Iterable[str], name: str, is_cut: bool) -> Iterator[Item]:
    for number, line in enumerate(_lines(pieces, is_cut), 1):
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


def _array_items(
    text: str, start: int, name: str, *, is_whole: bool, is_cut: bool
) -> Iterator[Item]:
    """Walk an array element by element, so that each knows its line."""
    position, line, counted = start + 1, text.count("\n", 0, start) + 1, start
    first = True
    while True:
        position = skip_space(text, position)
        if text.startswith("]", position) and first:
            return
        line, counted = line + text.count("\n", counted, position), position
        try:
            value, end = load_value(text, position, name, line=line)
        except DataError:
            if is_cut:
                return  # broken off, or else reading the whole file will complain of it
            raise
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
        if is_cut and position == len(text):
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


class _Rows:
    """Objects -> rows of text under the union of the keys so far."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._keys: dict[str, int] = {}
        self._nested: set[str] = set()
        self._num_by_width: Counter[int] = Counter()

    def read(self, kind: str, encoding: str, items: Iterator[Item], is_cut: bool) -> Reading:
        """Give the rows, and in the end the facts."""
        yield from in_batches(self._row(line, item) for line, item in items)
        if not self._keys and not is_cut:
            fix = 'Add rows such as {"text": "…"}'
            raise DataError("The file has no rows", where=self._name, fix=fix)
        columns, notes = clean_names(list(self._keys), where=self._name)
        names = dict(zip(self._keys, columns, strict=True))
        num_short = sum(
            count for width, count in self._num_by_width.items() if width < len(columns)
        )
        if num_short:
            notes += (f"{num_short:,} row(s) lack some of the columns; these cells are empty",)
        return Facts(
            format=kind,
            encoding=encoding,
            delimiter=None,
            columns=columns,
            json_columns=frozenset(names[key] for key in self._nested),
            notes=notes,
        )

    def _row(self, line: int, item: Any) -> tuple[int, list[str]]:
        where = f"{self._name}, line {line}"
        if not isinstance(item, dict):
            raise DataError(
                f"A row is {_kind_of(item)}, not an object with named values",
                where=where,
                fix='Write each row as {"column": "text", …}',
            )
        for key, value in item.items():
            self._keys.setdefault(key, len(self._keys))
            if isinstance(value, (dict, list)):
                self._nested.add(key)
        if len(self._keys) > MAX_COLUMNS:
            clean_names(list(self._keys), where=self._name)  # refuses them
        self._num_by_width[len(item)] += 1
        cells = [_cell(item.get(key)) for key in self._keys]
        refuse_long_cells(cells, where)
        return line, cells


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
