from typing import get_args

import numpy as np
import pytest
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sklearn.metrics import f1_score

from engine.comparing.metrics import (
    METRICS,
    metrics_for,
    normalise_answer,
    result_from_scores,
    score,
)
from templates.builtin import TEMPLATES
from templates.template import Metric

HYPOTHESES = ["the cat sat on the mat", "a dog", "it is pouring down today", "nothing shared"]
REFERENCES = [
    ["the cat is on the mat", "a cat sat on a mat"],
    ["a dog barks loudly at night"],
    ["today it is pouring down", "it is pouring down today", "rain"],
    ["wholly other words"],
]


def only(refs: list[str]) -> list[list[str]]:
    return [[ref] for ref in refs]


def test_the_registry_covers_every_metric_and_every_task():
    assert set(METRICS) == set(get_args(Metric))
    for template in TEMPLATES.values():
        assert template.metric in metrics_for(template.task)
    assert metrics_for("classification") == ("accuracy", "macro_f1")
    assert set(metrics_for("chat")) == {"exact_match", "token_f1", "chrf", "rouge_l", "bleu"}


@pytest.mark.parametrize("metric", get_args(Metric))
def test_perfect_answers_have_the_highest_score(metric):
    answers = ["one two three four five", "six seven eight nine ten"]
    assert score(metric, answers, only(answers)).value == pytest.approx(METRICS[metric].highest)


def test_accuracy_by_hand():
    result = score("accuracy", ["a", "b", "b", "c"], only(["a", "b", "c", "c"]))
    assert result.value == 75
    assert result.per_item.tolist() == [1, 1, 0, 1]


def test_macro_f1_by_hand():
    # a: P 1/2, R 1 -> 2/3;  b: P 1, R 1/2 -> 2/3;  c: never predicted -> 0
    result = score("macro_f1", ["a", "a", "b"], only(["a", "b", "b"]), labels=["a", "b", "unused"])
    assert result.value == pytest.approx(100 * (2 / 3 + 2 / 3) / 2)
    result = score("macro_f1", ["a", "a", "b", "a"], only(["a", "b", "b", "c"]))
    assert result.value == pytest.approx(100 * (1 / 2 + 2 / 3 + 0) / 3)
    assert result.per_item is None


def test_macro_f1_equals_scikit_learn():
    draw = np.random.default_rng(0)
    ours, theirs = draw.choice(list("abcd"), 60).tolist(), draw.choice(list("abc"), 60).tolist()
    expected = 100 * f1_score(theirs, ours, average="macro", zero_division=0)
    assert score("macro_f1", ours, only(theirs)).value == pytest.approx(expected)


def test_exact_match_forgives_white_space_only():
    result = score("exact_match", ["two  words ", "Two words"], only(["two words", "two words"]))
    assert result.per_item.tolist() == [1, 0]


def test_token_f1_by_hand():
    assert normalise_answer(" The Cat's, an  apple! ") == "cats apple"
    # "cat sat" against "cat sat down": 2 common, 2 * 2 / (2 + 3) = 0.8; the best reference counts
    result = score(
        "token_f1", ["the cat sat", "", "the"], [["dogs", "A cat sat down."], ["x"], ["a"]]
    )
    assert result.per_item.tolist() == pytest.approx([0.8, 0, 1])
    assert result.value == pytest.approx(60)


def test_rouge_l_by_hand():
    # "the cat sat" / "the cat is sat": common sequence 3, P 3/3, R 3/4 -> 6/7
    result = score("rouge_l", ["the cat sat"], [["nothing", "the cat is sat"]])
    assert result.value == pytest.approx(100 * 6 / 7)
    assert score("rouge_l", ["Übung macht Meister"], [["übung macht den meister"]]).value > 80


def test_rouge_l_equals_rouge_score():
    scorer = RougeScorer(["rougeL"])
    expected = [
        max(scorer.score(ref, text)["rougeL"].fmeasure for ref in refs)
        for text, refs in zip(HYPOTHESES, REFERENCES, strict=True)
    ]
    assert score("rouge_l", HYPOTHESES, REFERENCES).per_item.tolist() == pytest.approx(expected)


def test_bleu_by_hand():
    # 6 words, 5 + 3 + 2 + 1 hits of 6 + 5 + 4 + 3 n-grams, same length
    value = score("bleu", ["the cat sat on the mat"], [["the cat sat on a mat"]]).value
    assert value == pytest.approx(100 * (5 / 6 * 3 / 5 * 2 / 4 * 1 / 3) ** 0.25)


def test_chrf_by_hand():
    # "ab" / "abc": n=1 P 2/2 R 2/3, n=2 P 1/1 R 1/2; P 1, R 7/12; F2 = 5PR / (4P + R)
    value = score("chrf", ["ab"], [["abc"]]).value
    assert value == pytest.approx(100 * 5 * (7 / 12) / (4 + 7 / 12))


@pytest.mark.parametrize(("metric", "scorer"), [("bleu", BLEU()), ("chrf", CHRF())])
@pytest.mark.parametrize("rows", [[0], [0, 2], [3], [0, 1, 2, 3], [1, 3]])
def test_corpus_metrics_equal_sacrebleu_with_ragged_references(metric, scorer, rows):
    texts, refs = [HYPOTHESES[row] for row in rows], [REFERENCES[row] for row in rows]
    width = max(len(row) for row in refs)
    streams = [[row[at] if at < len(row) else None for row in refs] for at in range(width)]
    expected = scorer.corpus_score(texts, streams).score
    assert score(metric, texts, refs).value == pytest.approx(expected, abs=1e-9)


def test_empty_answers_score_zero():
    for metric in metrics_for("generation"):
        assert score(metric, ["", ""], [["some words"], ["other words here"]]).value == 0


def test_row_scores_of_chrf_are_sentence_scores():
    per_item = score("chrf", HYPOTHESES, REFERENCES).per_item
    expected = [
        CHRF().sentence_score(text, refs).score / 100
        for text, refs in zip(HYPOTHESES, REFERENCES, strict=True)
    ]
    assert per_item.tolist() == pytest.approx(expected)


def test_result_from_scores_is_the_mean():
    assert result_from_scores("token_f1", [0.5, 1.0]).value == 75
