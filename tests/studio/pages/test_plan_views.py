"""What the plan step shows, without a browser."""

import pytest

from engine.bases import BaseCard
from engine.planning.advice import MethodRow, Remedy
from studio.pages.plan_bases import base_list, large, missing_base
from studio.pages.plan_cost import cost_view, memory_bar
from studio.pages.plan_desk import Answer, Rows
from studio.pages.plan_methods import method_cards, method_table
from studio.pages.plan_settings import LIMITS, SCHEDULE, SEED, problem_of, with_setting
from studio.projects import PlanChoices
from studio.web.charts import Bar, stacked_bar
from studio.web.choices import Choice, choice_cards, send_button, sent
from templates.errors import PlanError, RunError
from tests.studio.test_planning import PLAN, cost

NAUGHTY = '"><img src=x onerror=alert(1)>'
METHODS = {
    "lora": {"title": "LoRA", "when_to_choose": "Begin here.", "servable_by": ["vLLM"]},
    "full": {"title": "Full", "when_to_choose": "With much data.", "servable_by": []},
}


def row(name: str, **changes: object) -> MethodRow:
    content = {
        "name": name, "title": METHODS[name]["title"], "family": "x", "num_trainable": 10,
        "trainable_ratio": 0.1, "peak_memory_bytes": 5_000_000, "low_seconds": 60.0,
        "high_seconds": 240.0, "adapter_bytes": 1000, "inference_overhead_ratio": 0.0,
        "overhead_words": "none", "fits": True, "blockers": (), "warnings": (), "remedies": (),
    }  # fmt: skip
    return MethodRow.model_validate({**content, **changes})


def field(name: str):  # type: ignore[no-untyped-def]
    return next(one for one in (*SCHEDULE, *LIMITS, SEED) if one.name == name)


def test_the_recommended_method_says_why_and_the_chosen_one_is_checked() -> None:
    rows = Rows((row("full", recommended_because="It suits 9 rows."), row("lora")))
    html = str(method_cards(METHODS, rows, "lora", is_ready=True))
    assert "Full is recommended" in html and "It suits 9 rows." in html
    assert html.index('value="full"') < html.index('value="lora"')
    assert html.count(" checked") == 1
    assert html.partition(" checked")[0].rindex('value="lora"') > html.index('value="full"')


def test_methods_can_be_chosen_before_their_figures_are_known() -> None:
    waiting = str(method_cards(METHODS, None, "lora", is_ready=True))
    assert "Working out" in waiting and waiting.count("<input") == 2
    assert "Looking at" in str(method_cards({}, None, "lora", is_ready=True))
    failed = Rows(error=PlanError("No rows", fix="Prepare more"))
    shown = str(method_cards(METHODS, failed, "lora", is_ready=True))
    assert "No rows" in shown and "Prepare more" in shown


def test_an_engine_that_cannot_be_asked_is_no_endless_wait() -> None:
    trouble = RunError(f"It did not start {NAUGHTY}", fix="Wait a moment")
    for methods, number in (({}, 0), (METHODS, 2)):
        html = str(method_cards(methods, None, "lora", is_ready=True, trouble=trouble))
        assert "Wait a moment" in html and ">Try again</button>" in html and "<img" not in html
        assert "Looking at" not in html and "Working out" not in html
        assert html.count("<input") == number


def test_a_method_that_does_not_fit_says_what_would_help() -> None:
    remedy = Remedy(words="Take a smaller batch.", changes={})
    rows = (row("lora", fits=False, blockers=("It needs 9 GB.",), remedies=(remedy,)),)
    html = str(method_table(METHODS, rows))
    assert "It needs 9 GB." in html and 'data-studio-value="lora 0"' in html
    assert "does not fit" in html


def test_a_method_without_an_estimate_shows_no_figures() -> None:
    html = str(method_table(METHODS, (row("lora", fits=False, peak_memory_bytes=0),)))
    assert "5.0 MB" not in html and "–" in html


def test_an_estimate_is_shown_with_its_price() -> None:
    answer = Answer(plan=PLAN, estimate=cost(low_seconds=3600.0, high_seconds=7200.0))
    html = str(cost_view(answer, 2.5, is_ready=True))
    assert "2.50–5.00" in html and "10.0 %" in html
    assert "Money" not in str(cost_view(answer, 0, is_ready=True))


