import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import engine.stem
import engine.trainer
from engine.batches import collate
from engine.encode import Encoded
from engine.events import Evaluated, Event, Finished, Noticed, Stepped
from engine.language_model import LanguageModel
from engine.layers import blocks_of
from engine.loss import evaluate_loss, loss_sum
from engine.method import attach_method, parse_options, trainable
from engine.methods import get_method
from engine.packing import choose_fast_paths
from engine.plan import Precision
from engine.stem import fits_in_memory, keep_stem
from engine.trainer import Training, train
from tests.engine.architectures import PACKED, PADDED, random_model
from tests.engine.test_packing import rows
from tests.engine.tiny import save_tiny
from tests.engine.train_tiny import SCHEDULE, digest, tiny_training


def tuned(
    model_type: str, precision: Precision = "fp32", changes: Any = None, **options: Any
) -> LanguageModel:
    base = random_model(model_type, precision, **(changes or {}))
    base.paths = choose_fast_paths(base)
    spec = get_method("lora")
    chosen = parse_options(spec, {"rank": 1, "top_blocks": 1, **options})
    return attach_method(base, spec, chosen, seed=1)


def losses_and_gradients(language_model: LanguageModel, items: list[Encoded]) -> list[torch.Tensor]:
    language_model.model.train()
    torch.manual_seed(4)
    loss = loss_sum(language_model, collate(items, language_model))
    loss.backward()
    learned = trainable(language_model.model).values()
    found = [loss.detach(), *(value.grad.clone() for value in learned if value.grad is not None)]
    language_model.model.zero_grad()
    return found


@pytest.mark.parametrize("model_type", [*PACKED, *PADDED])
def test_losses_and_gradients_are_those_of_the_whole_model(tmp_path: Path, model_type: str) -> None:
    plain, items = tuned(model_type), rows()
    blocks = blocks_of(plain.model)[1]
    kept, words = keep_stem(plain, [*items, *items], most_tokens=40, folder=tmp_path)
    assert words.startswith(f"The lowest {len(blocks) - 1} of {len(blocks)} blocks ran once")
    assert "in memory" in words and not list(tmp_path.iterdir())
    for part in (items, items[2:4], items[:1]):
        expected = losses_and_gradients(plain, part)
        with hidden_from_use(blocks[:-1]):
            found = losses_and_gradients(kept, part)
            scores = evaluate_loss(kept, [collate(part, kept)])
        torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=0)
        for left, right in zip(found[1:], expected[1:], strict=True):
            torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-4 * float(right.abs().max()))
        assert scores == pytest.approx(evaluate_loss(plain, [collate(part, plain)]), rel=1e-5)


