from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.batches import collate, epoch_batches, micro_batches
from engine.encode import Encoded, encode_example
from engine.language_model import FastPaths, LanguageModel
from engine.loss import evaluate_loss, loss_sum
from tests.engine.tiny import TEMPLATE, TICKETS, tiny_model


@pytest.fixture
def language_model(tmp_path: Path) -> LanguageModel:
    return tiny_model(tmp_path, "gpt2")


@pytest.mark.parametrize("packs", [True, False])
def test_hidden_states_that_predict_an_answer_are_known(
    language_model: LanguageModel, packs: bool
) -> None:
    language_model.paths = FastPaths(packs=packs, head_apart=packs)
    items = [encode_example(language_model, item, TEMPLATE) for item in TICKETS]
    batch = collate(items, language_model)
    assert batch.is_packed is packs
    assert batch.lengths == tuple(len(item.ids) for item in items)
    assert batch.num_tokens == sum(batch.lengths)
    assert batch.num_supervised == sum(item.num_supervised for item in items)
    ids, positions = batch.ids.flatten(), batch.positions.flatten()
    assert torch.equal(batch.targets, ids[batch.predicting + 1])
    assert torch.equal(positions[batch.predicting] + 1, positions[batch.predicting + 1])
    width = batch.ids.shape[1]
    starts = [sum(batch.lengths[:row]) if packs else row * width for row in range(len(items))]
    for start, item in zip(starts, items, strict=True):
        own = slice(start, start + len(item.ids))
        assert ids[own].tolist() == list(item.ids)
        assert positions[own].tolist() == list(range(len(item.ids)))
    if not packs:
        assert batch.mask.sum(1).tolist() == list(batch.lengths)
        assert (batch.mask[:, 0] == 1).all(), "padded on the right"


@pytest.mark.parametrize("packs", [True, False])
def test_virtual_tokens_come_first_and_are_not_learned_from(
    language_model: LanguageModel, packs: bool
) -> None:
    language_model.num_virtual_tokens = 3
    language_model.paths = FastPaths(packs=packs)
    item = encode_example(language_model, TICKETS[0], TEMPLATE)
    batch = collate([item, item], language_model)
    assert batch.lengths == (len(item.ids) + 3,) * 2
    rows = batch.ids.view(2, -1)
    assert rows[1, :3].tolist() == language_model.virtual_token_ids == [320, 321, 322]
    assert batch.num_supervised == 2 * item.num_supervised
    assert batch.targets.max() < 320


def test_a_first_token_is_predicted_by_a_soft_prompt_and_else_by_nothing(
    language_model: LanguageModel,
) -> None:
    item = Encoded((5, 6), (True, True))
    assert collate([item], language_model).targets.tolist() == [6]
    language_model.num_virtual_tokens = 1
    batch = collate([item, item], language_model)
    assert batch.targets.tolist() == [5, 6, 5, 6] and batch.predicting.tolist() == [0, 1, 3, 4]


@given(
    lengths=st.lists(st.integers(1, 500), min_size=1, max_size=60),
    budget=st.integers(1, 2000),
    packed=st.booleans(),
)
def test_micro_batches_keep_to_their_budget(lengths: list[int], budget: int, packed: bool) -> None:
    lengths.sort()
    parts = micro_batches(lengths, budget, packed=packed)
    assert [number for part in parts for number in part] == list(range(len(lengths)))
    for part, later in zip(parts, [*parts[1:], None], strict=True):
        own = [lengths[number] for number in part]
        assert len(own) == 1 or (sum(own) if packed else len(own) * max(own)) <= budget
        if later:
            more = [*own, lengths[later.start]]
            assert (sum(more) if packed else len(more) * max(more)) > budget, "cut too early"


def test_padding_does_not_change_the_loss(language_model: LanguageModel) -> None:
    items = [encode_example(language_model, item, TEMPLATE) for item in TICKETS]
    together = loss_sum(language_model, collate(items, language_model))
    alone = sum(loss_sum(language_model, collate([item], language_model)) for item in items)
    assert torch.allclose(together, alone, rtol=1e-5)


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
    together = set(map(frozenset, first))
    for seed, epoch in ((0, 1), (1, 0)):
        others = epoch_batches(lengths, 8, seed=seed, epoch=epoch)
        assert not together & set(map(frozenset, others)), "other items share a batch"
    padded = sum(len(batch) * max(lengths[item] for item in batch) for batch in first)
    assert sum(lengths) / padded > 0.85
