"""Is one arm better than another, or can these rows not tell? Paired, seeded, calibrated.

Two conditions must agree before anything is called better or worse: the p-value of an exact or
permutation test, which holds its level however few rows there are, and a bootstrap interval of
the difference. Neither alone will do: percentile intervals are too short on few rows.
"""

import math
from collections.abc import Iterator

import numpy as np
from scipy.stats import binomtest, norm

from engine.comparing.comparison import Interval, Outcome, Verdict
from engine.comparing.metrics import METRICS, Floats, MetricResult

LEVEL = 0.05
POWER = 0.8
NUM_DRAWS = 10_000
MOST_ROWS = 100_000  # asking for more would not be an honest plan
_NUMBERS_PER_CHUNK = 4_000_000


def verdict(
    candidate: MetricResult,
    reference: MetricResult,
    *,
    seed: int,
    num_draws: int = NUM_DRAWS,
) -> Verdict:
    """Decide between two arms that answered the same rows.

    Better or worse only where the two-sided p is below 0.05 and the 95 % interval of the
    difference excludes zero.

    Args:
        candidate: one metric of the arm in question.
        reference: the same metric of the arm to beat.
        seed: fixes the resampling.
        num_draws: resamples, and permutations.

    Returns:
        The verdict.
    """
    assert candidate.metric == reference.metric
    assert candidate.parts.shape == reference.parts.shape
    spec = METRICS[candidate.metric]
    num_rows = len(candidate.parts)
    # Two means over the same rows: subtracting them must not leave a rounding crumb.
    same = np.array_equal(candidate.parts, reference.parts)
    difference = 0.0 if same else candidate.value - reference.value
    resampled = difference_draws(candidate, reference, seed=seed, num_draws=num_draws)
    low, high = np.percentile(resampled, [2.5, 97.5])
    if spec.is_binary:
        test = "McNemar"
        p_value = mcnemar(*discordant(candidate, reference))
    else:
        test = "permutation test"
        p_value = permutation_p(candidate, reference, seed=seed, num_draws=num_draws)
    outcome: Outcome = "cannot tell"
    if p_value < LEVEL and not low <= 0 <= high:
        outcome = "better" if (difference > 0) == spec.higher_is_better else "worse"
    deviation = float(resampled.std()) * math.sqrt(num_rows)
    return Verdict(
        outcome=outcome,
        difference=difference,
        interval=Interval(low=float(low), high=float(high)),
        p_value=p_value,
        test=test,
        num_rows=num_rows,
        more_rows_needed=more_rows_needed(difference, deviation, num_rows, is_binary=spec.is_binary)
        if outcome == "cannot tell"
        else None,
    )


def interval(result: MetricResult, *, seed: int, num_draws: int = NUM_DRAWS) -> Interval:
    """Give the 95 % interval of one arm: Wilson for a share of right rows, else bootstrap.

    Args:
        result: one metric of the arm.
        seed: fixes the resampling.
        num_draws: resamples.

    Returns:
        The interval in points.
    """
    spec = METRICS[result.metric]
    if spec.is_binary:
        hits, num_rows = round(float(result.parts[:, 0].sum())), len(result.parts)
        wilson = binomtest(hits, num_rows).proportion_ci(method="wilson")
        return Interval(low=100 * float(wilson.low), high=100 * float(wilson.high))
    draws = [
        spec.finish(weights @ result.parts)
        for weights in _resamples(len(result.parts), num_draws, seed)
    ]
    low, high = np.percentile(np.concatenate(draws), [2.5, 97.5])
    return Interval(low=float(low), high=float(high))


def mcnemar(only_candidate: int, only_reference: int) -> float:
    """Compute the exact McNemar test (McNemar 1947, the binomial form).

    Args:
        only_candidate: rows that only the candidate got right.
        only_reference: rows that only the reference got right.

    Returns:
        The two-sided p-value; 1 where the arms agree on every row.
    """
    both = only_candidate + only_reference
    return float(binomtest(min(only_candidate, only_reference), both).pvalue) if both else 1.0


def discordant(candidate: MetricResult, reference: MetricResult) -> tuple[int, int]:
    """Count the rows on which exactly one of two arms is right.

    Args:
        candidate: a binary metric of one arm.
        reference: the same of another.

    Returns:
        Rows only the candidate got right, rows only the reference got right.
    """
    ours, theirs = candidate.parts[:, 0] > 0, reference.parts[:, 0] > 0
    return int((ours & ~theirs).sum()), int((theirs & ~ours).sum())


