"""CSV and TSV, read strictly: an error names its line, nothing is repaired in silence."""

import re
from collections.abc import Generator, Iterable, Iterator, Sequence
from functools import cache
from itertools import chain, islice

from data_prep.table import (
    MAX_CELL_CHARACTERS,
    Batch,
    Facts,
    clean_names,
    empty_file,
    in_batches,
    refuse_long_cells,
)
from templates.errors import DataError

DELIMITERS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "pipe"}
_PROBED_CHARACTERS = 1_000_000
_PROBED_RECORDS = 200
_LONG_CELL_LINES = 50
_LISTED = 10
FIRST_LINE_LOOKS_LIKE_DATA = (
    "The first line was taken as column names, but looks like data: check the preview"
)
_NEWLINE = re.compile(r"\r\n|\n|\r")
# Possessive: an unclosed quote in a large file fails at once instead of backtracking.
_QUOTED = re.compile(r'"([^"]*+(?:""[^"]*+)*+)"')

Record = tuple[int, list[str]]


# Spreadsheets may announce the delimiter in a line of its own.
_ANNOUNCED = re.compile(r"\A\"?sep=(.)\"?\r?\n")


def read_delimited(
    pieces: Iterable[str],
    *,
    name: str,
    encoding: str,
    delimiter: str | None = None,
    has_header: bool | None = None,
    is_cut: bool = False,
) -> Generator[Batch, None, Facts]:
    """Read a table with one header row, or none.

    Args:
        pieces: the text of the file, one after the other.
        name: the file name, for sentences; a name ending in .tsv prefers the tab.
        encoding: reported in the facts.
        delimiter: what the person chose; None finds out.
        has_header: whether the first row holds the names of the columns; None means yes, with a
            note where it looks otherwise.
        is_cut: whether this is only the beginning of a file; its last record is left out.

    Returns:
        The rows, a batch at a time; and in the end how the file was understood.

    Raises:
        DataError: no rows, rows of different length, an unclosed quote or a cell too large.
    """
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
        raise DataError(
            f"{delimiter!r} cannot be a delimiter",
            where=name,
            fix="Choose one character such as comma, tab, semicolon or pipe",
        )
    pieces = iter(pieces)
    head = _head(pieces)
    is_tsv = name.lower().removesuffix(".gz").endswith((".tsv", ".tab"))
    announced = _ANNOUNCED.match(head)
    told = delimiter or (announced[1] if announced else None)
    body = head[announced.end() :] if announced else head
    chosen = told or choose_delimiter(body, prefer="\t" if is_tsv else ",")
    records = read_records(chain([head], pieces), chosen, name=name, is_cut=is_cut)
    if announced:
        next(records)  # passed over by reading it, so that line numbers stay true
    first = next(records, (1, []) if is_cut else None)
    if first is None:
        raise empty_file(name)
    notes: tuple[str, ...] = ()
    if has_header is False:
        columns, _ = clean_names([""] * len(first[1]), where=name)
        records = chain([first], records)
    else:
        columns, notes = clean_names(first[1], where=f"{name}, line {first[0]}")
        if has_header is None and looks_like_data(first[1]):
            notes += (FIRST_LINE_LOOKS_LIKE_DATA,)
    rows = _EvenRows(len(columns), name, chosen)
    yield from in_batches(rows.read(records))
    if not rows.num_rows and not is_cut:
        raise DataError(
            "The file has a header but no rows",
            where=f"{name}, line {first[0]}",
            fix="Add rows below the header; the first line is always taken as column names",
        )
    if len(columns) == 1 and rows.num_rows > 1:
        notes += ("Only one column was found: check the delimiter",)
    notes += rows.notes
    if len(set(_NEWLINE.findall(head[:_PROBED_CHARACTERS]))) > 1:
        notes += ("The file mixes line ends (Windows, Unix or old Mac); all were understood",)
    return Facts(
        format="tsv" if chosen == "\t" else "csv",
        encoding=encoding,
        delimiter=chosen,
        columns=columns,
        notes=notes,
        has_header=has_header is not False,
    )


def _head(pieces: Iterator[str]) -> str:
    """Take what decides about delimiter and line ends."""
    head = ""
    while len(head) < _PROBED_CHARACTERS and (piece := next(pieces, None)) is not None:
        head += piece
    return head


def looks_like_data(header: Sequence[str]) -> bool:
    """Say whether a first row is hardly one of column names.

    Args:
        header: its cells.

    Returns:
        Whether one of them is a number or very long.
    """
    return any(len(cell) > 100 or re.fullmatch(r"-?[\d.,]+", cell.strip()) for cell in header)


def choose_delimiter(text: str, *, prefer: str) -> str:
    """Find the character that cuts all records into the same number of cells as the header.

    Args:
        text: the file.
        prefer: wins when nothing speaks for another one.

    Returns:
        The delimiter.
    """
    best, best_score = prefer, (0.0, 0, False)
    for candidate in DELIMITERS:
        counts = _probe(text, candidate)
        if not counts or counts[0] < 2:
            continue
        share = sum(count == counts[0] for count in counts) / len(counts)
        score = (share, counts[0], candidate == prefer)
        if score > best_score:
            best, best_score = candidate, score
    return best


def _probe(text: str, delimiter: str) -> list[int]:
    """Count the cells of the first records; an error ends the probe, it does not decide."""
    counts: list[int] = []
    characters = 0
    try:
        records = read_records(text, delimiter, name="", is_cut=len(text) >= _PROBED_CHARACTERS)
        for _, cells in islice(records, _PROBED_RECORDS):
            counts.append(len(cells))
            characters += sum(map(len, cells))
            if characters > _PROBED_CHARACTERS:
                break
    except DataError:
        pass
    return counts


