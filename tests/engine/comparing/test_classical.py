import pytest

from engine.comparing.classical import most_frequent_label, train_classical
from templates.errors import DataError
from tests.engine.tiny import TEMPLATE, TICKETS, ticket

LABELS = ("billing", "returns", "shipping")
TRAIN = [
    ticket(f"{start} {text}", label, row)
    for row, (start, text, label) in enumerate(
        (
            (start, text, label)
            for start in ("hello", "dear team", "urgent", "please note")
            for text, label in (
                ("the invoice has a wrong amount", "billing"),
                ("the parcel is late again", "shipping"),
                ("the kettle leaks and i return it", "returns"),
            )
        ),
        1,
    )
]


def test_it_learns_and_is_the_same_every_time():
    model = train_classical(TRAIN, TICKETS, TEMPLATE, LABELS, metric="accuracy")
    assert model.predict([ticket("an invoice with a wrong amount", "x")]) == ["billing"]
    assert model.validation_score > 60
    again = train_classical(TRAIN, TICKETS, TEMPLATE, LABELS, metric="accuracy")
    assert again.predict(TICKETS) == model.predict(TICKETS)


def test_the_strength_is_chosen_on_validation_rows():
    scores = {
        strength: train_classical(
            TRAIN, TICKETS, TEMPLATE, LABELS, metric="accuracy", strengths=[strength]
        ).validation_score
        for strength in (1e-6, 10.0)
    }
    model = train_classical(
        TRAIN, TICKETS, TEMPLATE, LABELS, metric="accuracy", strengths=list(scores)
    )
    assert model.strength == max(scores, key=scores.__getitem__)
    assert model.validation_score == max(scores.values())


def test_one_label_is_a_sentence():
    with pytest.raises(DataError, match=r"only one label.*Add rows with other labels"):
        train_classical(TRAIN[:1], TICKETS, TEMPLATE, LABELS, metric="accuracy")


def test_signs_and_single_letters_are_text_too():
    train = [ticket("?", "a", 1), ticket("x", "b", 2)]
    model = train_classical(train, train, TEMPLATE, ("a", "b"), metric="accuracy")
    assert model.predict(train) == ["a", "b"]


def test_the_most_frequent_label():
    assert most_frequent_label(TICKETS, LABELS) == "billing"  # 3, as shipping; the first wins
    assert most_frequent_label(TICKETS, ("shipping", "billing", "returns")) == "shipping"