def difference_draws(
    candidate: MetricResult, reference: MetricResult, *, seed: int, num_draws: int = NUM_DRAWS
) -> Floats:
    """Bootstrap the difference, the same resampled rows for both arms.

    Args:
        candidate: one metric of one arm.
        reference: the same of another.
        seed: fixes the resampling.
        num_draws: resamples.

    Returns:
        (num_draws,) differences in points.
    """
    finish = METRICS[candidate.metric].finish
    draws = [
        finish(weights @ candidate.parts) - finish(weights @ reference.parts)
        for weights in _resamples(len(candidate.parts), num_draws, seed)
    ]
    return np.concatenate(draws)


def permutation_p(
    candidate: MetricResult, reference: MetricResult, *, seed: int, num_draws: int = NUM_DRAWS
) -> float:
    """Compute the paired permutation test: were it equal, each row's answers could be swapped.

    For a mean of row scores this is the sign-flip test. With the observed labelling counted
    among the permutations the level holds exactly for any number of rows and draws.

    Args:
        candidate: one metric of one arm.
        reference: the same of another.
        seed: fixes the permutations.
        num_draws: how many.

    Returns:
        The two-sided p-value.
    """
    finish = METRICS[candidate.metric].finish
    changed = (candidate.parts != reference.parts).any(axis=1)
    ours, theirs = candidate.parts[changed], reference.parts[changed]
    fixed = candidate.parts[~changed].sum(axis=0)
    total = fixed + ours.sum(axis=0), fixed + theirs.sum(axis=0)
    observed = abs(finish(total[0]) - finish(total[1]))
    extreme = 0
    generator = np.random.default_rng(seed)
    for size in _chunks(max(len(ours), 1), num_draws):
        swap = generator.integers(0, 2, (size, len(ours)), dtype=np.int8).astype(np.float64)
        moved = swap @ (theirs - ours)  # (draws, K)
        distance = np.abs(finish(total[0] + moved) - finish(total[1] - moved))
        extreme += int((distance >= observed - 1e-9).sum())
    return (extreme + 1) / (num_draws + 1)


def more_rows_needed(
    difference: float, deviation: float, num_rows: int, *, is_binary: bool = False
) -> int | None:
    """Estimate how many more rows would settle it with 80 % power (normal approximation).

    n = ((z_0.975 + z_0.8) * deviation / difference)^2, and for right or wrong rows 200 / difference
    more, because McNemar's exact test goes in steps (simulated power is then 79 to 84 %).

    Args:
        difference: observed, points.
        deviation: standard deviation of one row's paired difference, points.
        num_rows: rows at hand.
        is_binary: whether McNemar's test decides.

    Returns:
        Additional rows, two digits exact; None where the difference is so near zero that no
        realistic number would do.
    """
    if difference == 0:
        return None
    quantiles = float(norm.ppf(1 - LEVEL / 2) + norm.ppf(POWER))
    needed = (quantiles * deviation / difference) ** 2
    needed += 200 / abs(difference) if is_binary else 0
    # Even when every row agrees, an exact test needs six of them: 2 * 0.5^6 < 0.05.
    more = float(max(needed, 6, num_rows + 1) - num_rows)
    if more > MOST_ROWS:
        return None
    step = 10 ** max(0, math.floor(math.log10(more)) - 1)
    return int(math.ceil(more / step) * step)


def _resamples(num_rows: int, num_draws: int, seed: int) -> Iterator[Floats]:
    """How often each row is in each bootstrap draw: (draws, N), in chunks that fit memory."""
    generator = np.random.default_rng(seed)
    for size in _chunks(num_rows, num_draws):
        rows = generator.integers(0, num_rows, (size, num_rows), dtype=np.int32)
        rows += np.arange(size, dtype=np.int32)[:, None] * num_rows
        counts = np.bincount(rows.ravel(), minlength=size * num_rows)
        yield counts.reshape(size, num_rows).astype(np.float64)


def _chunks(num_rows: int, num_draws: int) -> Iterator[int]:
    most = max(1, _NUMBERS_PER_CHUNK // num_rows)
    for start in range(0, num_draws, most):
        yield min(most, num_draws - start)