def test_a_plan_that_does_not_fit_offers_every_remedy() -> None:
    remedies = tuple(Remedy(words=f"Change {name}.", changes={}) for name in "ab")
    answer = Answer(plan=PLAN, estimate=cost(blockers=("Too large.",)), remedies=remedies)
    html = str(cost_view(answer, 0, is_ready=True))
    assert "This plan does not fit" in html and "Too large." in html
    assert 'data-studio-value="- 0"' in html and 'data-studio-value="- 1"' in html


def test_without_an_answer_it_says_why_there_is_none() -> None:
    assert "Working out" in str(cost_view(None, 0, is_ready=True))
    assert "on this machine" in str(cost_view(None, 0, is_ready=False))
    wrong = Answer(error=PlanError("Rank is above the width", fix="Choose 8"))
    assert "Rank is above the width" in str(cost_view(wrong, 0, is_ready=True))


def test_memory_beyond_what_is_there_is_marked() -> None:
    memory = cost().memory
    assert "ts-over" not in str(memory_bar(memory, 7))
    over = str(memory_bar(memory, 6))
    assert "ts-over" in over and "7 bytes of 6 bytes" in over


def test_a_stacked_bar_says_its_parts_and_escapes_them() -> None:
    html = str(stacked_bar([Bar(NAUGHTY, 3)], whole=2, whole_words=NAUGHTY, label=NAUGHTY))
    assert "<img" not in html and "width:100.00%" in html and "left:66.67%" in html


def test_bases_are_grouped_and_unusable_ones_cannot_be_chosen() -> None:
    here = BaseCard(
        reference="starter", title="Starter", source="ships with the studio", is_downloaded=True
    )
    far = BaseCard(reference="a/b", title="a/b", source="recommended", download_bytes=5_000_000)
    bad = BaseCard(
        reference="/m/x", title=NAUGHTY, source="local folder", is_downloaded=True,
        problem="It wants to run its own code.", licence=NAUGHTY,
    )  # fmt: skip
    html = str(base_list([here, far, bad], "starter"))
    assert "On this machine (2)" in html and "Recommended to download (1)" in html
    assert html.count(" open>") == 1 and html.count(" disabled>") == 1
    assert "<img" not in html
    assert str(base_list([here, far, bad], "a/b")).count(" open>") == 2


def test_a_base_that_is_missing_says_how_large_it_is_and_what_it_asks() -> None:
    card = BaseCard(reference="a/b", title="a/b", source="recommended", download_bytes=5_000_000)
    assert "5.0 MB" in str(missing_base(card))
    assert "accept a licence" in str(missing_base(card.model_copy(update={"is_gated": True})))
    broken = card.model_copy(update={"problem": "Its weights are pickles."})
    assert "Its weights are pickles." in str(missing_base(broken))


@pytest.mark.parametrize(
    ("number", "words"),
    [(4_262_144, "4.3 million"), (1e9, "1 billion"), (5120, "5.1 thousand"), (12, "12")],
)
def test_large_numbers_are_words(number: float, words: str) -> None:
    assert large(number) == words


def test_settings_are_kept_right_or_wrong_and_an_empty_one_is_the_default() -> None:
    choices = PlanChoices(schedule={"epochs": 2})
    wrong = with_setting(choices, "schedule", "epochs", -1)
    assert wrong["schedule"] == {"epochs": -1}
    for empty in (None, "", []):
        assert with_setting(choices, "schedule", "epochs", empty)["schedule"] == {}
    assert with_setting(choices, "", "seed", 5)["seed"] == 5


def test_a_wrong_value_says_what_would_be_right() -> None:
    assert "Epochs cannot be -1" in problem_of(field("epochs"), -1)
    assert "1 to 4,096" in problem_of(field("batch_size"), 0)
    assert "not a number" in problem_of(field("seed"), float("inf"))
    assert problem_of(field("epochs"), None) == problem_of(field("epochs"), 3) == ""


def test_choices_are_escaped_and_heard_exactly() -> None:
    html = str(choice_cards([Choice(NAUGHTY, NAUGHTY, NAUGHTY)], NAUGHTY, target="t", label="x"))
    assert "<img" not in html and " checked" in html
    assert "<img" not in str(send_button(NAUGHTY, NAUGHTY, target="t", label=NAUGHTY))
    assert sent("a #b #12") == "a #b"
    assert sent("") == ""
