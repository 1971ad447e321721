"""Pieces of HTML of the prepare step. No Gradio here."""

import json
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from data_prep.rehearsal import Rehearsal, ShownRow
from data_prep.upload import Column
from studio.web.charts import Bar, bars, split_bar
from studio.web.choices import send_button
from studio.web.html import badge, callout, empty, join, section, table, visible
from studio.web.words import count, percent
from templates.dataset import SPLITS, Dataset, Split
from templates.errors import StudioError
from templates.template import Template

MOST_COLUMN_CARDS = 24
MOST_LABELS = 60
_SAMPLE_CHARACTERS = 90
_KINDS = {
    "text": "text", "category": "few values", "number": "numbers", "boolean": "yes or no",
    "json": "lists or objects", "empty": "empty",
}  # fmt: skip
PLACES = {
    "label": "label", "references": "answer", "turns": "conversation", "split": "split",
}  # fmt: skip


def column_cards(
    columns: Sequence[Column], used: Mapping[str, str], places: Sequence[str], *, target: str
) -> Markup:
    """Show the columns, each with buttons that say what to use it for.

    Args:
        columns: of the table.
        used: column by place.
        places: what a column can be used for.
        target: `elem_id` of the field that hears of it, as a JSON list of place and column.

    Returns:
        A list of cards.
    """
    cards = []
    for column in columns[:MOST_COLUMN_CARDS]:
        here = [place for place in places if used.get(place) == column.name]
        marks = join((badge(f"→ {_called(place)}", "good") for place in here), " ")
        samples = join(
            Markup('<p class="ts-column-sample" dir="auto">{}</p>').format(
                visible(sample, _SAMPLE_CHARACTERS)
            )
            for sample in column.samples[:2]
        )
        name = visible(column.name, 60)
        buttons = join(
            (
                send_button(
                    _called(place), _pair(place, column.name), target=target,
                    label=f"Use the column {name} as {_called(place)}",
                )
                for place in places
                if place not in here
            ),
            " ",
        )  # fmt: skip
        used_now = " ts-used" if here else ""
        cards.append(Markup(
            '<li class="ts-column{}"><p class="ts-column-head"><strong>{}</strong> {} {}</p>{}'
            '<p class="ts-column-use"><span>Use as</span> {}</p></li>'
        ).format(
            used_now, name, badge(_KINDS.get(column.kind, column.kind)), marks,
            samples, buttons,
        ))  # fmt: skip
    more = len(columns) - MOST_COLUMN_CARDS
    rest = (
        Markup('<p class="ts-soft">{} more in the lists below.</p>').format(count(more, "column"))
        if more > 0
        else ""
    )
    return Markup('<ul class="ts-columns" aria-label="Columns of your table">{}</ul>{}').format(
        join(cards), rest
    )


def rendered(rows: Sequence[ShownRow]) -> Markup:
    """Show rows as prompt and answer, in two colours.

    Args:
        rows: the first ones of the table.

    Returns:
        A block for each, with a legend.
    """
    if not rows:
        return empty("No row to show", "None of the first rows can be an example yet.")
    blocks = [
        Markup(
            '<figure class="ts-figure"><figcaption>{}</figcaption>'
            '<div class="ts-tokens" dir="auto" tabindex="0">{}<mark>{}</mark></div></figure>'
        ).format(
            f"Row {', '.join(map(str, row.source_rows))}",
            with_breaks(row.prompt), with_breaks(row.completion),
        )
        for row in rows
    ]  # fmt: skip
    return legend(("plain", "the prompt: given"), ("mark", "the answer: learned")) + join(blocks)


def with_breaks(text: str) -> Markup:
    """Show a text with a mark at each line break.

    Args:
        text: of a table or a model.

    Returns:
        Markup.
    """
    return join(visible(text).split("\n"), Markup('<span class="ts-break">⏎</span>\n'))


def label_words(labels: Mapping[str, int], template: Template, *, target: str) -> Markup:
    """Ask for the word of each label.

    Args:
        labels: how many rows have each.
        template: its words.
        target: `elem_id` of the field that hears of it, as a JSON list of label and word.

    Returns:
        A table with text fields.
    """
    names = list(dict.fromkeys((*labels, *template.verbalizer)))[:MOST_LABELS]
    if not names:
        return Markup("")
    rows = []
    for place, name in enumerate(names):
        field = Markup(
            '<input type="text" class="ts-word" id="{}-{}" data-studio-send="{}" '
            'data-studio-name="{}" value="{}" maxlength="200" aria-label="Word for the label {}">'
        ).format(target, place, target, name, template.words_for(name), visible(name))
        rows.append((visible(name, 80), field, count(labels.get(name, 0))))
    return section(
        "Label words", "What the model writes for each label. Short, common words are learned best."
    ) + table(("label", "word", "rows"), rows, caption="Label words", numeric=(2,))


