"""Metrics, each as numbers that add up over rows and a formula over their sums.

Accuracy is a mean over rows; macro-F1, BLEU and chrF are not. But all of them are a function of
sums: K numbers for each row (hits, n-gram counts, lengths), added up, then a formula. So one
bootstrap and one permutation test serve every metric. Values are points from 0 to 100.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF

from templates.template import Metric, TaskKind

Floats = NDArray[np.float64]
References = Sequence[Sequence[str]]
_LABEL_TASKS: tuple[TaskKind, ...] = ("classification", "pair_classification")
_TEXT_TASKS: tuple[TaskKind, ...] = ("generation", "question_answering", "chat")


@dataclass(frozen=True)
class MetricSpec:
    """What a metric is called, what it applies to and how it is computed.

    Attributes:
        title: for tables.
        description: one sentence for a reader.
        tasks: the kinds of task it makes sense for.
        parts: predictions and references -> (N, K) numbers that add up over rows.
        finish: (..., K) sums -> (...) points.
        row_scores: whether the formula says something about a single row.
        is_binary: whether each row is simply right or wrong.
        higher_is_better: the direction.
        lowest: worst value, points.
        highest: best value, points.
    """

    title: str
    description: str
    tasks: tuple[TaskKind, ...]
    parts: Callable[[Sequence[str], References, Sequence[str]], Floats]
    finish: Callable[[Floats], Floats]
    row_scores: bool = True
    is_binary: bool = False
    higher_is_better: bool = True
    lowest: float = 0.0
    highest: float = 100.0


@dataclass(frozen=True)
class MetricResult:
    """One metric of one arm.

    Attributes:
        metric: its name in METRICS.
        value: points over all rows.
        parts: (N, K) numbers that add up over rows.
        per_item: (N,) score of each row from 0 to 1, or None where one row has none.
    """

    metric: Metric
    value: float
    parts: Floats
    per_item: Floats | None


def score(
    metric: Metric,
    predictions: Sequence[str],
    references: References,
    *,
    labels: Sequence[str] = (),
) -> MetricResult:
    """Score the answers of one arm.

    Args:
        metric: a name in METRICS.
        predictions: N answers.
        references: N lists of one or more acceptable answers; for labels, the label alone.
        labels: all labels, so that results of several arms line up; macro-F1 only.

    Returns:
        The value with what the statistics need.
    """
    spec = METRICS[metric]
    assert len(predictions) == len(references) and all(references) and len(predictions) > 0
    parts = spec.parts(predictions, references, labels)
    return MetricResult(
        metric=metric,
        value=float(spec.finish(parts.sum(axis=0))),
        parts=parts,
        per_item=spec.finish(parts) / 100 if spec.row_scores else None,
    )


def result_from_scores(metric: Metric, per_item: Sequence[float] | Floats) -> MetricResult:
    """Wrap row scores of a metric that is their mean.

    Args:
        metric: accuracy, exact_match, token_f1 or rouge_l.
        per_item: (N,) scores from 0 to 1.

    Returns:
        The result.
    """
    scores = np.asarray(per_item, dtype=np.float64)
    assert METRICS[metric].finish is _mean
    return MetricResult(metric, float(100 * scores.mean()), _with_count(scores), scores)


def metrics_for(task: TaskKind) -> tuple[Metric, ...]:
    """List the metrics that make sense for a task.

    Args:
        task: the kind of task.

    Returns:
        Their names, in registry order.
    """
    return tuple(name for name in get_args(Metric) if task in METRICS[name].tasks)


def normalise_answer(text: str) -> str:
    """Lower case, no punctuation, no articles, single spaces (SQuAD, Rajpurkar et al. 2016).

    Args:
        text: an answer.

    Returns:
        The normalised answer.
    """
    bare = "".join(sign for sign in text.lower() if sign not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def _with_count(scores: Floats) -> Floats:
    return np.stack([scores, np.ones_like(scores)], axis=1)


def _mean(sums: Floats) -> Floats:
    return np.asarray(100 * sums[..., 0] / sums[..., 1])


def _mean_of(
    row: Callable[[str, str], float],
) -> Callable[[Sequence[str], References, Sequence[str]], Floats]:
    """Average a row score, the best over the references."""

    def parts(predictions: Sequence[str], references: References, _: Sequence[str]) -> Floats:
        pairs = zip(predictions, references, strict=True)
        return _with_count(np.array([max(row(text, ref) for ref in refs) for text, refs in pairs]))

    return parts


def _is_same(prediction: str, reference: str) -> float:
    return float(prediction.split() == reference.split())


def _token_f1(prediction: str, reference: str) -> float:
    ours, theirs = normalise_answer(prediction).split(), normalise_answer(reference).split()
    if not ours or not theirs:
        return float(ours == theirs)
    common = (Counter(ours) & Counter(theirs)).total()
    return 2 * common / (len(ours) + len(theirs))


class _Words:
    """Words in any script; rouge-score's own tokenizer drops all but a-z and digits."""

    def tokenize(self, text: str) -> list[str]:
        return re.findall(r"[^\W_]+", text.lower())


