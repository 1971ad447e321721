"""What was read, told in figures, rows and columns."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from markupsafe import Markup

from data_prep.table import Row
from data_prep.upload import Bin, Column, Upload
from studio.commands import upload_command
from studio.pages.upload_correction import delimiter_name
from studio.web.charts import Bar, bars, sparkline
from studio.web.html import (
    Tone,
    badge,
    callout,
    code,
    details,
    join,
    section,
    table,
    tiles,
    visible,
)
from studio.web.words import count, figure, percent, size

SHOWN_ROWS = 20
_MOST_COLUMNS = 24
_CELL_CHARACTERS, _WHOLE_CHARACTERS = 280, 2_000
_NAME_CHARACTERS = 60
_MOST_VALUES = 8
_KINDS = {
    "text": ("text", "Sentences or longer texts."),
    "number": ("numbers", "Every cell that is not empty holds a number."),
    "boolean": ("yes or no", "Only true, false, yes or no."),
    "category": ("categories", "The same few values again and again: such as labels."),
    "json": ("nested", "Lists or objects, kept as JSON."),
    "empty": ("empty", "No cell holds anything."),
}
_FORMATS = {
    "csv": "CSV", "tsv": "TSV", "jsonl": "JSON Lines", "json": "JSON", "txt": "Text",
    "zip": "Zip of texts", "xlsx": "Excel", "parquet": "Parquet",
}  # fmt: skip


def overview(upload: Upload) -> Markup:
    """Say what was read in a few figures.

    Args:
        upload: what was read.

    Returns:
        Tiles.
    """
    return tiles([
        ("Rows", count(upload.num_rows)),
        ("Columns", count(len(upload.columns))),
        ("File", size(upload.total_bytes), visible(upload.name, _NAME_CHARACTERS)),
        ("Read as", _FORMATS.get(upload.format, upload.format), _how(upload)),
    ])  # fmt: skip


def notes(lines: Sequence[str]) -> Markup:
    """Show what the reader decided that a person should know.

    Args:
        lines: of the reader.

    Returns:
        One callout; nothing where there is nothing to say.
    """
    if not lines:
        return Markup("")
    tone: Tone = "warn" if any("check" in line for line in lines) else "plain"
    text = join((visible(line) for line in lines), Markup("<br>"))
    return callout(tone, "Noticed while reading", text)


def first_rows(upload: Upload, rows: Iterable[Row]) -> Markup:
    """Show the first rows as they were read.

    Args:
        upload: what was read.
        rows: the first of it.

    Returns:
        A table.
    """
    names = [column.name for column in upload.columns]
    cells = [(str(row.number), *(row.cells[name] for name in names)) for row in rows]
    shown = min(SHOWN_ROWS, upload.num_rows)
    more = f"The first {shown} of {count(upload.num_rows)} rows." if (
        shown < upload.num_rows
    ) else "All rows."  # fmt: skip
    return section("First rows", more) + rows_table(names, cells, caption="First rows")


def rows_table(names: Sequence[str], rows: Iterable[Sequence[str]], *, caption: str) -> Markup:
    """Show rows with long cells folded.

    Args:
        names: of the columns.
        rows: a number, and one text for each column.
        caption: what it shows.

    Returns:
        A table, and how many columns it leaves out.
    """
    shown = names[:_MOST_COLUMNS]
    body = [(row[0], *map(_cell, row[1 : len(shown) + 1])) for row in rows]
    headings = ("Row", *(visible(name, _NAME_CHARACTERS) for name in shown))
    left = len(names) - len(shown)
    rest = Markup('<p class="ts-soft">{} more not shown here.</p>').format(
        count(left, "column")
    ) if left else ""  # fmt: skip
    shape = Markup('<div class="ts-up-rows">{}</div>')
    return shape.format(table(headings, body, caption=caption)) + rest


def columns(upload: Upload) -> Markup:
    """Describe each column with a small chart.

    Args:
        upload: what was read.

    Returns:
        Cards.
    """
    cards = [_card(column, upload.num_rows) for column in upload.columns]
    first, rest = cards[:_MOST_COLUMNS], cards[_MOST_COLUMNS:]
    more = details(f"{count(len(rest), 'more column')}", _grid(rest)) if rest else ""
    head = section("Columns", "What kind of values each one holds, and how they are spread.")
    return head + _grid(first) + more


def even_counts(bins: Sequence[Bin]) -> list[int]:
    """Fill the gaps between bins of equal width.

    Args:
        bins: in order; empty ones may be missing.

    Returns:
        The count of every bin from the first to the last.
    """
    if not bins:
        return []
    width = bins[0].to - bins[0].from_
    if width <= 0:
        return [one.count for one in bins]
    counts: dict[int, int] = {}
    for one in bins:
        counts[min(99, round((one.from_ - bins[0].from_) / width))] = one.count
    return [counts.get(place, 0) for place in range(max(counts) + 1)]


def _how(upload: Upload) -> str:
    from_header = {True: "names in the first row", False: "no header", None: ""}
    parts = [
        f"sheet {visible(upload.sheet, 30)}" if upload.sheet else "",
        delimiter_name(upload.delimiter) if upload.delimiter else "",
        upload.encoding.upper(),
        from_header[upload.has_header],
    ]
    return ", ".join(filter(None, parts))


def _cell(text: str) -> Markup | str:
    if not text:
        return Markup('<span class="ts-up-nothing">empty</span>')
    if len(text) <= _CELL_CHARACTERS:
        return visible(text)
    return Markup(
        '<details class="ts-up-cell"><summary>{}</summary><div>{}</div></details>'
    ).format(visible(text, _CELL_CHARACTERS), visible(text, _WHOLE_CHARACTERS))


def _grid(cards: Iterable[Markup]) -> Markup:
    return Markup('<div class="ts-up-columns">{}</div>').format(join(cards))


def _card(column: Column, num_rows: int) -> Markup:
    name = visible(column.name, _NAME_CHARACTERS)
    kind, meaning = _KINDS[column.kind]
    return Markup(
        '<article class="ts-up-column"><header><h4>{}</h4>{}</header><p class="ts-soft">{}</p>{}'
        "</article>"
    ).format(name, badge(kind, title=meaning), _facts(column, num_rows), _chart(column, name))


def _facts(column: Column, num_rows: int) -> Markup:
    if column.kind == "empty":
        return Markup("{}").format(f"all {count(num_rows, 'cell')} empty")
    empties: object = "none empty"
    if column.num_empty:
        words = f"{count(column.num_empty)} empty ({percent(column.num_empty / num_rows)})"
        empties = Markup('<span class="ts-warn">{}</span>').format(words)
    filled = num_rows - column.num_empty
    different = "all different" if column.num_distinct == filled > 1 else (
        f"{count(column.num_distinct, 'value')}"
    )  # fmt: skip
    return Markup("{} · {}").format(different, empties)


def _chart(column: Column, name: str) -> Markup:
    if column.kind == "empty":
        return Markup("")
    repeats = bool(column.top) and column.top[0].count > 1
    if column.kind in ("category", "boolean") and repeats:
        return _values(column, name)
    low, high = _range(column)
    what = "Values" if column.kind == "number" else "Length in characters"
    said = f"{name}: {what.lower()} from {low} to {high}"
    drawing = Markup('<figure class="ts-up-spread">{}<figcaption><span>{}</span><span>{}</span>'
                     "<span>{}</span></figcaption></figure>").format(
        sparkline(even_counts(column.histogram), label=said), low, what, high
    ) if len(column.histogram) > 1 else Markup("")  # fmt: skip
    if column.kind == "number":
        return drawing
    sample = Markup('<p class="ts-up-sample" dir="auto">{}</p>').format(
        visible(column.samples[0], _CELL_CHARACTERS)
    ) if column.samples else Markup("")  # fmt: skip
    return drawing + sample


def _values(column: Column, name: str) -> Markup:
    top = column.top[:_MOST_VALUES]
    items = [Bar(visible(one.value, 40), one.count, count(one.count)) for one in top]
    others = column.num_distinct - len(top)
    rest = Markup('<p class="ts-soft">and {}</p>').format(
        count(others, "other value")
    ) if others > 0 else ""  # fmt: skip
    return bars(items, label=f"Most frequent values of {name}", is_small=True) + rest


def _range(column: Column) -> tuple[str, str]:
    if column.kind == "number" and column.histogram:
        return figure(column.histogram[0].from_, 4), figure(column.histogram[-1].to, 4)
    return count(column.min_characters), count(column.max_characters)


def command(upload: Upload) -> Markup:
    """Show the line that reads the table the same way.

    Args:
        upload: as it was read.

    Returns:
        A disclosure.
    """
    line = upload_command(
        Path(upload.name), delimiter=upload.delimiter, has_header=upload.has_header,
        sheet=upload.sheet,
    )  # fmt: skip
    return details("The same on a command line", code(line, label="Read this table"))
