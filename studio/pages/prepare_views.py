"""Pieces of HTML of the prepare step. No Gradio here."""

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from data_prep.rehearsal import Rehearsal, ShownRow
from data_prep.upload import Column
from engine.planning.shown import LengthReport, PreviewItem, TokenPiece
from studio.web.charts import Bar, bars, histogram, split_bar
from studio.web.choices import send_button
from studio.web.html import badge, callout, details, empty, join, section, table, visible
from studio.web.words import count, figure, percent
from templates.dataset import SPLITS, Change, Dataset, Split, StepReport
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
    return _legend(("plain", "the prompt: given"), ("mark", "the answer: learned")) + join(blocks)


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


@dataclass(frozen=True)
class StepCard:
    """A cleaner or augmenter in its list.

    Attributes:
        kind: "steps" or "augmenters".
        name: as the recipe writes it.
        title: a few words.
        summary: one sentence.
        is_on: whether the recipe has it.
        is_first: of those that are on.
        is_last: of those that are on.
        report: what it did; None where that is not known.
        words: instead of a report.
    """

    kind: str
    name: str
    title: str
    summary: str
    is_on: bool
    is_first: bool
    is_last: bool
    report: StepReport | None = None
    words: str = ""


def step_cards(cards: Iterable[StepCard], *, switch: str, move: str, label: str) -> Markup:
    """Show steps in their order, each with a switch and what it did.

    Args:
        cards: those that are on first, in their order.
        switch: `elem_id` of the field that hears of switches, as a JSON list of the JSON list of
            kind and name, and whether it is on.
        move: `elem_id` of the field that hears of moves, as a JSON list of kind, name and places.
        label: what they are, for screen readers.

    Returns:
        A list.
    """
    return Markup('<ol class="ts-step-cards" aria-label="{}">{}</ol>').format(
        label, join(_step_card(card, switch, move) for card in cards)
    )


def _step_card(card: StepCard, switch: str, move: str) -> Markup:
    movers = [
        send_button(
            sign, json.dumps([card.kind, card.name, by]), target=move,
            label=f"Move {word}: {card.title}",
        )
        for sign, word, by, is_end in (
            ("↑", "up", -1, card.is_first), ("↓", "down", 1, card.is_last),
        )
        if card.is_on and not is_end
    ]  # fmt: skip
    box = Markup(
        '<label class="ts-switch"><input type="checkbox" data-studio-send="{}" '
        'data-studio-name="{}"{}><span>{}</span></label>'
    ).format(
        switch, json.dumps([card.kind, card.name]), Markup(" checked") if card.is_on else "",
        card.title,
    )  # fmt: skip
    view: object = Markup('<p class="ts-soft">{}</p>').format(card.words) if card.words else ""
    if card.is_on and card.report is not None:
        view = _what_it_did(card.report)
    return Markup(
        '<li class="ts-step-card{}"><div class="ts-step-head">{}<div class="ts-movers">{}</div>'
        '</div><p class="ts-step-summary">{}</p>{}</li>'
    ).format("" if card.is_on else " ts-off", box, join(movers, " "), card.summary, view)


def _what_it_did(report: StepReport) -> Markup:
    gone = report.rows_in - report.rows_out
    marks = [badge(f"{count(gone, 'row')} dropped", "warn")] if gone > 0 else []
    if report.rows_changed:
        marks.append(badge(f"{count(report.rows_changed, 'row')} changed", "busy"))
    marks += [badge(visible(f"{name}: {number:,}", 80)) for name, number in report.counts.items()]
    nothing = badge(f"nothing to do in {count(report.rows_in, 'row')}")
    head = Markup('<p class="ts-step-counts">{}</p>').format(join(marks or [nothing], " "))
    if not report.samples:
        return head
    first, *others = map(change, report.samples)
    shown = Markup('<ul class="ts-changes">{}</ul>').format(first)
    if not others:
        return head + shown
    more = Markup('<ul class="ts-changes">{}</ul>').format(join(others))
    return head + shown + details(f"{len(others)} more for example", more)


def change(sample: Change) -> Markup:
    """Show a row before and after a step, with what differs marked.

    Args:
        sample: of a report.

    Returns:
        A list item.
    """
    if sample.after is None:
        text = Markup('<del>{}</del> <span class="ts-soft">dropped</span>').format(
            visible(sample.before) or "(empty)"
        )
    else:
        text = marked_difference(sample.before, sample.after)
    return Markup('<li><span class="ts-soft">Row {}</span><div dir="auto">{}</div></li>').format(
        f"{sample.row:,}", text
    )


