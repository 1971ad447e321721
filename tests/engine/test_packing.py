"""The golden rule: packed or padded, every architecture gives the loss of each row alone."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import engine.loss
import engine.packing
from engine.batches import collate
from engine.encode import Encoded
from engine.language_model import FastPaths, LanguageModel
from engine.loss import evaluate_loss, loss_sum, supervised_logits
from engine.packing import choose_fast_paths
from tests.engine.architectures import PACKED, PADDED, VOCABULARY_SIZE, random_model

LENGTHS = (3, 8, 8, 15, 21, 40)


def rows(lengths: tuple[int, ...] = LENGTHS) -> list[Encoded]:
    draw = torch.Generator().manual_seed(1)
    items = []
    for length in lengths:
        ids = torch.randint(3, VOCABULARY_SIZE, (length,), generator=draw).tolist()
        asked = length * 2 // 3
        items.append(Encoded(tuple(ids), (False,) * asked + (True,) * (length - asked)))
    return items


def library_loss(model: nn.Module, items: list[Encoded]) -> tuple[Tensor, dict[str, Tensor]]:
    """Each row alone, all logits, the library's own loss: sum and gradients."""
    model.zero_grad()
    total = torch.zeros(())
    for item in items:
        ids = torch.tensor([list(item.ids)])
        labels = ids.masked_fill(torch.tensor([list(item.supervised)]) == 0, -100)
        loss = model(input_ids=ids, labels=labels, use_cache=False).loss * item.num_supervised
        loss.backward()
        total += loss.detach()
    return total, gradients_of(model)


def gradients_of(model: nn.Module) -> dict[str, Tensor]:
    found = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
    model.zero_grad()
    return {name: value.clone() for name, value in found.items()}


def check_same_as_the_library(language_model: LanguageModel, items: list[Encoded]) -> None:
    model = language_model.model
    model.requires_grad_(True).train()
    expected, expected_gradients = library_loss(model, items)
    batch = collate(items, language_model)
    loss = loss_sum(language_model, batch)
    loss.backward()
    gradients = gradients_of(model)
    torch.testing.assert_close(loss.detach(), expected, rtol=1e-5, atol=1e-5)
    for name, value in expected_gradients.items():
        largest = float(value.abs().max())
        torch.testing.assert_close(gradients[name], value, rtol=1e-4, atol=1e-4 * largest + 1e-6)
    mean, _ = evaluate_loss(language_model, [batch])
    assert mean * batch.num_supervised == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("kind", PACKED)
def test_packed_rows_give_the_loss_of_each_row_alone(kind: str) -> None:
    language_model = random_model(kind)
    paths = choose_fast_paths(language_model)
    assert paths.packs and paths.head_apart and not paths.notices
    language_model.paths = paths
    assert collate(rows(), language_model).is_packed
    check_same_as_the_library(language_model, rows())


@pytest.mark.parametrize("kind", PADDED)
def test_where_rows_cannot_be_packed_they_are_padded_and_it_is_said(kind: str) -> None:
    language_model = random_model(kind)
    paths = choose_fast_paths(language_model)
    assert not paths.packs and "packing examples" in paths.notices[0]
    language_model.paths = paths
    assert not collate(rows(), language_model).is_packed
    check_same_as_the_library(language_model, rows())


@pytest.mark.parametrize("head_apart", [True, False])
@pytest.mark.parametrize("kind", ["llama", "mistral", "gemma3_text", "cohere", "opt"])
def test_padding_on_the_right_changes_nothing(kind: str, head_apart: bool) -> None:
    language_model = random_model(kind)
    proven = choose_fast_paths(language_model)
    language_model.paths = replace(proven, packs=False) if head_apart else FastPaths()
    check_same_as_the_library(language_model, rows())


@pytest.mark.parametrize("kind", ["llama", "mistral"])
def test_long_rows_give_the_loss_of_each_row_alone(kind: str) -> None:
    language_model = random_model(kind)
    language_model.paths = choose_fast_paths(language_model)
    check_same_as_the_library(language_model, rows((30, 500, 801, 1000)))


