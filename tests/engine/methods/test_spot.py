"""Prompt transfer: the start it takes, why, and what it refuses to start from."""

from pathlib import Path

import pytest
import torch

from engine.language_model import LanguageModel
from engine.loss import evaluate_loss
from engine.method import attach_method, parse_options, trainable
from engine.methods import get_method
from engine.methods.spot import start
from engine.runs import assemble
from templates.errors import ModelError, PlanError
from tests.engine.methods.test_contract import batch_for, train_steps
from tests.engine.publishing.published import finished_run
from tests.engine.tiny import ARCHITECTURES, tiny_model

NAME = "model.embed_tokens.prompt"


def attached(folder: Path, architecture: str = "llama") -> LanguageModel:
    spec = get_method("spot")
    base = tiny_model(folder, architecture)
    return attach_method(base, spec, parse_options(spec, {"num_tokens": 5}), seed=7)


def prompt_of(model: LanguageModel) -> torch.Tensor:
    (prompt,) = trainable(model.model).values()
    return prompt.detach().clone()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_prompt_with_the_lowest_loss_is_taken_bit_for_bit(
    tmp_path: Path, architecture: str
) -> None:
    tuned = attached(tmp_path, architecture)
    usual = prompt_of(tuned)
    batch = batch_for(tuned)
    before = evaluate_loss(tuned, [batch])[0]
    train_steps(tuned, get_method("spot"), 12)
    learned, learned_loss = prompt_of(tuned), evaluate_loss(tuned, [batch])[0]
    assert learned_loss < before
    tuned.model.get_input_embeddings().prompt.data.copy_(usual)
    sources = {
        "train-far": {NAME: usual - 4 * (learned - usual)},
        "train-good": {NAME: learned},
        "train-usual": {NAME: usual},
    }
    words = start(tuned, sources, [batch])
    assert torch.equal(prompt_of(tuned), learned)
    assert evaluate_loss(tuned, [batch])[0] == learned_loss
    assert f"run train-good: validation loss {learned_loss:.3f}" in words
    assert f"{before:.3f} with prompt tuning's own start" in words
    assert f"not taken: train-usual {before:.3f}, train-far" in words


def test_one_source_is_taken_also_where_it_does_not_fit_and_that_is_told(tmp_path: Path) -> None:
    tuned = attached(tmp_path)
    usual = prompt_of(tuned)
    train_steps(tuned, get_method("spot"), 12)
    far = usual - 4 * (prompt_of(tuned) - usual)  # away from what would help
    tuned.model.get_input_embeddings().prompt.data.copy_(usual)
    words = start(tuned, {"train-far": {NAME: far}}, [batch_for(tuned)])
    assert torch.equal(prompt_of(tuned), far)
    assert "does not fit this task as it is" in words and "not taken" not in words


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({NAME: torch.zeros(4, 32)}, "should be one prompt of shape (5, 32)"),
        ({NAME: torch.zeros(5, 31)}, "should be one prompt of shape (5, 32)"),
        ({"model.layers.0.lora_A": torch.zeros(5, 32)}, "should be one prompt"),
        ({NAME: torch.full((5, 32), torch.nan)}, "no numbers"),
    ],
)
def test_what_is_no_such_prompt_changes_nothing(
    tmp_path: Path, tensors: dict[str, torch.Tensor], words: str
) -> None:
    tuned = attached(tmp_path)
    before = prompt_of(tuned)
    with pytest.raises(ModelError) as raised:
        start(tuned, {"train-x": tensors}, [batch_for(tuned)])
    assert words in str(raised.value) and torch.equal(prompt_of(tuned), before)


@pytest.mark.parametrize("source", ["../../etc", "train-1/..", "/etc/x", "latest", "sweep-1"])
def test_a_source_is_an_id_and_never_a_path(source: str) -> None:
    with pytest.raises(PlanError, match="source"):
        parse_options(get_method("spot"), {"source": source})


def test_without_a_source_no_base_is_loaded(tmp_path: Path) -> None:
    plan = finished_run(tmp_path, "spot").plan
    for weights in (tmp_path / "base").glob("*.safetensors"):
        weights.write_bytes(b"")  # whoever loads the base gets another error
    with pytest.raises(PlanError, match="no learned prompt to start from") as raised:
        assemble(plan, tmp_path / "data", tmp_path / "checkpoints")
    assert "Train a prompt tuning run first" in raised.value.fix
