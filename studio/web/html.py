"""Pieces of HTML that pages are made of. Every text passes through `Markup`, which escapes it."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Literal

from markupsafe import Markup, escape

Tone = Literal["plain", "good", "warn", "bad", "busy"]
_LOOK_ALIKES = str.maketrans({"*": "\u2217", "`": "\u02cb", "_": "\u02cd"})
_TONE_MARKS: dict[Tone, str] = {"plain": "i", "good": "✓", "warn": "!", "bad": "✕", "busy": "…"}


def join(parts: Iterable[object], separator: str = "") -> Markup:
    """Put pieces one after the other.

    Args:
        parts: markup, or text that is escaped.
        separator: between them; escaped too.

    Returns:
        All together.
    """
    return escape(separator).join(escape(part) for part in parts)


def visible(text: str, most_characters: int = 0) -> str:
    """Write out what cannot be seen: control and direction characters.

    Args:
        text: from a table or a model.
        most_characters: cut there, and say so with an ellipsis; 0: never.

    Returns:
        Text, line breaks kept; not escaped yet.
    """
    if most_characters and len(text) > most_characters:
        text = text[:most_characters] + "…"
    return "".join(
        char if char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co")
        else f"\\u{ord(char):04x}"
        for char in text
    )  # fmt: skip


def unmarked(text: str) -> str:
    """Take from a text what Gradio would turn into links and emphasis in the help of a field.

    There is no way to escape it there, so look-alikes take the place of its signs.

    Args:
        text: such as a sentence with a column's name.

    Returns:
        A text that reads the same.
    """
    text = re.sub(
        r"[*`]|__+|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])",
        lambda found: found[0].translate(_LOOK_ALIKES),
        text,
    )
    return text.replace("](", "]\u2060(")  # a word joiner, which nobody sees


def callout(tone: Tone, title: str, text: object = "", *, fix: str = "") -> Markup:
    """Show a message that stands out.

    Args:
        tone: what kind of news it is.
        title: the news.
        text: more about it.
        fix: what to do.

    Returns:
        A box; read out at once where it is bad news.
    """
    role = "alert" if tone == "bad" else "status"
    body = Markup("<p>{}</p>").format(text) if text else ""
    remedy = Markup('<p class="ts-fix">{}</p>').format(fix) if fix else ""
    return Markup(
        '<div class="ts-callout ts-{}" role="{}"><span class="ts-mark" aria-hidden="true">{}'
        '</span><div><p class="ts-callout-title">{}</p>{}{}</div></div>'
    ).format(tone, role, _TONE_MARKS[tone], title, body, remedy)


def badge(text: str, tone: Tone = "plain", *, title: str = "") -> Markup:
    """Show a word in a little box.

    Args:
        text: the word.
        tone: its colour.
        title: more about it, when the mouse rests there.

    Returns:
        The badge.
    """
    more = Markup(' title="{}"').format(title) if title else ""
    return Markup('<span class="ts-badge ts-{}"{}>{}</span>').format(tone, more, text)


def tiles(facts: Iterable[tuple[str, object] | tuple[str, object, str]]) -> Markup:
    """Show a few figures side by side.

    Args:
        facts: (name, figure), or with a third part that explains it.

    Returns:
        A definition list.
    """
    items = []
    for name, value, *more in facts:
        note = Markup('<dd class="ts-tile-note">{}</dd>').format(more[0]) if more else ""
        items.append(
            Markup('<div class="ts-tile"><dt>{}</dt><dd>{}</dd>{}</div>').format(name, value, note)
        )
    return Markup('<dl class="ts-tiles">{}</dl>').format(join(items))


def table(
    headings: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    caption: str,
    numeric: Iterable[int] = (),
    marked: Iterable[int] = (),
    show_caption: bool = False,
) -> Markup:
    """Show a table that scrolls sideways where the screen is narrow.

    Args:
        headings: of the columns.
        rows: cells: markup, or text that is escaped; the first one is the row's heading.
        caption: what it shows; for screen readers, unless `show_caption`.
        numeric: columns, from 0, that stand to the right.
        marked: rows, from 0, that stand out.
        show_caption: whether everybody sees the caption.

    Returns:
        The table.
    """
    right, strong = set(numeric), set(marked)

    def cell(kind: str, place: int, content: object) -> Markup:
        scope = {"th": ' scope="col"', "rh": ' scope="row"'}.get(kind, "")
        name = "td" if kind == "td" else "th"
        side = ' class="ts-number"' if place in right else ""
        return Markup(f"<{name}{scope}{side}>{{}}</{name}>").format(content)  # noqa: S704 - fixed names

    head = join(cell("th", place, text) for place, text in enumerate(headings))
    body = []
    for number, row in enumerate(rows):
        cells = join(cell("td" if place else "rh", place, text) for place, text in enumerate(row))
        mark = Markup(' class="ts-marked"') if number in strong else ""
        body.append(Markup("<tr{}>{}</tr>").format(mark, cells))
    hidden = "" if show_caption else Markup(' class="ts-unseen"')
    return Markup(
        '<div class="ts-scroll" tabindex="0" role="region" aria-label="{}"><table class="ts-table">'
        "<caption{}>{}</caption><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>"
    ).format(caption, hidden, caption, head, join(body))


def details(summary: str, content: object, *, is_open: bool = False) -> Markup:
    """Hide something until it is asked for.

    Args:
        summary: what is seen.
        content: what is hidden.
        is_open: whether it is shown from the start.

    Returns:
        A disclosure.
    """
    state = Markup(" open") if is_open else ""
    return Markup('<details class="ts-details"{}><summary>{}</summary>{}</details>').format(
        state, summary, content
    )


def empty(title: str, text: str = "") -> Markup:
    """Say that there is nothing yet, and what will be here.

    Args:
        title: what is missing.
        text: how it comes.

    Returns:
        A quiet box.
    """
    return Markup('<div class="ts-empty"><p class="ts-empty-title">{}</p><p>{}</p></div>').format(
        title, text
    )


def bar(ratio: float, words: str, *, label: str) -> Markup:
    """Show how far something is.

    Args:
        ratio: 0 to 1.
        words: what is being done.
        label: of what this is the progress, for screen readers.

    Returns:
        A progress bar with words.
    """
    percent = max(0.0, min(1.0, ratio)) * 100
    return Markup(
        '<div class="ts-progress"><div class="ts-progress-bar" role="progressbar" aria-label="{}" '
        'aria-valuemin="0" aria-valuemax="100" aria-valuenow="{:.0f}">'
        '<span style="width:{:.1f}%"></span></div><p>{}</p></div>'
    ).format(label, percent, percent, words)


def heading(title: str, text: str = "") -> Markup:
    """Head a step.

    Args:
        title: what is done here.
        text: one sentence about it.

    Returns:
        A heading.
    """
    lead = Markup('<p class="ts-lead">{}</p>').format(text) if text else ""
    return Markup('<header class="ts-heading"><h2>{}</h2>{}</header>').format(title, lead)


def section(title: str, text: str = "") -> Markup:
    """Head a part of a step.

    Args:
        title: what it shows.
        text: one sentence about it.

    Returns:
        A smaller heading.
    """
    lead = Markup('<p class="ts-lead">{}</p>').format(text) if text else ""
    return Markup('<header class="ts-section"><h3>{}</h3>{}</header>').format(title, lead)


def code(text: str, *, label: str) -> Markup:
    """Show something to copy.

    Args:
        text: such as a command.
        label: what it is.

    Returns:
        A box with a copy button.
    """
    return Markup(
        '<div class="ts-code" role="group" aria-label="{}"><pre tabindex="0"><code>{}</code></pre>'
        '<button type="button" data-studio-copy aria-label="Copy: {}">Copy</button></div>'
    ).format(label, visible(text), label)


def preformatted(text: str) -> Markup:
    """Show text of a table or a model exactly, line breaks and spaces kept.

    Args:
        text: any.

    Returns:
        A block.
    """
    return Markup('<div class="ts-pre" dir="auto">{}</div>').format(visible(text))
