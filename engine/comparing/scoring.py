"""Answers against what was expected; apart from asking, which needs no metric's library."""

from collections.abc import Sequence

from engine.comparing.metrics import MetricResult, score
from engine.comparing.prompting import Question
from templates.example import Example
from templates.render import answer_text
from templates.template import Metric, Template


def expected_answers(example: Example, template: Template) -> tuple[str, ...]:
    """List the acceptable answers to an item.

    Args:
        example: an item with its answer.
        template: says where the answer stands.

    Returns:
        The label, or all references; at least one.
    """
    if template.has_labels:
        assert example.label is not None
        return (example.label,)
    return example.references or (answer_text(example, template),)


def score_answers(
    metric: Metric, answers: Sequence[str], examples: Sequence[Example], question: Question
) -> MetricResult:
    """Score the answers to some items.

    Args:
        metric: which score.
        answers: N answers.
        examples: the N items.
        question: gives template and labels.

    Returns:
        The result.
    """
    expected = [expected_answers(example, question.template) for example in examples]
    return score(metric, answers, expected, labels=question.labels)
