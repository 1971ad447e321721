import numpy as np
import pytest

from engine.comparing.metrics import result_from_scores, score
from engine.comparing.statistics import (
    difference_draws,
    discordant,
    interval,
    mcnemar,
    more_rows_needed,
    permutation_p,
    verdict,
)


def binary(values) -> object:
    return result_from_scores("accuracy", np.asarray(values, dtype=float))


def table(both: int, only_ours: int, only_theirs: int, neither: int) -> tuple[object, object]:
    ours = [1] * both + [1] * only_ours + [0] * only_theirs + [0] * neither
    theirs = [1] * both + [0] * only_ours + [1] * only_theirs + [0] * neither
    return binary(ours), binary(theirs)


@pytest.mark.parametrize(
    ("only_ours", "only_theirs", "expected"),
    [(5, 15, 0.0414), (15, 5, 0.0414), (0, 6, 0.03125), (0, 5, 0.0625), (7, 7, 1.0), (0, 0, 1.0)],
)
def test_mcnemar_by_hand(only_ours, only_theirs, expected):
    assert mcnemar(only_ours, only_theirs) == pytest.approx(expected, abs=5e-5)


def test_a_clear_win_by_hand():
    ours, theirs = table(both=40, only_ours=15, only_theirs=2, neither=43)
    assert discordant(ours, theirs) == (15, 2)
    result = verdict(ours, theirs, seed=0)
    assert result.outcome == "better"
    assert result.difference == pytest.approx(13)
    # Normal approximation: 13 +- 1.96 * sqrt(17/100 - 0.13^2) / 10 * 100 = 5.3 to 20.7
    assert result.interval.low == pytest.approx(5.3, abs=0.8)
    assert result.interval.high == pytest.approx(20.7, abs=0.8)
    assert result.p_value == pytest.approx(0.00235, abs=1e-5)
    assert (result.test, result.num_rows, result.more_rows_needed) == ("McNemar", 100, None)
    assert verdict(theirs, ours, seed=0).outcome == "worse"


def test_five_against_fifteen_is_significant_and_the_interval_agrees():
    ours, theirs = table(both=30, only_ours=15, only_theirs=5, neither=50)
    result = verdict(ours, theirs, seed=0)
    assert result.outcome == "better" and result.interval.low > 0
    assert result.p_value == pytest.approx(0.0414, abs=5e-5)


def test_few_rows_in_full_agreement_cannot_tell():
    ours, theirs = table(both=0, only_ours=5, only_theirs=0, neither=0)
    result = verdict(ours, theirs, seed=0)  # the interval is 100 to 100: it must not decide alone
    assert result.outcome == "cannot tell"
    assert result.p_value == 0.0625
    assert result.more_rows_needed == 1  # six of six would do


@pytest.mark.parametrize("metric", ["accuracy", "token_f1"])
def test_an_arm_against_itself_cannot_tell_and_differs_by_exactly_zero(metric):
    scores = np.random.default_rng(0).integers(0, 2, 57) / (1 if metric == "accuracy" else 3)
    result = verdict(result_from_scores(metric, scores), result_from_scores(metric, scores), seed=1)
    assert result.outcome == "cannot tell"
    assert result.difference == 0 == result.interval.low == result.interval.high
    assert result.p_value == 1
    assert result.more_rows_needed is None


def test_rows_needed_by_hand():
    # ((1.95996 + 0.84162) * 50 / 10)^2 = 196.2; 100 at hand
    assert more_rows_needed(10, 50, 100) == 97
    assert more_rows_needed(-10, 50, 100) == 97
    assert more_rows_needed(10, 50, 100, is_binary=True) == 120  # 196.2 + 20 - 100, two digits
    assert more_rows_needed(1, 50, 100) == 20_000  # 19,522 - 100, two digits
    assert more_rows_needed(0.3, 50, 100) is None
    assert more_rows_needed(0, 50, 100) is None


def test_rows_needed_give_the_promised_power():
    draw = np.random.default_rng(0)
    more = more_rows_needed(20, 100 * np.sqrt(0.5 - 0.04), 50, is_binary=True)
    wins = 0
    for _ in range(300):
        kind = draw.choice([1, -1, 0], size=50 + more, p=[0.35, 0.15, 0.5])
        ours, theirs = binary(kind == 1), binary(kind == -1)
        wins += verdict(ours, theirs, seed=0, num_draws=500).outcome == "better"
    assert wins / 300 == pytest.approx(0.8, abs=0.08)


