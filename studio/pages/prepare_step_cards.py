"""Cleaners and augmenters as a list, with what they did to which rows, in HTML."""

import difflib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from markupsafe import Markup

from studio.web.choices import send_button
from studio.web.html import badge, details, join, visible
from studio.web.words import count
from templates.dataset import Change, StepReport


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


def _seen(text: str) -> str:
    """Make spaces visible that came or went."""
    return (
        text.replace("\n", "⏎\n").replace("\t", "⇥")
        if text.strip()
        else "".join({"\n": "⏎\n", "\t": "⇥"}.get(char, "·") for char in text)
    )
