"""LoRA+: B takes larger steps than A, also in a run that was interrupted."""

from pathlib import Path

import pytest
import torch

from engine.checkpoint_tensors import read_learned
from engine.checkpoints import newest_checkpoint
from engine.events import Stepped
from engine.method import parse_options, trainable
from engine.methods import get_method
from engine.plan import Schedule
from engine.trainer import Training, train
from tests.engine.methods.low_rank import exported, in_peft, logits_of, tuned_model
from tests.engine.tiny import save_tiny
from tests.engine.train_tiny import SCHEDULE, digest, tiny_training

SPEC = get_method("lora_plus")


def training(folder: Path, checkpoints: str, ratio: float) -> Training:
    options = {"rank": 4, "rate_ratio": ratio}
    return tiny_training(
        save_tiny(folder / "base", "llama"),
        folder / checkpoints,
        "lora_plus",
        options=options,
        schedule=SCHEDULE.model_copy(update={"learning_rate": 1e-3, "warmup_ratio": 0.0}),
    )


def after_one_step(task: Training) -> dict[str, torch.Tensor]:
    start = {name: value.detach().clone() for name, value in _learned(task).items()}
    run = train(task)
    for event in run:
        if isinstance(event, Stepped):
            break
    run.close()
    return {name: value.detach() - start[name] for name, value in _learned(task).items()}


def _learned(task: Training) -> dict[str, torch.nn.Parameter]:
    return trainable(task.language_model.model)


def test_the_first_step_of_b_is_as_many_times_larger_as_chosen(tmp_path: Path) -> None:
    # AdamW's first step is as long as the rate wherever there is a gradient; A has none while B
    # is zero.
    one = after_one_step(training(tmp_path, "one", 1))
    many = after_one_step(training(tmp_path, "many", 8))
    for name, step in many.items():
        factor = 8 if name.endswith("lora_B") else 1
        torch.testing.assert_close(step, factor * one[name])
    assert any(step.abs().max() > 0 for name, step in many.items() if name.endswith("lora_B"))


def test_every_value_is_in_one_group_with_its_ratio(tmp_path: Path) -> None:
    learned = trainable(tuned_model(tmp_path, "llama", "lora_plus").model)
    options = parse_options(SPEC, {})
    groups = SPEC.new_optimizer(options)(learned, Schedule(learning_rate=1)).param_groups
    by_ratio = {group["rate_ratio"]: {id(value) for value in group["params"]} for group in groups}
    assert by_ratio == {
        1.0: {id(value) for name, value in learned.items() if name.endswith("lora_A")},
        16: {id(value) for name, value in learned.items() if name.endswith("lora_B")},
    }


def test_resumed_ends_with_the_same_bits(tmp_path: Path) -> None:
    whole = training(tmp_path, "whole", 8)
    list(train(whole))
    cut = train(training(tmp_path, "cut", 8))
    for event in cut:
        if isinstance(event, Stepped) and event.step == 4:
            break
    cut.close()  # like a kill: nothing is saved on the way out
    checkpoint, _ = newest_checkpoint(tmp_path / "cut")
    assert checkpoint and checkpoint.state.step == 3 and read_learned(checkpoint)
    again = training(tmp_path, "cut", 8)
    list(train(again))
    assert digest(again) == digest(whole)
    other = training(tmp_path, "other", 1)
    list(train(other))
    assert digest(other) != digest(whole)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_peft_computes_the_same(tmp_path: Path, architecture: str) -> None:
    tuned = tuned_model(tmp_path, architecture, "lora_plus", rank=4)
    exported(tmp_path, tuned, "lora_plus", rank=4)
    theirs = logits_of(in_peft(tmp_path, architecture))
    assert torch.allclose(logits_of(tuned.model), theirs, atol=1e-4)