_ROUGE = RougeScorer(["rougeL"], tokenizer=_Words())


def _rouge_l(prediction: str, reference: str) -> float:
    return float(_ROUGE.score(reference, prediction)["rougeL"].fmeasure)


def _class_counts(
    predictions: Sequence[str], references: References, labels: Sequence[str]
) -> Floats:
    """Hits, predictions and references of each class: (N, 3 C)."""
    expected = [refs[0] for refs in references]
    classes = np.array(sorted({*labels, *([] if labels else [*predictions, *expected])}))
    ours = np.asarray(predictions)[:, None] == classes  # (N, C)
    theirs = np.asarray(expected)[:, None] == classes
    return np.concatenate([ours & theirs, ours, theirs], axis=1).astype(np.float64)


def _macro_f1(sums: Floats) -> Floats:
    """Mean F1 over the classes that occur among predictions or references."""
    hits, ours, theirs = np.split(sums, 3, axis=-1)
    both = ours + theirs
    return np.asarray(100 * (2 * hits / np.maximum(both, 1)).sum(-1) / (both > 0).sum(-1))


def _sacrebleu_parts(
    scorer: Any,
) -> Callable[[Sequence[str], References, Sequence[str]], Floats]:
    """Let sacrebleu count n-grams; rows may have different numbers of references."""

    def parts(predictions: Sequence[str], references: References, _: Sequence[str]) -> Floats:
        width = max(len(refs) for refs in references)
        padded = [[*refs, *[None] * (width - len(refs))] for refs in references]
        streams = [list(stream) for stream in zip(*padded, strict=True)]
        counts = scorer._extract_corpus_statistics(list(predictions), streams)
        return np.array(counts, dtype=np.float64)

    return parts


def _bleu(sums: Floats) -> Floats:
    """BLEU-4 with sacrebleu's exponential smoothing (Papineni et al. 2002; Post 2018)."""
    ours, theirs = sums[..., 0], sums[..., 1]  # lengths
    hits, totals = sums[..., 2:6], sums[..., 6:10]  # n-grams, n = 1 to 4
    halvings = np.cumsum((hits == 0) & (totals > 0), axis=-1)
    smoothed = np.where(hits > 0, hits, 0.5**halvings)
    usable = (totals > 0).all(-1) & (hits > 0).any(-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(smoothed / totals).mean(-1)
        brevity = np.minimum(0, 1 - theirs / ours)
        return np.asarray(np.where(usable, 100 * np.exp(logs + brevity), 0.0))


def _chrf(sums: Floats) -> Floats:
    """chrF2 over character 1- to 6-grams (Popovic 2015), precision and recall averaged first."""
    counts = sums.reshape(*sums.shape[:-1], -1, 3)
    ours, theirs, hits = counts[..., 0], counts[..., 1], counts[..., 2]
    known = (ours > 0) & (theirs > 0)
    orders = np.maximum(known.sum(-1), 1)
    precision = np.where(known, hits / np.maximum(ours, 1), 0).sum(-1) / orders
    recall = np.where(known, hits / np.maximum(theirs, 1), 0).sum(-1) / orders
    weighted = 4 * precision + recall  # beta = 2
    return np.asarray(100 * 5 * precision * recall / np.where(weighted > 0, weighted, 1))


METRICS: Mapping[Metric, MetricSpec] = {
    "accuracy": MetricSpec(
        "accuracy", "Share of rows with the right label.", _LABEL_TASKS,
        _mean_of(lambda ours, theirs: float(ours == theirs)), _mean, is_binary=True,
    ),
    "macro_f1": MetricSpec(
        "macro-F1", "F1 of each label, averaged: rare labels count as much as frequent ones.",
        _LABEL_TASKS, _class_counts, _macro_f1, row_scores=False,
    ),
    "exact_match": MetricSpec(
        "exact match", "Share of answers equal to a reference, white space aside.", _TEXT_TASKS,
        _mean_of(_is_same), _mean, is_binary=True,
    ),
    "token_f1": MetricSpec(
        "token F1", "Words shared with the best reference, case and articles aside.", _TEXT_TASKS,
        _mean_of(_token_f1), _mean,
    ),
    "chrf": MetricSpec(
        "chrF", "Character n-grams shared with the best reference.", _TEXT_TASKS,
        _sacrebleu_parts(CHRF()), _chrf,
    ),
    "rouge_l": MetricSpec(
        "ROUGE-L", "Longest common word sequence with the best reference.", _TEXT_TASKS,
        _mean_of(_rouge_l), _mean,
    ),
    "bleu": MetricSpec(
        "BLEU", "Word n-grams up to four shared with the references.", _TEXT_TASKS,
        _sacrebleu_parts(BLEU()), _bleu, row_scores=False,
    ),
}  # fmt: skip
