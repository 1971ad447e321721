from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.batches import IGNORED, collate, epoch_batches
from engine.encode import encode_example
from engine.language_model import LanguageModel
from engine.loss import evaluate_loss, loss_sum
from tests.engine.tiny import TEMPLATE, TICKETS, tiny_model


@pytest.fixture
def language_model(tmp_path: Path) -> LanguageModel:
    return tiny_model(tmp_path, "gpt2")


def test_answers_end_at_the_right_edge(language_model: LanguageModel) -> None:
    items = [encode_example(language_model, item, TEMPLATE) for item in TICKETS]
    batch = collate(items, language_model)
    assert (batch.labels[:, -1] != IGNORED).all() and (batch.mask[:, -1] == 1).all()
    assert batch.num_tokens == sum(len(item.ids) for item in items)
    assert batch.num_supervised == sum(item.num_supervised for item in items)
    assert batch.num_logits == max(item.num_supervised for item in items) + 1
    for row, item in enumerate(items):
        real = batch.mask[row] == 1
        assert batch.ids[row][real].tolist() == list(item.ids)
        assert batch.positions[row][real].tolist() == list(range(len(item.ids)))


def test_virtual_tokens_come_first_and_are_not_learned_from(
    language_model: LanguageModel,
) -> None:
    language_model.num_virtual_tokens = 3
    item = encode_example(language_model, TICKETS[0], TEMPLATE)
    batch = collate([item], language_model)
    assert batch.ids[0, :3].tolist() == language_model.virtual_token_ids == [320, 321, 322]
    assert (batch.labels[0, :3] == IGNORED).all()


def test_padding_does_not_change_the_loss(language_model: LanguageModel) -> None:
    items = [encode_example(language_model, item, TEMPLATE) for item in TICKETS]
    together = loss_sum(language_model, collate(items, language_model))
    alone = sum(loss_sum(language_model, collate([item], language_model)) for item in items)
    assert torch.allclose(together, alone, rtol=1e-5)
    # the library's own way: all logits, shifted labels
    batch = collate(items, language_model)
    theirs = language_model.model(
        input_ids=batch.ids, attention_mask=batch.mask, position_ids=batch.positions,
        labels=batch.labels,
    ).loss  # fmt: skip
    assert torch.allclose(together / batch.num_supervised, theirs, rtol=1e-5)


def test_evaluation_keeps_the_mode_and_counts_right_tokens(
    language_model: LanguageModel,
) -> None:
    items = [encode_example(language_model, item, TEMPLATE) for item in TICKETS]
    language_model.model.train()
    batches = [collate(items[:5], language_model), collate(items[5:], language_model)]
    loss, accuracy = evaluate_loss(language_model, batches)
    assert language_model.model.training and 0 <= accuracy <= 1
    whole, _ = evaluate_loss(language_model, [collate(items, language_model)])
    assert loss == pytest.approx(whole, rel=1e-5)


@given(
    lengths=st.lists(st.integers(1, 500), min_size=1, max_size=200),
    batch_size=st.integers(1, 32),
    seed=st.integers(0, 5),
)
def test_an_epoch_holds_every_item_once(lengths: list[int], batch_size: int, seed: int) -> None:
    batches = epoch_batches(lengths, batch_size, seed=seed, epoch=1)
    assert sorted(item for batch in batches for item in batch) == list(range(len(lengths)))
    assert max(map(len, batches)) <= batch_size
    assert batches == epoch_batches(lengths, batch_size, seed=seed, epoch=1)


def test_epochs_and_seeds_differ_and_lengths_are_alike() -> None:
    lengths = [7 * number % 97 + 1 for number in range(400)]
    first = epoch_batches(lengths, 8, seed=0, epoch=0)
    assert first != epoch_batches(lengths, 8, seed=0, epoch=1)
    assert first != epoch_batches(lengths, 8, seed=1, epoch=0)
    padded = sum(len(batch) * max(lengths[item] for item in batch) for batch in first)
    assert sum(lengths) / padded > 0.85
