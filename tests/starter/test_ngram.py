"""The 5-gram: probabilities that add up, and contexts that help."""

import numpy as np
import pytest

from starter.ngram import train_ngram

PHRASE = np.array([1, 2, 3, 4, 5, 1, 2, 6] * 40)


@pytest.mark.parametrize(
    "context", [[], [1], [1, 2], [3, 4, 5, 1], [5, 1, 2, 6], [9, 9, 9, 9], [0, 3, 4, 5]], ids=str
)
def test_probabilities_sum_to_one_behind_any_context(context: list[int]) -> None:
    model = train_ngram(PHRASE, 10)
    each = [model.probabilities(np.array([*context, token]))[-1] for token in range(10)]
    assert sum(each) == pytest.approx(1, abs=1e-12)
    assert min(each) > 0  # also for tokens that were never seen


def test_on_random_text_too() -> None:
    ids = np.random.default_rng(0).zipf(1.5, 3_000) % 50
    model = train_ngram(ids.astype(np.int64), 50)
    for start in (0, 100, 2_000):
        context = ids[start : start + 4]
        each = [model.probabilities(np.array([*context, token]))[-1] for token in range(50)]
        assert sum(each) == pytest.approx(1, abs=1e-12)


def test_longer_contexts_help_on_repetitive_text() -> None:
    test = PHRASE[:80]
    surprise = {
        length: train_ngram(PHRASE, 10, length=length).nats(test) / len(test)
        for length in (1, 2, 5)
    }
    assert surprise[5] < 0.1 < surprise[2] < surprise[1]
    counted = np.bincount(PHRASE, minlength=10) / len(PHRASE)
    entropy = -sum(share * np.log(share) for share in counted if share)
    assert surprise[1] == pytest.approx(entropy, rel=0.05)