def findings(rehearsal: Rehearsal, *, is_part: bool) -> Markup:
    """Show what the checks found.

    Args:
        rehearsal: of the recipe.
        is_part: whether only the first rows were looked at.

    Returns:
        Errors and warnings, or good news.
    """
    if not rehearsal.findings:
        good = callout("good", "Nothing looks wrong", "Columns, labels and texts were checked.")
        return good + _only_part(is_part)
    boxes = [
        callout("bad" if finding.is_error else "warn", *_title_and_rest(finding.sentence))
        for finding in rehearsal.findings
    ]
    return join(boxes) + _only_part(is_part)


def split_view(
    splits: Mapping[Split, int] | None, labels: Mapping[str, int], *, is_part: bool
) -> Markup:
    """Show how the rows are divided, and how many each label has.

    Args:
        splits: rows by split; None where they cannot be divided.
        labels: rows by label.
        is_part: whether only the first rows were looked at.

    Returns:
        A bar in three colours, and bars for the labels.
    """
    parts: list[object] = []
    if splits:
        sizes = [(name, splits[name]) for name in SPLITS]
        told = ", ".join(f"{name} {number:,}" for name, number in sizes)
        parts.append(split_bar(sizes, label=f"Rows by split: {told}"))
    if labels:
        shown = list(labels.items())[:MOST_LABELS]
        whole = sum(labels.values())
        items = [
            Bar(visible(name, 60), number, f"{number:,} ({percent(number / whole, 0)})")
            for name, number in shown
        ]
        chart = bars(items, label="Rows by label")
        parts.append(Markup('<div class="ts-chart"><p class="ts-chart-title">Labels</p>{}</div>')
                     .format(chart))  # fmt: skip
    return join(parts) + _only_part(is_part)


def report_table(dataset: Dataset, titles: Mapping[str, str]) -> Markup:
    """Show what every step did.

    Args:
        dataset: what was prepared.
        titles: of the steps by name.

    Returns:
        A table.
    """
    rows = []
    for report in dataset.reports:
        counts = ", ".join(f"{name}: {number:,}" for name, number in report.counts.items())
        title = titles.get(report.step, report.step.capitalize())
        figures = (report.rows_in, report.rows_out, report.rows_changed)
        rows.append((title, *map(count, figures), counts or "–"))
    headings = ("step", "rows in", "rows out", "changed", "what")
    return table(headings, rows, caption="What each step did", numeric=(1, 2, 3))


def failure(error: StudioError) -> Markup:
    """Show why something could not be had.

    Args:
        error: the reason.

    Returns:
        A box.
    """
    where = visible(error.where, 300)
    return callout("bad", visible(error.what, 600), where, fix=visible(f"{error.fix}.", 600))


def _called(place: str) -> str:
    return PLACES.get(place, visible(place, 40))


def _pair(place: str, column: str) -> str:
    # JSON, so that any name of a column can be told apart from what is around it.
    return json.dumps([place, column])


def _title_and_rest(sentence: str) -> tuple[str, str]:
    """Part what was found from what to do about it: the fix is the last sentence."""
    what, dot, fix = visible(sentence, 900).rpartition(". ")
    return (what + dot.strip(), fix) if dot else (fix, "")


def _only_part(is_part: bool) -> Markup:
    if not is_part:
        return Markup("")
    return Markup('<p class="ts-soft">{}</p>').format(
        "Counted on the first 5,000 rows; preparing looks at all of them."
    )


def legend(*keys: tuple[str, str]) -> Markup:
    """Say what colours of a text mean.

    Args:
        *keys: (plain, mark or special, its meaning).

    Returns:
        A list.
    """
    items = join(
        Markup('<li><span class="ts-key ts-key-{}"></span>{}</li>').format(kind, words)
        for kind, words in keys
    )
    return Markup('<ul class="ts-legend" aria-label="Colours">{}</ul>').format(items)
