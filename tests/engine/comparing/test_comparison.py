import subprocess
import sys

import numpy as np
import pytest

from engine.comparing.comparison import (
    Arm,
    Comparison,
    Interval,
    Pairing,
    Prediction,
    Score,
    Search,
    Trial,
    Verdict,
    pairing_sentence,
    read_comparison,
    read_predictions,
    sentence,
    write_comparison,
    write_predictions,
)
from engine.comparing.metrics import score
from engine.comparing.statistics import verdict
from templates.errors import RunError


def arm(name: str, value: float, metric: str = "accuracy", title: str = "accuracy") -> Arm:
    scores = (Score(metric=metric, title=title, value=value, interval=Interval(low=0, high=100)),)
    return Arm(name=name, title=name, kind="prompt", scores=scores, seconds_per_item=0.5)


def comparison(outcome: str = "better", more: int | None = None, **changes) -> Comparison:
    verdict = Verdict(
        outcome=outcome, difference=32.7, interval=Interval(low=24.1, high=41.0), p_value=0.0002,
        test="McNemar", num_rows=1156, more_rows_needed=more,
    )  # fmt: skip
    content = {
        "dataset_id": "d", "dataset_sha256": "0", "base_id": "starter", "run_id": "r",
        "task": "classification", "metric": "accuracy", "num_rows": 1156,
        "arms": (arm("few_shot", 38.5), arm("untuned", 20), arm("tuned", 71.2)),
        "pairings": (
            Pairing(candidate="tuned", reference="untuned", metric="accuracy", primary=False,
                    verdict=verdict),
            Pairing(candidate="tuned", reference="few_shot", metric="accuracy", primary=True,
                    verdict=verdict),
        ),
        "test_looks": 1, "seed": 0, "seconds": 1.5,
        "search": Search(
            metric="accuracy", first_rows=32, lowest=20, highest=40, deviation=5,
            trials=(Trial(num_shots=2, draw=0, selection="random", order="drawn", instruction=True,
                          context_tokens=30, score=38.5, first_score=40, num_rows=96,
                          chosen=True),),
        ),
        **changes,
    }  # fmt: skip
    return Comparison(**content)


def test_a_win_in_plain_words():
    assert sentence(comparison()) == (
        "The tuned model is better than the best prompt with examples: 71.2 % against 38.5 % "
        "correct, difference +32.7 points (95 % interval 24.1 to 41.0, McNemar p < 0.001, "
        "1,156 test rows)."
    )


def test_a_loss_in_plain_words():
    assert sentence(comparison("worse")).startswith("The tuned model is worse than the best prompt")


def test_cannot_tell_says_what_it_would_take():
    text = sentence(comparison("cannot tell", 3200))
    assert text.startswith("These rows cannot tell the tuned model from the best prompt")
    assert text.endswith("About 3,200 more test rows would be needed to tell.")
    assert "could not be settled by any realistic number" in sentence(comparison("cannot tell"))


def test_other_metrics_are_named():
    arms = (arm("zero_shot", 30, "chrf", "chrF"), arm("tuned", 62.3, "chrf", "chrF"))
    verdict = comparison().primary.verdict
    pairing = Pairing(
        candidate="tuned", reference="zero_shot", metric="chrf", primary=True, verdict=verdict
    )
    value = comparison(metric="chrf", arms=arms, pairings=(pairing,))
    assert "chrF 62.3 against 30.0, difference" in pairing_sentence(value, pairing)


def test_no_credit_for_tuning_without_progress_over_the_base():
    verdict = comparison().primary.verdict
    same = verdict.model_copy(update={"outcome": "cannot tell", "difference": 0.0})
    before, primary = comparison().pairings
    value = comparison(pairings=(before.model_copy(update={"verdict": same}), primary))
    assert primary.verdict.outcome == "better"
    assert value.outcome == "cannot tell"
    assert sentence(value).startswith("It cannot be told whether tuning helped")
    assert "the untuned model with the same prompt" in sentence(value)
    assert comparison("worse").outcome == "worse"


