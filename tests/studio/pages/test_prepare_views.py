"""What the prepare step says about rows, in HTML."""

import re

import pytest

from data_prep.rehearsal import Rehearsal, ShownFinding, ShownRow
from data_prep.upload import Column
from engine.planning.shown import LengthBin, LengthReport, PreviewItem, TokenPiece
from studio.pages.prepare_lengths import length_view, lost, tokens
from studio.pages.prepare_step_cards import StepCard, marked_difference, step_cards
from studio.pages.prepare_views import (
    column_cards,
    findings,
    label_words,
    rendered,
    split_view,
)
from templates.builtin import TEMPLATES
from templates.dataset import Change, StepReport

NAUGHTY = "<img src=x onerror=alert(1)>\u202e\"'&"


def column(name: str, *samples: str) -> Column:
    return Column(
        name=name, kind="text", num_empty=0, num_distinct=2, min_characters=1, mean_characters=3,
        max_characters=5, samples=samples,
    )  # fmt: skip


def lengths(*bins: tuple[int, int, int]) -> LengthReport:
    return LengthReport(
        count=sum(count for *_, count in bins), min_tokens=bins[0][0], median_tokens=15,
        p95_tokens=19, max_tokens=bins[-1][1], context_tokens=512, num_over_context=0,
        supervised_ratio=0.2,
        bins=tuple(LengthBin(from_tokens=a, to_tokens=b, count=n) for a, b, n in bins),
    )  # fmt: skip


def card(report: StepReport | None = None, **changes: object) -> StepCard:
    settings: dict[str, object] = {"is_on": True, "is_first": False, "is_last": False}
    return StepCard("steps", "trim", "Trim", "Trims.", report=report, **{**settings, **changes})  # type: ignore[arg-type]


def report(**changes: object) -> StepReport:
    content = {"step": "trim", "rows_in": 10, "rows_out": 8, "rows_changed": 1, **changes}
    return StepReport.model_validate(content)


def test_texts_of_the_table_are_never_markup() -> None:
    sample = Change(row=3, before=NAUGHTY, after=f"{NAUGHTY}!")
    gone = Change(row=4, before=NAUGHTY, after=None)
    seen = report(samples=(sample, gone), counts={NAUGHTY: 1})
    template = TEMPLATES["classification"].model_copy(update={"verbalizer": {NAUGHTY: NAUGHTY}})
    item = PreviewItem(
        pieces=(TokenPiece(id=1, text=NAUGHTY, supervised=True, special=False),), num_tokens=1,
        num_supervised=1, num_virtual_tokens=0, source_rows=(1,),
    )  # fmt: skip
    found = Rehearsal(
        reports=(), findings=(ShownFinding(sentence=NAUGHTY, is_error=True),), num_examples=1,
        label_counts={NAUGHTY: 1}, examples=(), splits=None,
    )  # fmt: skip
    views = [
        column_cards([column(NAUGHTY, NAUGHTY)], {"text": NAUGHTY}, ["text", NAUGHTY], target="x"),
        rendered([ShownRow(prompt=NAUGHTY, completion=NAUGHTY, source_rows=(1,))]),
        label_words({NAUGHTY: 1}, template, target="x"),
        step_cards([card(seen)], switch="x", move="y", label="Steps"),
        tokens(item, with_borders=True), tokens(item, with_borders=False),
        findings(found, is_part=True), split_view(None, {NAUGHTY: 3}, is_part=True),
        marked_difference(NAUGHTY, f"{NAUGHTY} {NAUGHTY}"),
    ]  # fmt: skip
    for view in views:
        text = re.sub(r'(data-studio-(name|value)|value)="[^"]*"', "", str(view))
        assert "<img" not in str(view)
        assert "\u202e" not in text
        assert "\\u202e" in text or "data-studio" in str(view)


def test_a_difference_marks_what_left_and_what_came() -> None:
    shown = str(marked_difference("call 0171 now ", "call [PHONE] now"))
    assert "<del>0171</del><ins>[PHONE]</ins>" in shown
    assert "<del>·</del>" in shown
    assert shown.startswith("call ")


def test_a_step_tells_what_it_did() -> None:
    shown = str(step_cards([card(report())], switch="x", move="y", label="Steps"))
    assert "2 rows dropped" in shown
    assert "1 row changed" in shown
    assert "nothing to do" not in shown
    idle = report(rows_out=10, rows_changed=0)
    assert "nothing to do in 10 rows" in str(
        step_cards([card(idle)], switch="x", move="y", label="Steps")
    )


def test_only_steps_that_are_on_can_be_moved() -> None:
    cards = [card(is_first=True), card(is_last=True), card(is_on=False)]
    shown = str(step_cards(cards, switch="x", move="y", label="Steps"))
    assert shown.count("Move up") == 1
    assert shown.count("Move down") == 1


def test_what_a_limit_loses() -> None:
    report = lengths((1, 10, 50), (11, 20, 50))
    assert lost(report, 20) == (0, 0)
    rows, part = lost(report, 10)
    assert rows == pytest.approx(0.5)
    assert part == pytest.approx(15.5 / 21)
    assert lost(report, 15)[0] == pytest.approx(0.25)
    assert "Every training example fits" in str(length_view(report, 20))
    assert "50.0 %" in str(length_view(report, 10))


def test_the_longest_example_counts_as_fitting_though_its_bar_is_wider() -> None:
    report = lengths((1, 10, 50), (11, 22, 50)).model_copy(update={"max_tokens": 20})
    assert lost(report, 20) == (0, 0)


def test_tokens_of_one_kind_share_a_mark() -> None:
    pieces = tuple(
        TokenPiece(id=number, text=text, supervised=supervised, special=special)
        for number, (text, supervised, special) in enumerate(
            [("a", False, False), ("b", True, False), ("c", True, False), ("<end>", True, True)]
        )
    )
    item = PreviewItem(
        pieces=pieces, num_tokens=4, num_supervised=3, num_virtual_tokens=0, source_rows=(2,)
    )
    shown = str(tokens(item, with_borders=False))
    assert "a<mark>bc</mark><mark><i>&lt;end&gt;</i></mark>" in shown
    assert str(tokens(item, with_borders=True)).count("data-token") == 4
    assert "Row 2: 4 tokens, 3 of them learned" in shown


def test_counts_of_a_part_of_the_table_say_so() -> None:
    assert "first 5,000 rows" in str(split_view(None, {"a": 1}, is_part=True))
    assert "first 5,000 rows" not in str(split_view(None, {"a": 1}, is_part=False))
