from pathlib import Path

import pytest

from engine.batches import collate
from engine.encode import encode_example
from engine.loss import evaluate_loss
from tests.engine.tiny import TEMPLATE, TICKETS, tiny_model


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("looks", [1, 2, 3, 4])
def test_an_evaluation_is_given_up_between_batches(
    tmp_path: Path, looks: int, training: bool
) -> None:
    language_model = tiny_model(tmp_path / "base", "llama")
    language_model.model.train(training)
    items = [encode_example(language_model, ticket, TEMPLATE) for ticket in TICKETS]
    batches = [collate(items[start : start + 3], language_model) for start in (0, 3, 6)]
    calls = iter(range(1, 10))
    scores = evaluate_loss(language_model, batches, should_stop=lambda: next(calls) >= looks)
    assert (scores is None) == (looks <= 3)
    assert next(calls) == min(looks, 3) + 1, "asked once before every batch"
    assert language_model.model.training is training
