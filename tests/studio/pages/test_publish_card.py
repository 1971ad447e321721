"""The model card on the page: readable, and unable to do anything."""

import pytest

from studio.pages.publish_card import card_view, front_view, rendered, split_card

HARMFUL = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "![x](https://example.com/seen.png)",
    "[x](javascript:alert(1))",
    "<javascript:alert(1)>",
    '[x](https://example.com "\\"onmouseover=alert(1)")',
    "| a |\n| --- |\n| <b onclick=alert(1)> |",
    "```<img src=x onerror=alert(1)>\n</code><script>alert(1)</script>\n```",
    "# <svg onload=alert(1)>",
)


@pytest.mark.parametrize("text", HARMFUL, ids=[str(number) for number in range(len(HARMFUL))])
def test_nothing_in_a_card_is_run_or_fetched(text: str) -> None:
    html = str(card_view(f"---\ntitle: {text!r}\n---\n\n{text}\n")).lower()
    for forbidden in ("<script", "<img", "<svg", "<b ", 'href="javascript', '" onmouse', "src="):
        assert forbidden not in html.replace("&lt;", "").replace("src=x", "")


def test_links_tell_nobody_where_they_are_from() -> None:
    html = str(rendered("See [the base](https://example.com/base)."))
    assert 'href="https://example.com/base"' in html
    assert 'rel="noreferrer noopener nofollow"' in html and 'target="_blank"' in html


def test_headings_stand_below_those_of_the_page() -> None:
    html = str(rendered("# Title\n\n## Part\n\n##### Deep"))
    assert "<h4>Title</h4>" in html and "<h5>Part</h5>" in html and "<h6>Deep</h6>" in html


def test_tables_lists_and_code_are_shown() -> None:
    html = str(rendered("| a | b |\n|---|---|\n| 1 | 2 |\n\n- one\n\n```text\n{text}\n```\n"))
    assert '<table class="ts-table">' in html and "<td>2</td>" in html
    assert "<li>one</li>" in html and '<code class="language-text">{text}' in html


def test_what_cannot_be_seen_is_written_out() -> None:
    assert "\\u202e" in card_view("# Over\u202eturned")


def test_the_header_is_a_table() -> None:
    front = "license: mit\ntags:\n- a\n- b\nmodel-index:\n- name: x\n  results: []\n"
    html = str(front_view(front))
    assert "a, b" in html and "mit" in html and "name: x\n" in html


@pytest.mark.parametrize("front", ["a: [", "just words", "- 1\n- 2", "a: !!python/name:os.system"])
def test_a_header_that_is_none_is_shown_as_it_is(front: str) -> None:
    assert "<table" not in front_view(front)


def test_a_card_without_header_is_all_text() -> None:
    assert split_card("# Only text") == ("", "# Only text")
    assert split_card("---\nopen: end\n") == ("", "---\nopen: end\n")
    assert split_card("---\na: 1\n---\n# T") == ("a: 1", "# T")