@pytest.mark.parametrize(
    ("kind", "num_rows"),
    [("binary", 20), ("binary", 50), ("binary", 200), ("continuous", 20), ("continuous", 50),
     ("continuous", 200), ("skewed", 20)],
)  # fmt: skip
def test_at_most_five_percent_false_better_in_1000_nulls(kind, num_rows):
    draw = np.random.default_rng(num_rows)
    better = worse = 0
    for number in range(1000):
        # Equal arms that answer row by row with a common difficulty, as two prompts would.
        ease = draw.random(num_rows)
        if kind == "binary":
            ours, theirs = (binary(draw.random(num_rows) < ease) for _ in range(2))
        else:
            power = 1 if kind == "continuous" else 8
            ours, theirs = (
                result_from_scores("token_f1", (draw.random(num_rows) ** power + ease) / 2)
                for _ in range(2)
            )
        outcome = verdict(ours, theirs, seed=number, num_draws=200).outcome
        better += outcome == "better"
        worse += outcome == "worse"
    assert better <= 50
    assert worse <= 50
    assert better + worse <= 70  # two-sided 5 % and three standard errors


def test_at_most_five_percent_false_better_for_a_corpus_metric():
    draw = np.random.default_rng(0)
    better = 0
    for number in range(300):
        truth = draw.choice(list("aaab"), 40)
        arms = [np.where(draw.random(40) < 0.7, truth, draw.choice(list("ab"), 40)) for _ in "xy"]
        ours, theirs = (
            score("macro_f1", arm.tolist(), [[t] for t in truth], labels=["a", "b"]) for arm in arms
        )
        better += verdict(ours, theirs, seed=number, num_draws=300).outcome == "better"
    assert better <= 15


def test_a_real_difference_is_found():
    draw = np.random.default_rng(0)
    found = 0
    for number in range(100):
        base = draw.random(150)
        ours = result_from_scores("token_f1", np.clip(base + draw.normal(0.06, 0.2, 150), 0, 1))
        theirs = result_from_scores("token_f1", base)
        found += verdict(ours, theirs, seed=number, num_draws=300).outcome == "better"
    assert found >= 75


def test_sign_flips_by_hand():
    # Four rows, all +1: of the 16 sign patterns two are as extreme, p = 2/16
    ours, theirs = (
        result_from_scores("rouge_l", [1.0] * 4),
        result_from_scores("rouge_l", [0.0] * 4),
    )
    assert permutation_p(ours, theirs, seed=0) == pytest.approx(0.125, abs=0.015)


def test_the_bootstrap_of_a_corpus_metric_recomputes_it():
    texts = [
        ["the cat sat on the mat"],
        ["a dog barked at night today"],
        ["rain falls down now ok"],
    ]
    good = score("bleu", [text[0] for text in texts], texts)
    bad = score("bleu", ["the cat sat on a mat", "a dog", "rain falls down here ok"], texts)
    draws = difference_draws(good, bad, seed=0, num_draws=400)
    assert draws.shape == (400,) and (draws > 0).all()
    result = verdict(good, bad, seed=0)
    assert result.outcome == "cannot tell" and result.test == "permutation test"


def test_wilson_by_hand():
    # 10 of 20: 0.5 +- 1.96 / (20 + 3.84) * sqrt(5 + 0.96) = 0.299 to 0.701
    low_high = interval(binary([1] * 10 + [0] * 10), seed=0)
    assert (low_high.low, low_high.high) == pytest.approx((29.9, 70.1), abs=0.05)
    assert interval(binary([1] * 10), seed=0).high == pytest.approx(100)


def test_a_bootstrap_interval_covers_the_value():
    result = result_from_scores("token_f1", np.random.default_rng(0).random(80))
    low_high = interval(result, seed=0)
    assert low_high.low < result.value < low_high.high
    half = 196 * result.per_item.std() / np.sqrt(80)
    assert low_high.high - low_high.low == pytest.approx(2 * half, rel=0.06)
    assert low_high == interval(result, seed=0)
    assert low_high != interval(result, seed=1)
