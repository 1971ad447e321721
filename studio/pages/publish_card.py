"""The model card as it will look: Markdown as safe HTML; nothing is fetched, nothing is run."""

from collections.abc import Mapping
from typing import Any

import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

from studio.web.html import details, join, preformatted, table, visible

_FENCE = "---\n"
_LEVELS_DOWN = 3  # the page's own headings stand above
_DEEPEST = 6


def card_view(card: str) -> Markup:
    """Show a model card.

    Args:
        card: Markdown with YAML front matter.

    Returns:
        The text as others will read it, and what the Hub reads below it.
    """
    front, body = split_card(visible(card))
    document = Markup(
        '<div class="ts-card-page" tabindex="0" role="region" aria-label="Model card">{}</div>'
    ).format(rendered(body))
    if not front:
        return document
    return join((document, details("What the Hub reads: the card's header", front_view(front))))


def split_card(card: str) -> tuple[str, str]:
    """Part a card's header from its text.

    Args:
        card: Markdown, perhaps with YAML front matter.

    Returns:
        YAML, empty where there is none; and Markdown.
    """
    if card.startswith(_FENCE):
        front, fence, body = card.removeprefix(_FENCE).partition(f"\n{_FENCE}")
        if fence:
            return front, body
    return "", card


def rendered(text: str) -> Markup:
    """Turn Markdown into HTML that can do nothing.

    Args:
        text: Markdown; HTML in it is shown as text, and images are not loaded.

    Returns:
        Headings, paragraphs, lists, tables, code and links that tell nobody where they are from.
    """
    reader = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    tokens = reader.parse(text)
    for token in _all(tokens):
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(_DEEPEST, int(token.tag[1:]) + _LEVELS_DOWN)}"
        elif token.type == "table_open":
            token.attrSet("class", "ts-table")
        elif token.type == "link_open":
            token.attrSet("rel", "noreferrer noopener nofollow")
            token.attrSet("target", "_blank")
    # Every text has been escaped by the renderer, and it writes no tags but its own. Code scrolls
    # sideways, and the keyboard shall reach it.
    page = reader.renderer.render(tokens, reader.options, {})
    return Markup(page.replace("<pre>", '<pre tabindex="0">'))  # noqa: S704


def front_view(front: str) -> Markup:
    """Show a card's header.

    Args:
        front: YAML.

    Returns:
        A table; the YAML itself where it is no list of names and values.
    """
    try:
        content = yaml.safe_load(front)
    except yaml.YAMLError:
        return preformatted(front)
    if not isinstance(content, Mapping):
        return preformatted(front)
    rows = [(str(name), _value(value)) for name, value in content.items()]
    return table(("Name", "Value"), rows, caption="Header of the model card")


def _value(value: Any) -> object:
    if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
        return ", ".join(map(str, value))
    if isinstance(value, list | dict):
        return preformatted(yaml.safe_dump(value, sort_keys=False, allow_unicode=True).rstrip())
    return str(value)


def _all(tokens: list[Token]) -> list[Token]:
    return [inner for token in tokens for inner in (token, *(token.children or ()))]