def test_look_ups():
    value = comparison()
    assert value.arm("tuned").value("accuracy") == 71.2
    assert value.primary.reference == "few_shot"


def test_json_round_trip(tmp_path):
    path = tmp_path / "comparison.json"
    write_comparison(path, comparison())
    assert read_comparison(path) == comparison()


def test_a_missing_or_damaged_comparison_is_a_sentence(tmp_path):
    path = tmp_path / "comparison.json"
    with pytest.raises(RunError, match=r"no readable comparison.*comparison.json.*Run compare"):
        read_comparison(path)
    path.write_text('{"metric": 1}')
    with pytest.raises(RunError, match="is missing"):
        read_comparison(path)


def test_predictions_round_trip(tmp_path):
    path = tmp_path / "predictions.jsonl"
    rows = [
        Prediction(item=0, source_rows=(7,), fields={"text": "a\nb"}, expected=("x",),
                   outputs={"tuned": "y"}, scores={"tuned": 0.0}),
        Prediction(item=1, source_rows=(8, 9), fields={}, expected=("x", "y"),
                   outputs={"tuned": ""}, scores={"tuned": None}),
    ]  # fmt: skip
    write_predictions(path, rows)
    assert list(read_predictions(path)) == rows
    path.write_text(path.read_text() + "{torn")
    with pytest.raises(RunError, match=r"damaged.*predictions.jsonl, line 3.*Run compare again"):
        list(read_predictions(path))


def test_reading_a_comparison_needs_no_torch():
    heavy = "'torch' in sys.modules or 'scipy' in sys.modules"
    code = f"import sys, engine.comparing.comparison; sys.exit({heavy})"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def judged(name: str, tuned, other, *, primary: bool) -> Pairing:
    truth = [("right",)] * len(tuned)

    def result(rights):
        answers = ["right" if right else "wrong" for right in rights]
        return score("exact_match", answers, truth)

    return Pairing(
        candidate="tuned", reference=name, metric="exact_match", primary=primary,
        verdict=verdict(result(tuned), result(other), seed=0, num_draws=500),
    )  # fmt: skip


def test_choosing_the_luckiest_of_many_prompts_does_not_make_tuning_look_better():
    """Tuned is as good as zero-shot; the opponent is the best of 40 weaker prompts by luck."""
    generator = np.random.default_rng(7)
    false_alarms, primary_alarms = 0, 0
    for _ in range(200):
        quality = generator.normal(0.55, 0.05, 40)
        on_validation = generator.binomial(100, quality) / 100
        best = int(on_validation.argmax())
        zero_shot_score = generator.binomial(100, 0.65) / 100
        rows = 1000
        tuned, zero_shot = generator.random((2, rows)) < 0.65
        few_shot = generator.random(rows) < quality[best]
        few_is_opponent = on_validation[best] > zero_shot_score
        value = comparison(
            pairings=(
                judged("zero_shot", tuned, zero_shot, primary=not few_is_opponent),
                judged("few_shot", tuned, few_shot, primary=few_is_opponent),
            )
        )
        false_alarms += value.outcome == "better"
        primary_alarms += value.primary.verdict.outcome == "better"
    assert false_alarms <= 0.05 * 200
    assert primary_alarms > false_alarms, "the simulation must contain what the rule guards against"


def test_a_win_over_the_opponent_alone_is_not_enough():
    won = comparison().primary.verdict
    lost = won.model_copy(update={"outcome": "cannot tell", "difference": 1.0})
    value = comparison(
        arms=(arm("few_shot", 38.5), arm("zero_shot", 70.2), arm("tuned", 71.2)),
        pairings=(
            Pairing(candidate="tuned", reference="zero_shot", metric="accuracy", primary=False,
                    verdict=lost),
            Pairing(candidate="tuned", reference="few_shot", metric="accuracy", primary=True,
                    verdict=won),
        ),
    )  # fmt: skip
    assert value.outcome == "cannot tell"
    text = sentence(value)
    assert text.startswith("It cannot be told whether tuning helped")
    assert "cannot tell the tuned model from the prompt without examples" in text