def marked_difference(before: str, after: str) -> Markup:
    """Show one text as it became another.

    Args:
        before: as it was.
        after: as it is.

    Returns:
        What left is struck out, what came is underlined; spaces among them can be seen.
    """
    old, new = (re.split(r"(\s+)", visible(text)) for text in (before, after))
    parts: list[object] = []
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    for kind, start, end, new_start, new_end in matcher.get_opcodes():
        left, came = "".join(old[start:end]), "".join(new[new_start:new_end])
        if kind == "equal":
            parts.append(left)
            continue
        if left:
            parts.append(Markup("<del>{}</del>").format(_seen(left)))
        if came:
            parts.append(Markup("<ins>{}</ins>").format(_seen(came)))
    return join(parts)


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


def tokens(item: PreviewItem, *, with_borders: bool) -> Markup:
    """Show an example as the model reads it.

    Args:
        item: the example.
        with_borders: whether each token is set apart.

    Returns:
        Text in which what the loss sees is marked, and a line that counts.
    """
    groups: list[tuple[tuple[bool, bool], list[TokenPiece]]] = []
    for piece in item.pieces:
        kind = (piece.supervised, piece.special)
        if not groups or groups[-1][0] != kind:
            groups.append((kind, []))
        groups[-1][1].append(piece)
    parts = []
    for (supervised, special), pieces in groups:
        if with_borders:
            text = join(
                Markup('<span data-token title="token {}">{}</span>').format(
                    piece.id, with_breaks(piece.text)
                )
                for piece in pieces
            )
        else:
            text = with_breaks("".join(piece.text for piece in pieces))
        text = Markup("<i>{}</i>").format(text) if special else text
        parts.append(Markup("<mark>{}</mark>").format(text) if supervised else text)
    words = (
        f"Row {', '.join(map(str, item.source_rows))}: {count(item.num_tokens, 'token')}, "
        f"{item.num_supervised} of them learned"
    )
    return (
        _legend(
            ("plain", "read only"), ("mark", "learned: the loss sees it"),
            ("special", "marks of the tokenizer"),
        )
        + Markup('<div class="ts-tokens ts-token-borders" dir="auto" tabindex="0">{}</div>').format(
            join(parts)
        )
        + Markup('<p class="ts-soft">{}</p>').format(words)
    )  # fmt: skip


def lost(lengths: LengthReport, most_tokens: int) -> tuple[float, float]:
    """Estimate what a limit would leave out, from the bars of the histogram.

    Args:
        lengths: of all training examples.
        most_tokens: the limit.

    Returns:
        Share of the rows, and share of the tokens, that belong to longer examples.
    """
    rows = tokens_lost = tokens_all = 0.0
    for one in lengths.bins:
        middle = (one.from_tokens + one.to_tokens) / 2
        width = one.to_tokens - one.from_tokens + 1
        over = min(1.0, max(0.0, (one.to_tokens - most_tokens) / width))
        if most_tokens >= lengths.max_tokens:
            over = 0.0
        rows += over * one.count
        tokens_lost += over * one.count * middle
        tokens_all += one.count * middle
    return rows / max(1, lengths.count), tokens_lost / max(1.0, tokens_all)


def length_view(lengths: LengthReport, most_tokens: int) -> Markup:
    """Show how long the training examples are, and what a limit leaves out.

    Args:
        lengths: of all training examples.
        most_tokens: the limit.

    Returns:
        A histogram and a sentence.
    """
    rows, part = lost(lengths, most_tokens)
    bins = [(one.from_tokens, one.to_tokens + 1, one.count) for one in lengths.bins]
    told = (
        f"Half of the {lengths.count:,} training examples have at most "
        f"{figure(lengths.median_tokens)} tokens, the longest {lengths.max_tokens:,}; the base "
        f"reads {lengths.context_tokens:,} at once."
    )
    chart = histogram(
        bins, label=told, x_title="tokens in an example", cutoff=float(most_tokens), height=180
    )
    if rows:
        left = (
            f"Of the rows {percent(rows)} are longer than {most_tokens:,} tokens; they hold "
            f"{percent(part)} of all tokens. They are left out of training."
        )
        news = callout("warn", left, fix="The plan step can cut their beginning instead.")
    else:
        news = callout("good", "Every training example fits")
    return Markup("<p>{}</p>").format(told) + chart + news


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


def _seen(text: str) -> str:
    """Make spaces visible that came or went."""
    return text.replace("\n", "⏎\n").replace("\t", "⇥") if text.strip() else "".join(
        {"\n": "⏎\n", "\t": "⇥"}.get(char, "·") for char in text
    )


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


def _legend(*keys: tuple[str, str]) -> Markup:
    items = join(
        Markup('<li><span class="ts-key ts-key-{}"></span>{}</li>').format(kind, words)
        for kind, words in keys
    )
    return Markup('<ul class="ts-legend" aria-label="Colours">{}</ul>').format(items)