def read_records(
    pieces: Iterable[str], delimiter: str, *, name: str, is_cut: bool = False
) -> Iterator[Record]:
    """Cut text into records, outside quotes, at any kind of line end.

    Args:
        pieces: the text, one after the other; a single text is fine too.
        delimiter: one character.
        name: the file name, for sentences.
        is_cut: whether the text breaks off; its last record is left out then.

    Yields:
        The line on which the record starts, and its cells; blank lines are left out.

    Raises:
        DataError: a quoted cell is not closed properly, or a cell is too large.
    """
    rest, line = "", 1
    fresh: list[str] = []
    for piece in [pieces] if isinstance(pieces, str) else pieces:
        fresh.append(piece)
        # A record longer than a piece is looked at only each time that its known part has doubled.
        if sum(map(len, fresh)) < len(rest):
            continue
        text = rest + "".join(fresh)
        fresh.clear()
        end, line = yield from _complete_records(text, delimiter, name, line, is_last=False)
        rest = text[end:]
    if not is_cut:
        text = rest + "".join(fresh)
        yield from _complete_records(text, delimiter, name, line, is_last=True)


def _complete_records(
    text: str, delimiter: str, name: str, line: int, *, is_last: bool
) -> Generator[Record, None, tuple[int, int]]:
    """Give the records that surely end in this text -> position and line after them."""
    position, size = 0, len(text)
    while position < size:
        found = _NEWLINE.search(text, position)
        end = found.start() if found else size
        start = line
        if text.find('"', position, end) < 0:
            cells = text[position:end].split(delimiter)
            after = line
        else:
            record = _read_quoted_record(text, position, line, delimiter, name, is_last)
            if record is None:
                return position, start
            cells, end, after = record
            found = _NEWLINE.match(text, end)
        # What follows a last "\r" may be its "\n".
        if not is_last and (found is None or (found.end() == size and found[0] == "\r")):
            return position, start
        if end - position > MAX_CELL_CHARACTERS:
            refuse_long_cells(cells, f"{name}, line {start}")
        if end > position:
            yield start, cells
        position = found.end() if found else size
        line = after + 1
    return position, line


def _read_quoted_record(
    text: str, position: int, line: int, delimiter: str, name: str, is_last: bool
) -> tuple[list[str], int, int] | None:
    """Read one record that holds quotes -> cells, position of its line end, line ending there.

    None: more text is needed to tell where it ends.
    """
    ends = _ends(delimiter)
    cells: list[str] = []
    while True:
        if text.startswith('"', position):
            quoted = _QUOTED.match(text, position)
            if not is_last and (quoted is None or quoted.end() == len(text)):
                return None
            if quoted is None:
                raise _unclosed(name, line, None)
            opened, position = line, quoted.end()
            if "\n" in quoted[1] or "\r" in quoted[1]:
                line += len(_NEWLINE.findall(quoted[1]))
            if position < len(text) and text[position] not in (delimiter, "\r", "\n"):
                raise _unclosed(name, opened, line)
            cells.append(quoted[1].replace('""', '"'))
        else:
            # A quote inside an unquoted cell, such as 5" pipe, is an ordinary character.
            stop = ends.search(text, position)
            end = stop.start() if stop else len(text)
            cells.append(text[position:end])
            position = end
        if not text.startswith(delimiter, position):
            return cells, position, line
        position += 1


@cache
def _ends(delimiter: str) -> re.Pattern[str]:
    return re.compile(rf"[{re.escape(delimiter)}\r\n]")


def _unclosed(name: str, opened: int, line: int | None) -> DataError:
    if line is None:
        what = "A quote is opened and never closed"
    else:
        what = f"A quoted cell is not closed properly: text follows its last quote in line {line}"
    return DataError(
        what,
        where=f"{name}, opened in line {opened}",
        fix='Close the cell with ", and write a quote inside a quoted cell twice: ""',
    )


class _EvenRows:
    """Passes rows on while they are even; afterwards it only collects what is wrong."""

    def __init__(self, width: int, name: str, delimiter: str) -> None:
        self.num_rows = 0
        self.notes: tuple[str, ...] = ()
        self._width, self._name, self._delimiter = width, name, delimiter

    def read(self, records: Iterable[Record]) -> Iterator[Record]:
        """Give the rows, or at the end list the lines of those with too many or too few cells."""
        num_ragged, ragged = 0, []
        before: Record | None = None
        for record in records:
            line, cells = record
            if before and line - before[0] > _LONG_CELL_LINES and not self.notes:
                self._note(*before)
            before = record
            if len(cells) != self._width:
                num_ragged += 1
                if num_ragged <= _LISTED:
                    ragged.append(f"{line} ({len(cells)} cells)")
            elif not num_ragged:
                self.num_rows += 1
                yield record
        if before and not self.notes:
            self._note(*before)
        if not num_ragged:
            return
        more = f" and {num_ragged - _LISTED:,} more" if num_ragged > _LISTED else ""
        mark = DELIMITERS.get(self._delimiter, repr(self._delimiter))
        raise DataError(
            f"{num_ragged:,} row(s) do not have the {self._width} cell(s) of the header",
            where=f"{self._name}, line {', '.join(ragged)}{more}",
            fix=f"Put cells that contain a {mark} in double quotes, or choose another delimiter",
        )

    def _note(self, line: int, cells: Sequence[str]) -> None:
        spans = max(cell.count("\n") + cell.count("\r") for cell in cells)
        if spans > _LONG_CELL_LINES:
            self.notes = (f"The cell that starts near line {line} spans {spans} lines",)
