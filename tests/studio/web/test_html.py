"""Whatever a table or a model says stays text."""

import re
from collections.abc import Callable

import pytest
from markupsafe import Markup

from studio.web import html
from studio.web.charts import (
    Bar,
    Interval,
    Series,
    bars,
    heat_table,
    histogram,
    interval_plot,
    line_chart,
    sparkline,
    split_bar,
)

NAUGHTY = """<img src=x onerror="alert(1)">'"</script>{0}{{x}}${alert(1)}&amp;\u202e"""

PIECES: dict[str, Callable[[str], Markup]] = {
    "callout": lambda text: html.callout("bad", text, text, fix=text),
    "badge": lambda text: html.badge(text, title=text),
    "tiles": lambda text: html.tiles([(text, text, text)]),
    "table": lambda text: html.table([text, text], [[text, text]], caption=text),
    "details": lambda text: html.details(text, text),
    "empty": lambda text: html.empty(text, text),
    "bar": lambda text: html.bar(0.5, text, label=text),
    "heading": lambda text: html.heading(text, text),
    "section": lambda text: html.section(text, text),
    "code": lambda text: html.code(text, label=text),
    "preformatted": html.preformatted,
    "line_chart": lambda text: line_chart(
        [Series(text, [(1, 2), (2, 3)], is_dotted=True), Series(text, [(1, 2)])],
        label=text, x_title=text,
    ),
    "histogram": lambda text: histogram([(0, 1, 2)], label=text, x_title=text, cutoff=0.5),
    "bars": lambda text: bars([Bar(text, 1, text)], label=text),
    "sparkline": lambda text: sparkline([1, 2], label=text),
    "split_bar": lambda text: split_bar([(text, 3)], label=text),
    "interval_plot": lambda text: interval_plot(
        [Interval(text, 1, 0, 2, text)], label=text, x_title=text
    ),
    "heat_table": lambda text: heat_table(
        [text], [text], [[3]], label=text, row_title=text, column_title=text
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PIECES)
def test_every_piece_escapes_what_it_is_given(name: str) -> None:
    markup = str(PIECES[name](NAUGHTY))

    assert "<img" not in markup and "</script>" not in markup
    assert 'onerror="' not in markup
    assert "{0}" in markup or "\u202e" in markup or "alert" in markup  # it is there, as text


def test_invisible_characters_are_written_out() -> None:
    assert html.visible("a\u202eb\x00c\nd\te\u200b") == "a\\u202eb\\u0000c\nd\te\\u200b"
    assert html.visible("abcdef", 3) == "abc…"
    assert html.visible("مرحبا 👩‍💻"[:5]) == "مرحبا"


def test_a_chart_is_drawn_whatever_the_numbers_are() -> None:
    nan, inf = float("nan"), float("inf")
    for points in ([], [(0, nan)], [(1, 5)], [(1, 5), (2, 5)], [(1, nan), (2, inf), (3, 1e-300)],
                   [(0, -1e300), (1, 1e300)], [(0, 0)]):  # fmt: skip
        drawing = str(line_chart([Series("loss", points)], label="loss"))
        assert "nan" not in drawing and "inf" not in drawing.replace("information", "")
    assert str(histogram([], label="lengths", x_title="tokens")) == ""
    assert "nan" not in str(histogram([(3, 3, 0)], label="lengths", x_title="tokens"))
    assert "nan" not in str(interval_plot([Interval("a", 0, 0, 0)], label="a", x_title="points"))


def test_a_gap_in_a_curve_is_not_bridged() -> None:
    nan = float("nan")
    drawing = str(line_chart([Series("loss", [(1, 1), (2, nan), (3, 1), (4, 2)])], label="loss"))

    assert drawing.count("<polyline") == 2


@pytest.mark.parametrize(
    "text",
    ["[Reload](https://evil.example)", "**a** *b*", "__label__ _id_ _x", "`code`", "[a]([b](c))"],
)
def test_help_text_holds_no_links_and_no_emphasis(text: str) -> None:
    shown = html.unmarked(f"no column {text!r} here")
    for sign in (  # as Gradio reads the help of a field
        r"`([^`]+)`", r"\[([^\]]+)\]\(([^)]+)\)", r"\*\*(.+?)\*\*", r"__(.+?)__", r"\*(.+?)\*",
        r"(?<!\w)_(.+?)_(?!\w)",
    ):  # fmt: skip
        assert not re.search(sign, shown, re.ASCII)


def test_help_text_without_signs_stays() -> None:
    text = "The column 'order_id' (x) [y] has 1,200 values & <b>."
    assert html.unmarked(text) == text
