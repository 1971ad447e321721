"""Choices that look like cards and are real radio buttons; and buttons inside HTML.

What is chosen goes through `page.js` into the hidden text field that a choice names, as if a person
had typed it there; the server checks it like any text. Listen to `change` of that field, and read
it with `sent`.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from markupsafe import Markup

from studio.web.html import join


@dataclass(frozen=True)
class Choice:
    """One card.

    Attributes:
        value: what is sent.
        title: its name.
        text: one or two sentences.
        badges: markup beside the title.
        facts: (name, figure) under the text.
        problem: why it cannot be chosen; empty: it can.
    """

    value: str
    title: str
    text: str = ""
    badges: Iterable[Markup] = ()
    facts: Iterable[tuple[str, str]] = ()
    problem: str = ""


def choice_cards(
    choices: Iterable[Choice], chosen: str, *, target: str, label: str, group: str = "",
    in_rows: bool = False,
) -> Markup:  # fmt: skip
    """Show things of which one can be chosen.

    Args:
        choices: the cards.
        chosen: value of the one that is chosen now.
        target: `elem_id` of the hidden text field that hears of it.
        label: what is chosen, for screen readers.
        group: several lists with the same target and group name are one choice.
        in_rows: one under the other instead of side by side.

    Returns:
        A group of radio buttons.
    """
    name = f"{target}-{group or 'choice'}"
    cards = [
        _card(choice, f"{name}-{place}-{label.replace(' ', '-')}", name, target, chosen)
        for place, choice in enumerate(choices)
    ]
    shape = " ts-in-rows" if in_rows else ""
    return Markup(
        '<fieldset class="ts-choices{}"><legend class="ts-unseen">{}</legend>{}</fieldset>'
    ).format(shape, label, join(cards))


def send_button(text: str, value: str, *, target: str, label: str = "") -> Markup:
    """Place a button inside a piece of HTML.

    Args:
        text: on it.
        value: what is sent.
        target: `elem_id` of the hidden text field that hears of it.
        label: for screen readers, where the text alone does not say enough.

    Returns:
        The button.
    """
    more = Markup(' aria-label="{}"').format(label) if label else ""
    return Markup(
        '<button type="button" class="ts-inline-button" data-studio-send="{}" '
        'data-studio-value="{}"{}>{}</button>'
    ).format(target, value, more, text)


def sent(text: str) -> str:
    """Read what a hidden text field heard.

    Args:
        text: the value with a number behind it, which makes every sending a change.

    Returns:
        The value.
    """
    return text.rpartition(" #")[0]


def _card(choice: Choice, id_: str, name: str, target: str, chosen: str) -> Markup:
    state = Markup(" checked") if choice.value == chosen else Markup("")
    if choice.problem:
        state += Markup(" disabled")
    facts = join(
        Markup("<span><b>{}</b> {}</span>").format(figure, fact) for fact, figure in choice.facts
    )
    parts = [
        Markup('<span class="{}">{}</span>').format(kind, content)
        for kind, content in (
            ("ts-choice-text", choice.text),
            ("ts-choice-problem", choice.problem),
            ("ts-choice-facts", facts),
        )
        if content
    ]
    badges = join(choice.badges, " ")
    return Markup(
        '<label class="ts-choice"><input type="radio" name="{}" value="{}" '
        'data-studio-send="{}" aria-labelledby="{}-title" aria-describedby="{}-more"{}>'
        '<span class="ts-choice-body"><span class="ts-choice-head"><span class="ts-choice-title" '
        'id="{}-title">{}</span>{}</span><span id="{}-more">{}</span></span></label>'
    ).format(
        name, choice.value, target, id_, id_, state, id_, choice.title, badges, id_, join(parts)
    )
