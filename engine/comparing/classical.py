"""What needs no language model at all: the most frequent label, and TF-IDF with regression.

Salton and Buckley 1988; the usual strong baseline for short texts. Trains in seconds.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import FeatureUnion
from threadpoolctl import threadpool_limits

from engine.comparing.metrics import score
from templates.errors import DataError
from templates.example import Example
from templates.template import Metric, Template

STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0)
_MOST_ITERATIONS = 2_000


def most_frequent_label(train: Sequence[Example], labels: Sequence[str]) -> str:
    """Find the label to answer when nothing is known.

    Args:
        train: labelled rows.
        labels: all labels; the earlier one wins a tie.

    Returns:
        The label.
    """
    counts = Counter(example.label for example in train)
    return max(labels, key=lambda label: counts[label])


@dataclass(frozen=True)
class ClassicalModel:
    """A trained bag-of-n-grams classifier.

    Attributes:
        vectoriser: text -> sparse features.
        classifier: features -> label.
        template: says what the text of an item is.
        strength: the chosen inverse regularisation C.
        validation_score: points on the validation rows with that C.
    """

    vectoriser: Any
    classifier: Any
    template: Template
    strength: float
    validation_score: float

    def predict(self, examples: Sequence[Example]) -> list[str]:
        """Answer each item.

        Args:
            examples: N items.

        Returns:
            N labels.
        """
        features = self.vectoriser.transform(_texts(examples, self.template))
        return [str(label) for label in self.classifier.predict(features)]


def train_classical(
    train: Sequence[Example],
    validation: Sequence[Example],
    template: Template,
    labels: Sequence[str],
    *,
    metric: Metric,
    strengths: Sequence[float] = STRENGTHS,
) -> ClassicalModel:
    """Train on words (1-2) and characters (2-5), C chosen on validation rows.

    Args:
        train: labelled rows, the same that the tuned model saw.
        validation: labelled rows.
        template: says what the text of an item is.
        labels: all labels.
        metric: decides about C.
        strengths: values of C to try; the smaller one wins a tie.

    Returns:
        The classifier.

    Raises:
        DataError: the training rows have fewer than two labels.
    """
    answers = [str(example.label) for example in train]
    if len(set(answers)) < 2:
        raise DataError(
            "The training rows have only one label, so there is nothing to tell apart",
            fix="Add rows with other labels, or map another column to the label",
        )
    vectoriser = FeatureUnion(
        [
            ("words", TfidfVectorizer(
                ngram_range=(1, 2), sublinear_tf=True,
                token_pattern=r"(?u)\w+|[^\w\s]",  # noqa: S106 - a regular expression
            )),
            ("characters", TfidfVectorizer(
                analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True,
                min_df=2 if len(train) >= 100 else 1,
            )),
        ]
    )  # fmt: skip
    features = vectoriser.fit_transform(_texts(train, template))
    held_out = vectoriser.transform(_texts(validation, template))
    expected = [(str(example.label),) for example in validation]
    best: tuple[float, float, Any] | None = None
    for strength in strengths:
        classifier = LogisticRegression(C=strength, max_iter=_MOST_ITERATIONS)
        # Tiny vector steps: two BLAS threads on a busy machine are thirty times slower than one.
        with threadpool_limits(limits=1, user_api="blas"):
            classifier.fit(features, answers)
        guesses = [str(label) for label in classifier.predict(held_out)]
        value = score(metric, guesses, expected, labels=labels).value
        if best is None or value > best[0]:
            best = value, strength, classifier
    assert best is not None
    value, strength, classifier = best
    return ClassicalModel(vectoriser, classifier, template, strength, value)


def _texts(examples: Sequence[Example], template: Template) -> list[str]:
    return [template.fill(example.fields) for example in examples]
