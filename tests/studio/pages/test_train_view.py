from pathlib import Path

import pytest

from data_prep.curves import Curves, EvaluationCurve, StepCurve
from engine.events import (
    Evaluated,
    Event,
    Failed,
    Finished,
    Launched,
    Noticed,
    Sample,
    Stamped,
    Started,
    Stopped,
)
from engine.plan import BaseChoice, MethodChoice, Schedule, TrainPlan
from studio.jobs.run_story import Story
from studio.pages.train_charts import loss_chart, overlay_chart, pace_charts, smoothed
from studio.pages.train_log import log_view, planned_steps, raw_log, sentences
from studio.pages.train_runs import method_words
from studio.pages.train_samples import agrees, ending, samples_view
from studio.pages.train_view import base_words, plan_notice, plan_sentence

_NAUGHTY = "<img src=x onerror=alert(1)>"
_PLAN = TrainPlan(
    base=BaseChoice(id="starter"), dataset_id="ds-1", dataset_sha256="0" * 64,
    method=MethodChoice(name="prompt_tuning", options={"is_new": True, "num_tokens": 1200}),
    schedule=Schedule(learning_rate=0.01, epochs=3),
)  # fmt: skip


def curve(num_points: int) -> StepCurve:
    steps = tuple(range(1, num_points + 1))
    losses = tuple(float(step % 2) for step in steps)  # up and down
    flat = (0.001,) * num_points
    return StepCurve(steps, losses, losses, losses, flat, flat, (100.0,) * num_points)


def story(*events: Event) -> Story:
    return Story(tuple(Stamped(event, 1e9, 1.0) for event in events))


def test_a_long_curve_is_smoothed_and_its_band_keeps_the_extremes() -> None:
    mean, band = smoothed(curve(400))

    assert len(mean) == 400
    assert all(0.4 < loss < 0.6 for _, loss in mean)
    assert all((low, high) == (0.0, 1.0) for _, low, high in band)


def test_a_short_curve_stays_as_it_is() -> None:
    assert [loss for _, loss in smoothed(curve(5))[0]] == [1, 0, 1, 0, 1]


def test_the_loss_is_drawn_with_words_for_those_who_do_not_see_it() -> None:
    drawn = loss_chart(Curves(curve(10), EvaluationCurve((5,), (0.25,), (0.9,), (True,))), 20)

    assert "Training: 1 at first, 0 now" in drawn
    assert "Validation at 5: 0.25" in drawn
    assert ">20</text>" in drawn  # the axis ends where the run will


def test_nothing_to_draw_is_said() -> None:
    assert "No step taken yet" in loss_chart(Curves(), 20)
    assert pace_charts(StepCurve(), 20) == ""
    assert "Nothing to lay over" in overlay_chart((("one", EvaluationCurve()),))


def test_names_of_runs_are_text_in_a_chart() -> None:
    drawn = overlay_chart(((_NAUGHTY, EvaluationCurve((1,), (1.0,), (0.5,), (True,))),) * 2)
    assert "<img" not in drawn
    assert "&lt;img" in drawn


@pytest.mark.parametrize(
    ("answer", "expected", "same"),
    [("Billing", " billing\n", True), ("a  b", "a b", True), ("", "billing", False)],
)
def test_case_and_spacing_make_no_difference(answer: str, expected: str, same: bool) -> None:
    assert agrees(answer, expected) is same


def test_a_prompt_is_known_by_its_end() -> None:
    assert ending("a" * 50 + "the question", 12) == "…the question"
    assert ending("short ", 12) == "short"


def test_a_wrong_label_is_wrong_but_other_words_only_differ() -> None:
    now = (Sample("p", "billing", "shipping", (2,)),)
    before = (Sample("p", "billing", "billing", (2,)),)

    as_label = samples_view(before, now, 10, is_label_task=True)
    assert as_label.index("right") < as_label.index("After 10 steps") < as_label.index("wrong")
    as_text = samples_view(before, now, 10, is_label_task=False)
    assert "differs" in as_text
    assert "wrong" not in as_text


def test_texts_of_models_are_text() -> None:
    now = (Sample(_NAUGHTY, _NAUGHTY, "\u202e" + _NAUGHTY, (2,)),)
    shown = samples_view((), now, 10, is_label_task=True)
    assert "<img" not in shown
    assert "\u202e" not in shown


def test_what_happened_is_told_newest_first_and_escaped() -> None:
    told = log_view(
        story(Started(20, 1, 4, 100), Noticed(_NAUGHTY), Evaluated(5, 0.5, 0.9, True, 1.0))
    )
    assert told.index("the best so far") < told.index("&lt;img") < told.index("4 of its 100")
    assert "<img" not in told


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (Launched(1, 1, "b", 0, until_step=1200), "pause at step 1,200"),
        (Started(20, 11, 4, 100), "goes on with step 11 of 20"),
        (Started(20, 1, 4, 0), "4 of its 0"),
        (Stopped(0), "Stopped."),
        (Stopped(7), "up to step 7 is saved"),
        (Failed("Memory ran out", "Take a smaller base"), "Memory ran out. Take a smaller base."),
        (Finished(9, 6, 0.25, "done", 65.0, 2_000_000), "9 steps in 1 min 5 s with at most 2.0 MB"),
    ],
    ids=["pause", "resumed", "empty", "stopped", "saved", "failed", "finished"],
)
def test_events_are_sentences(event: Event, words: str) -> None:
    assert words in " ".join(sentences(event))


def test_the_planned_end_is_known_while_the_model_is_loaded_again() -> None:
    assert planned_steps(story(Started(20, 1, 4, 100), Stopped(5), Launched(1, 1, "b", 0))) == 20
    assert planned_steps(Story()) == 0


def test_of_a_long_log_the_end_is_shown(tmp_path: Path) -> None:
    assert raw_log(tmp_path) == ""
    (tmp_path / "worker.log").write_bytes(b"begin\n" + b"x" * 80 + b"\n" + b"\xff line\n" * 4000)
    shown = raw_log(tmp_path)
    assert "begin" not in shown
    assert shown.endswith("\ufffd line\n")
    assert len(shown) < 20_000


def test_a_plan_is_one_line() -> None:
    assert method_words(_PLAN) == "prompt tuning, num tokens 1,200"
    assert plan_sentence(_PLAN, None, None) == (
        "Method: prompt tuning, num tokens 1,200. Base: the starter model. 3 passes over the data."
    )
    own = _PLAN.model_copy(update={"base": BaseChoice(id="/models/private/mine")})
    assert base_words(own) == "mine"  # nobody needs to see where it lies


def test_a_newer_plan_old_data_and_a_line_are_said() -> None:
    told = plan_notice(
        _PLAN, is_old_data=True, has_older_run=True, is_trained=False, num_in_front=2,
        estimate=None,
    )  # fmt: skip
    assert "prepared again" in told
    assert "newer than your last run" in told
    assert "2 other jobs" in told
    trained = plan_notice(
        _PLAN, is_old_data=False, has_older_run=True, is_trained=True, num_in_front=2,
        estimate=None,
    )  # fmt: skip
    assert trained == ""