@contextlib.contextmanager
def hidden_from_use(blocks: list[nn.Module]) -> Iterator[None]:
    """Fail where a layer inside these blocks is run."""

    def fail(*_: object) -> None:
        raise AssertionError("a block of the stem was run")

    hooks = [
        module.register_forward_pre_hook(fail)
        for block in blocks
        for module in block.modules()
        if module is not block
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def test_in_16_bits_the_losses_are_near(tmp_path: Path) -> None:
    plain, items = tuned("llama", "bf16"), rows()
    kept, _ = keep_stem(plain, items, most_tokens=40, folder=tmp_path)
    assert kept.stem is not None
    expected, found = (losses_and_gradients(model, items)[0] for model in (plain, kept))
    torch.testing.assert_close(found, expected, rtol=5e-3, atol=0)


def test_rows_that_are_not_known_run_through_all_blocks(tmp_path: Path) -> None:
    plain, items = tuned("llama"), rows()
    kept, _ = keep_stem(plain, items[:3], most_tokens=40, folder=tmp_path)
    assert torch.equal(losses_and_gradients(kept, items)[0], losses_and_gradients(plain, items)[0])
    assert all("forward" not in vars(block) for block in blocks_of(plain.model)[1])


@pytest.mark.parametrize(
    ("model_type", "dropout", "options", "is_kept"),
    [
        ("gpt2", "resid_pdrop", {}, False),
        ("gpt2", "attn_pdrop", {}, False),
        ("gpt2", "embd_pdrop", {}, False),
        ("llama", "attention_dropout", {}, False),
        ("llama", "", {"dropout": 0.5}, True),
    ],
)
def test_dropout_below_refuses_and_dropout_above_does_not(
    tmp_path: Path, model_type: str, dropout: str, options: dict[str, float], is_kept: bool
) -> None:
    changes = {dropout: 0.2} if dropout else {}
    plain = tuned(model_type, changes=changes, **options)
    kept, words = keep_stem(plain, rows(), most_tokens=40, folder=tmp_path)
    assert (kept.stem is not None) == is_kept
    assert ("was not proven" in words) != is_kept
    assert not plain.model.training


def kept_for_the_backward_pass(
    language_model: LanguageModel,
) -> tuple[list[list[Tensor]], list[Tensor]]:
    """What a pass keeps, below the blocks and in each of them; the input of each lowest linear."""
    blocks = blocks_of(language_model.model)[1]
    kept: list[list[Tensor]] = [[]]
    inputs: list[Tensor] = []
    hooks = [block.register_forward_pre_hook(lambda *_: kept.append([])) for block in blocks]
    for block in blocks:
        down = block.mlp.down_proj
        hooks.append(down.register_forward_pre_hook(lambda _, given: inputs.append(given[0])))

    def keep(tensor: Tensor) -> Tensor:
        kept[-1].append(tensor)
        return tensor

    language_model.model.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss_sum(language_model, collate(rows(), language_model)).backward()
    for hook in hooks:
        hook.remove()
    return kept, inputs


def test_nothing_is_kept_below_what_learns() -> None:
    plain = tuned("llama", changes={"num_hidden_layers": 3})
    kept, _ = kept_for_the_backward_pass(plain)
    assert [bool(tensors) for tensors in kept] == [False, False, False, True]


def test_a_frozen_linear_keeps_no_input_and_gets_no_gradient() -> None:
    learning = random_model("llama")
    learning.paths = choose_fast_paths(learning)
    learning.model.requires_grad_(True)
    frozen = tuned("llama", top_blocks=0, targets=["q_proj"])
    found = []
    for language_model in (learning, frozen):
        kept, inputs = kept_for_the_backward_pass(language_model)
        places = {tensor.data_ptr() for tensors in kept for tensor in tensors}
        found.append([given.data_ptr() in places for given in inputs])
    assert found == [[True, True], [False, False]]
    learned = trainable(frozen.model)
    for name, value in frozen.model.named_parameters():
        assert (value.grad is not None) == (name in learned), name


class _Scaled(nn.Module):
    """Hands hidden states on, and a factor beside them that the next block needs."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, *arguments: Any, **others: Any) -> Any:
        return self.block(*arguments, **others), torch.ones(1)


@pytest.mark.parametrize("fault", ["extra output", "looks back"])
def test_blocks_that_hand_on_more_refuse(tmp_path: Path, fault: str) -> None:
    plain = tuned("llama")
    blocks = blocks_of(plain.model)[1]
    if fault == "extra output":
        plain.model.model.layers[0] = _Scaled(blocks[0])
        plain.model.model.layers[1].register_forward_pre_hook(
            lambda _, inputs: (inputs[0][0] * inputs[0][1],), prepend=True
        )
    else:  # the upper block reads what only the lower one's inside knows
        seen: list[Tensor] = []
        blocks[0].mlp.register_forward_hook(lambda *call: seen.append(call[2]))
        blocks[1].register_forward_pre_hook(
            lambda _, inputs: (inputs[0] + seen[-1].mean(),), prepend=True
        )
    kept, words = keep_stem(plain, rows(), most_tokens=40, folder=tmp_path)
    assert kept is plain and words.startswith("The frozen blocks run for every step: ")


@pytest.mark.parametrize("name", ["lora", "full", "lomo", "prompt_tuning"])
def test_where_the_lowest_block_learns_there_is_no_stem(tmp_path: Path, name: str) -> None:
    base = random_model("llama")
    plain = attach_method(base, get_method(name), parse_options(get_method(name), {}), seed=1)
    assert keep_stem(plain, rows(), most_tokens=40, folder=tmp_path) == (plain, "")


def test_what_is_too_large_for_memory_lies_in_a_file_without_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fits_in_memory(25, 100) and not fits_in_memory(26, 100)
    monkeypatch.setattr(engine.stem, "memory_bytes", lambda: (1000, 1000))
    plain, items = tuned("llama"), rows()
    kept, words = keep_stem(plain, items, most_tokens=40, folder=tmp_path)
    assert kept.stem is not None and "on disk (0.0 MB)" in words
    assert not list(tmp_path.iterdir()), "nothing is left behind, whatever happens"
    expected, found = (losses_and_gradients(model, items)[0] for model in (plain, kept))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    monkeypatch.setattr(engine.stem.shutil, "disk_usage", lambda _: _Free(100))
    same, words = keep_stem(plain, items, most_tokens=40, folder=tmp_path)
    assert same is plain and "neither memory nor disk has room for 0.0 MB" in words


@dataclass(frozen=True)
class _Free:
    free: int


def test_a_stop_gives_the_stem_up(tmp_path: Path) -> None:
    plain = tuned("llama")
    found = keep_stem(plain, rows(), most_tokens=40, folder=tmp_path, should_stop=lambda: True)
    assert found == (plain, "")


def stem_training(folder: Path, run: str, **changes: object) -> Training:
    base = folder / "base"
    base = base if base.exists() else save_tiny(base, "llama")
    options = {"rank": 4, "dropout": 0.3, "top_blocks": 1}
    return tiny_training(base, folder / run, "lora", options=options, **changes)


def told(events: list[Event]) -> list[str]:
    return [event.words for event in events if isinstance(event, Noticed)]


def numbers(events: list[Event]) -> list[float]:
    return [event.loss for event in events if isinstance(event, Stepped | Evaluated)]


def test_a_run_has_the_losses_of_one_without_stem_and_resumes_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = stem_training(tmp_path, "whole")
    events = list(train(whole))
    assert "The lowest 1 of 2 blocks" in told(events)[0] and isinstance(events[-1], Finished)
    assert whole.language_model.stem is None, "others go on with all blocks"
    list(train(stem_training(tmp_path, "cut"), pause_at_step=4))
    again = stem_training(tmp_path, "cut")
    list(train(again))
    assert digest(again) == digest(whole)
    monkeypatch.setattr(engine.trainer, "keep_stem", lambda model, *_, **__: (model, ""))
    assert numbers(list(train(stem_training(tmp_path, "without")))) == pytest.approx(
        numbers(events), rel=1e-5
    )


def test_examples_that_are_read_once_are_not_kept(tmp_path: Path) -> None:
    schedule = SCHEDULE.model_copy(update={"epochs": 1})
    assert not told(list(train(stem_training(tmp_path, "once", schedule=schedule))))
