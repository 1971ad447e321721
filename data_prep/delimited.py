"""CSV and TSV, read strictly: an error names its line, nothing is repaired in silence."""

import re
from collections.abc import Iterator, Sequence
from itertools import islice

from data_prep.table import MAX_CELL_CHARACTERS, Table, clean_names
from templates.errors import DataError

DELIMITERS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "pipe"}
_PROBED_CHARACTERS = 1_000_000
_PROBED_RECORDS = 200
_LONG_CELL_LINES = 50
_NEWLINE = re.compile(r"\r\n|\n|\r")
# Possessive: an unclosed quote in a large file fails at once instead of backtracking.
_QUOTED = re.compile(r'"([^"]*+(?:""[^"]*+)*+)"')

Record = tuple[int, list[str]]


# Spreadsheets may announce the delimiter in a line of its own.
_ANNOUNCED = re.compile(r"\A\"?sep=(.)\"?\r?\n")


def read_delimited(text: str, *, name: str, encoding: str, delimiter: str | None = None) -> Table:
    """Read a table with one header row.

    Args:
        text: the whole file.
        name: the file name, for sentences; a name ending in .tsv prefers the tab.
        encoding: reported in the table.
        delimiter: what the person chose; None finds out.

    Returns:
        The table.

    Raises:
        DataError: no rows, rows of different length, an unclosed quote or a cell too large.
    """
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n'):
        raise DataError(
            f"{delimiter!r} cannot be a delimiter",
            where=name,
            fix="Choose one character such as comma, tab, semicolon or pipe",
        )
    is_tsv = name.lower().removesuffix(".gz").endswith((".tsv", ".tab"))
    announced = _ANNOUNCED.match(text)
    body = text[announced.end() :] if announced else text
    told = delimiter or (announced[1] if announced else None)
    chosen = told or choose_delimiter(body, prefer="\t" if is_tsv else ",")
    records = read_records(text, chosen, name=name)
    if announced:
        next(records)  # passed over by reading it, so that line numbers stay true
    header = next(records, None)
    if header is None:
        raise DataError(
            "The file is empty", where=name, fix="Upload a table with a header and rows"
        )
    columns, notes = clean_names(header[1], where=f"{name}, line {header[0]}")
    lines, cells = _even_rows(records, len(columns), name, chosen)
    if not lines:
        raise DataError(
            "The file has a header but no rows",
            where=f"{name}, line {header[0]}",
            fix="Add rows below the header; the first line is always taken as column names",
        )
    notes += _notes(text, header, lines, cells)
    kind = "tsv" if chosen == "\t" else "csv"
    return Table(kind, encoding, chosen, columns, frozenset(), lines, cells, notes)


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
        for _, cells in islice(read_records(text, delimiter, name=""), _PROBED_RECORDS):
            counts.append(len(cells))
            characters += sum(map(len, cells))
            if characters > _PROBED_CHARACTERS:
                break
    except DataError:
        pass
    return counts


def read_records(text: str, delimiter: str, *, name: str) -> Iterator[Record]:
    """Cut text into records, outside quotes, at any kind of line end.

    Args:
        text: the file.
        delimiter: one character.
        name: the file name, for sentences.

    Yields:
        The line on which the record starts, and its cells; blank lines are left out.

    Raises:
        DataError: a quoted cell is not closed properly, or a cell is too large.
    """
    position, line, size = 0, 1, len(text)
    while position < size:
        found = _NEWLINE.search(text, position)
        end = found.start() if found else size
        start = line
        if text.find('"', position, end) < 0:
            cells = text[position:end].split(delimiter)
        else:
            cells, end, line = _read_quoted_record(text, position, line, delimiter, name)
            found = _NEWLINE.match(text, end)
        if max(map(len, cells)) > MAX_CELL_CHARACTERS:
            raise DataError(
                f"A cell is longer than {MAX_CELL_CHARACTERS:,} characters",
                where=f"{name}, line {start}",
                fix="Shorten the cell, or look for a missing quote",
            )
        if end > position:
            yield start, cells
        position = found.end() if found else size
        line += 1


def _read_quoted_record(
    text: str, position: int, line: int, delimiter: str, name: str
) -> tuple[list[str], int, int]:
    """Read one record that holds quotes -> cells, position of its line end, line ending there."""
    ends = re.compile(rf"[{re.escape(delimiter)}\r\n]")
    cells: list[str] = []
    while True:
        if text.startswith('"', position):
            quoted = _QUOTED.match(text, position)
            if quoted is None:
                raise _unclosed(name, line, None)
            opened, position = line, quoted.end()
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


def _even_rows(
    records: Iterator[Record], width: int, name: str, delimiter: str
) -> tuple[list[int], list[list[str]]]:
    """Collect the rows, or list the lines of those that have too many or too few cells."""
    lines: list[int] = []
    rows: list[list[str]] = []
    ragged: list[tuple[int, int]] = []
    for line, cells in records:
        if len(cells) != width:
            ragged.append((line, len(cells)))
            continue
        lines.append(line)
        rows.append(cells)
    if not ragged:
        return lines, rows
    listed = ", ".join(f"{line} ({count} cells)" for line, count in ragged[:10])
    more = f" and {len(ragged) - 10:,} more" if len(ragged) > 10 else ""
    mark = DELIMITERS.get(delimiter, repr(delimiter))
    raise DataError(
        f"{len(ragged):,} row(s) do not have the {width} cell(s) of the header",
        where=f"{name}, line {listed}{more}",
        fix=f"Put cells that contain a {mark} in double quotes, or choose another delimiter",
    )


def _notes(
    text: str, header: Record, lines: Sequence[int], rows: Sequence[Sequence[str]]
) -> tuple[str, ...]:
    """Say what looks odd although it can be read."""
    notes = []
    if any(len(cell) > 100 or re.fullmatch(r"-?[\d.,]+", cell.strip()) for cell in header[1]):
        notes.append(
            "The first line was taken as column names, but looks like data: check the preview"
        )
    if len(header[1]) == 1 and len(rows) > 1:
        notes.append("Only one column was found: check the delimiter")
    for line, cells in zip(lines, rows, strict=True):
        spans = max(cell.count("\n") + cell.count("\r") for cell in cells)
        if spans > _LONG_CELL_LINES:
            notes.append(f"The cell that starts near line {line} spans {spans} lines")
            break
    if len(set(_NEWLINE.findall(text[:_PROBED_CHARACTERS]))) > 1:
        notes.append("The file mixes line ends (Windows, Unix or old Mac); all were understood")
    return tuple(notes)