class _Shapes(TorchDispatchMode):
    """Keeps the shape of whatever is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[int, ...]] = set()

    def __torch_dispatch__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        found = function(*args, **(kwargs or {}))
        self.seen |= {tuple(value.shape) for value in (found,) if isinstance(value, Tensor)}
        return found


@pytest.mark.parametrize("kind", ["llama", "gemma3_text", "cohere", "phi"])
def test_a_few_logits_at_a_time_give_the_loss_of_all_and_never_stand_side_by_side(
    monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """One head is plain, one bends its logits, one scales them, one has a bias."""
    language_model = random_model(kind)
    language_model.paths = choose_fast_paths(language_model)
    monkeypatch.setattr(engine.loss, "_LOGITS_AT_ONCE", 5 * VOCABULARY_SIZE)
    check_same_as_the_library(language_model, rows())
    batch = collate(rows(), language_model)
    assert batch.num_supervised % 5, "the last part is smaller"
    with _Shapes() as shapes:
        loss_sum(language_model, batch).backward()
        evaluate_loss(language_model, [batch])
    width = language_model.model.config.hidden_size
    of_logits = {
        shape for shape in shapes.seen if VOCABULARY_SIZE in shape and width not in shape[-2:]
    }
    assert (5, VOCABULARY_SIZE) in of_logits
    assert max(map(math.prod, of_logits)) == 5 * VOCABULARY_SIZE


@pytest.mark.parametrize("kind", ["llama", "gemma3_text", "gpt2", "qwen2_moe"])
def test_in_bf16_it_is_as_near_as_rounding_lets_it_be(kind: str) -> None:
    language_model = random_model(kind, "bf16")
    language_model.paths = choose_fast_paths(language_model)
    assert language_model.paths.packs
    exact = random_model(kind)
    with torch.no_grad():
        loss = loss_sum(language_model, collate(rows(), language_model))
        expected = loss_sum(exact, collate(rows(), exact))
    assert float(loss) == pytest.approx(float(expected), rel=0.02)


def test_nothing_is_left_behind_by_the_proof() -> None:
    language_model = random_model("mistral")
    model = language_model.model
    before = model.config._attn_implementation
    choose_fast_paths(language_model)
    assert model.config.sliding_window == 6 and model.config._attn_implementation == before
    assert not model.training
    assert language_model.paths == FastPaths()


def test_a_window_that_is_larger_than_the_tiny_rows_is_proven_too() -> None:
    """A layer that forgot to hand its window to the kernel is noticed at any size of the window."""
    language_model = random_model("mistral")
    config = language_model.model.config
    config.sliding_window = 4096
    assert choose_fast_paths(language_model).packs
    attention = type(language_model.model.model.layers[0].self_attn)
    forgetful = type("Forgetful", (type(config),), {})
    for layer in language_model.model.model.layers:
        layer.self_attn.config = forgetful.from_dict(config.to_dict() | {"sliding_window": None})
        layer.self_attn.config._attn_implementation_internal = "sdpa"
    assert isinstance(language_model.model.model.layers[0].self_attn, attention)
    assert not choose_fast_paths(language_model).packs


def test_a_model_that_never_looks_at_the_lengths_is_not_packed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Attention that adds nothing gives equal logits however rows are cut: that proves nothing."""
    language_model = random_model("llama")
    for layer in language_model.model.model.layers:
        layer.self_attn.o_proj.weight.data.zero_()
    assert not choose_fast_paths(language_model).packs


def test_a_head_with_a_turn_of_its_own_is_not_called_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    language_model = random_model("llama")
    language_model.model.lm_head.register_forward_hook(lambda head, inputs, output: output * 2)
    paths = choose_fast_paths(language_model)
    assert not paths.head_apart and not paths.packs
    assert paths.notices[0].startswith("calling its output head apart was not proven")
    language_model.paths = paths
    check_same_as_the_library(language_model, rows())


def test_whatever_goes_wrong_the_base_is_trained_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Tensor:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(engine.packing, "_proven", broken)
    paths = choose_fast_paths(random_model("llama"))
    assert paths == FastPaths(notices=paths.notices) and "RuntimeError" in paths.notices[0]


def test_logits_are_those_of_the_model() -> None:
    language_model = random_model("gemma3_text")
    items = rows()
    alone = torch.cat(
        [supervised_logits(language_model, collate([item], language_model))[0] for item in items]
    )
    language_model.paths = choose_fast_paths(language_model)
    packed = supervised_logits(language_model, collate(items, language_model))[0]
    torch.testing.assert_close(packed, alone, atol=1e-5, rtol=1e-4)
