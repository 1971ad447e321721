import pytest
from markupsafe import escape

from engine.comparing.comparison import Arm, Pairing, sentence
from studio.pages.compare_verdict import (
    arms_table,
    classical_words,
    headline,
    search_view,
    settings_words,
    settle_words,
    verdict_view,
)
from tests.engine.comparing.test_comparison import arm, comparison

NAUGHTY = "<img src=x onerror=alert(1)>\u202e"


def with_classical(outcome: str) -> tuple[Arm, Pairing]:
    verdict = comparison(outcome).primary.verdict
    pairing = Pairing(
        candidate="tuned", reference="classical", metric="accuracy", primary=False, verdict=verdict
    )
    return arm("classical", 80), pairing


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        ("better", "Tuning helped: accuracy 71.2 % against 38.5 % for the best prompt with"),
        ("worse", "Tuning did not help: accuracy 71.2 % against 38.5 %"),
        ("cannot tell", "These test rows cannot tell whether tuning helped."),
    ],
)
def test_the_headline_says_the_outcome_before_anything_else(outcome: str, words: str) -> None:
    made = comparison(outcome)
    assert headline(made).startswith(words)
    view = str(verdict_view(made))
    assert view.index(words) < view.index(sentence(made)[:40]) < view.index("<svg")


def test_a_graded_metric_is_not_called_percent() -> None:
    arms = tuple(arm(name, value, "chrf", "chrF") for name, value in
                 (("few_shot", 30.0), ("untuned", 20.0), ("tuned", 50.0)))  # fmt: skip
    made = comparison(arms=arms, metric="chrf", task="generation")
    assert headline(made).startswith("Tuning helped: chrF 50.0 against 30.0 for")


@pytest.mark.parametrize(
    ("outcome", "more", "words"),
    [
        ("better", None, ""),
        ("worse", None, ""),
        ("cannot tell", 1840, "About 1,840 more test rows would settle it"),
        ("cannot tell", None, "no realistic number of test rows"),
    ],
)
def test_what_would_settle_it(outcome: str, more: int | None, words: str) -> None:
    found = settle_words(comparison(outcome, more))
    assert words in found and bool(found) == bool(words)


def test_a_loss_in_one_pairing_is_not_settled_by_more_rows() -> None:
    better, worse = comparison("better"), comparison("worse")
    pairings = (better.pairings[1], worse.pairings[0])
    made = comparison(pairings=pairings)
    assert made.outcome == "cannot tell" and "More test rows will hardly" in settle_words(made)


def test_a_classical_model_that_does_as_well_is_told_beside_the_verdict_and_once() -> None:
    for outcome, words in (("worse", "does better than"), ("cannot tell", "may do as well")):
        classical, pairing = with_classical(outcome)
        plain = comparison()
        made = comparison(arms=(*plain.arms, classical), pairings=(*plain.pairings, pairing))
        found = classical_words(made)
        assert found and words in found[0]
        made = made.model_copy(update={"notices": (f"A classical model. {found[1]}", "other")})
        view = str(verdict_view(made))
        assert view.count(escape(found[1])) == 1 and "other" in view
    classical, pairing = with_classical("better")
    assert classical_words(comparison(pairings=(pairing,), arms=(classical,))) is None


def test_the_table_holds_all_numbers_and_marks_the_tuned_model() -> None:
    table = str(arms_table(comparison()))
    assert "71.2" in table and "(0.0–100.0)" in table and "500.0" in table
    assert table.count("ts-marked") == 1
    assert "Tuned model" in table.split("ts-marked")[1].split("</tr>")[0]


def test_text_of_the_data_in_settings_is_harmless() -> None:
    settings = {"instruction": NAUGHTY, "num_shots": 4, "source_rows": "1, 2"}
    few_shot = arm("few_shot", 38.5).model_copy(update={"settings": settings})
    assert settings_words(few_shot).endswith("4 examples; rows 1, 2 of your table")
    view = str(
        verdict_view(comparison(arms=(few_shot, *comparison().arms[1:]), notices=(NAUGHTY,)))
    )
    assert "<img" not in view and "\\u202e" in view


def test_the_search_names_its_winner() -> None:
    search = comparison().search
    assert search is not None
    view = str(search_view(search))
    assert "38.5" in view and "on 96 validation rows" in view and "2 examples" in view
