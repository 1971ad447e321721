import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import engine.trainer
from engine.events import Failed, Finished, Noticed, Stepped
from engine.method import trainable
from engine.optimizers import Lomo, adamw, backward, clip_gradients
from engine.plan import Limits, Schedule
from engine.trainer import Training, train
from tests.engine.tiny import save_tiny
from tests.engine.train_tiny import SCHEDULE, digest, tiny_training
from tests.faults import fault

RATE = 0.25


def two_layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1))


def lomo_for(model: nn.Module, **settings: float) -> Lomo:
    optimizer = Lomo(dict(model.named_parameters()), Schedule(learning_rate=1, **settings))
    optimizer.param_groups[0]["lr"] = RATE
    return optimizer


def loss_of(model: nn.Module, factor: float = 1.0) -> Tensor:
    rows = torch.linspace(-1, 1, 24).view(4, 6)
    return factor * model(rows).square().mean()


def gradients(model: nn.Module, factor: float = 1.0) -> list[Tensor]:
    return list(torch.autograd.grad(loss_of(model, factor), list(model.parameters())))


def weights(model: nn.Module) -> list[Tensor]:
    return [value.detach().clone() for value in model.parameters()]


def test_lomo_takes_the_step_of_plain_gradient_descent_and_keeps_no_gradient() -> None:
    model = two_layers()
    optimizer = lomo_for(model, max_gradient_norm=100, weight_decay=0.1)
    before, found = weights(model), gradients(model)
    backward(loss_of(model), optimizer, 1.0)
    for old, gradient, new in zip(before, found, weights(model), strict=True):
        torch.testing.assert_close(new, old * (1 - RATE * 0.1) - RATE * gradient)
    assert all(value.grad is None for value in model.parameters())
    norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in found))
    assert clip_gradients(optimizer, 100) == pytest.approx(norm)
    assert not optimizer.state, "there is nothing to keep"
    loss_of(model).backward()
    assert all(value.grad is not None for value in model.parameters()), "no hook is left"


def test_only_one_gradient_is_there_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model = two_layers()
    optimizer = lomo_for(model)
    counts = []
    rule = optimizer._rule

    def counting(*arguments: object) -> object:
        learn = rule(*arguments)  # type: ignore[arg-type]

        def count(weight: Tensor) -> None:
            counts.append(sum(value.grad is not None for value in model.parameters()))
            learn(weight)

        return count

    monkeypatch.setattr(optimizer, "_rule", counting)
    backward(loss_of(model), optimizer, 1.0)
    assert counts == [1, 1, 1, 1]


@pytest.mark.parametrize("batch_share", [1.0, 0.25])
def test_no_step_is_longer_than_the_clip_allows(batch_share: float) -> None:
    model = two_layers()
    optimizer = lomo_for(model, max_gradient_norm=0.5)
    before = weights(model)
    backward(loss_of(model, 1e4), optimizer, batch_share)
    moved = [new - old for new, old in zip(weights(model), before, strict=True)]
    norms = [float(step.norm()) / RATE for step in moved]
    assert norms == pytest.approx([batch_share * 0.5 / math.sqrt(4)] * 4, rel=1e-4)
    assert math.hypot(*norms) == pytest.approx(batch_share * 0.5, rel=1e-4)
    for step, gradient in zip(moved, gradients(model, 1e4), strict=True):
        assert step.shape == gradient.shape


def test_micro_batches_add_up_to_the_norm_that_is_told() -> None:
    model = two_layers()
    optimizer = lomo_for(model)
    optimizer.param_groups[0]["lr"] = 0.0
    whole = math.sqrt(sum(float(part.square().sum()) for part in gradients(model)))
    for _ in range(2):
        backward(loss_of(model, 0.5), optimizer, 0.5)
    assert clip_gradients(optimizer, 1.0) == pytest.approx(whole)
    optimizer.step()
    optimizer.zero_grad()
    assert clip_gradients(optimizer, 1.0) == 0


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_gradient_that_is_no_number_touches_nothing_until_the_next_step(broken: float) -> None:
    model = two_layers()
    optimizer = lomo_for(model)
    before = weights(model)
    backward(loss_of(model, broken), optimizer, 0.5)
    backward(loss_of(model), optimizer, 0.5)
    assert all(torch.equal(old, new) for old, new in zip(before, weights(model), strict=True))
    assert not math.isfinite(clip_gradients(optimizer, 1.0))
    optimizer.zero_grad()
    backward(loss_of(model), optimizer, 1.0)
    assert math.isfinite(clip_gradients(optimizer, 1.0))
    assert not any(torch.equal(old, new) for old, new in zip(before, weights(model), strict=True))


def test_a_tied_weight_learns_once_from_both_of_its_places() -> None:
    torch.manual_seed(0)
    embedding, head = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
    head.weight = embedding.weight
    model = nn.Sequential(embedding, head)

    def loss() -> Tensor:
        return model(torch.tensor([1, 2, 3])).square().mean()

    (expected,) = torch.autograd.grad(loss(), [embedding.weight])
    before = embedding.weight.detach().clone()
    backward(loss(), lomo_for(model, max_gradient_norm=100), 1.0)
    torch.testing.assert_close(embedding.weight.detach(), before - RATE * expected)


def test_adamw_clips_the_norm_of_all_and_is_fused() -> None:
    model = two_layers()
    optimizer = adamw(dict(model.named_parameters()), Schedule(learning_rate=1, weight_decay=0.1))
    assert optimizer.param_groups[0]["fused"] and optimizer.param_groups[0]["weight_decay"] == 0.1
    backward(loss_of(model, 100), optimizer, 1.0)
    norm = clip_gradients(optimizer, 0.5)
    found = [value.grad for value in model.parameters() if value.grad is not None]
    assert norm > 0.5 and len(found) == 4
    assert math.hypot(*(float(part.norm()) for part in found)) == pytest.approx(0.5, rel=1e-4)


def lomo_training(folder: Path, run: str = "run", **changes: object) -> Training:
    base = folder / "base"
    base = base if base.exists() else save_tiny(base, "llama")
    return tiny_training(base, folder / run, "lomo", **changes)


def test_lomo_recomputes_and_splits_batches_with_about_the_same_result(tmp_path: Path) -> None:
    found = {}
    for name, changes in {
        "whole": {}, "split": {"micro_batch_tokens": 1}, "recomputed": {"recomputes": True},
    }.items():  # fmt: skip
        task = lomo_training(tmp_path, name, schedule=SCHEDULE.model_copy(update=changes))
        events = list(train(task))
        assert isinstance(events[-1], Finished)
        found[name] = [event.loss for event in events if isinstance(event, Stepped)]
    assert found["recomputed"] == pytest.approx(found["whole"], abs=1e-4)
    assert found["split"] == pytest.approx(found["whole"], rel=0.1)
    assert found["split"] != found["whole"], "each micro-batch meets what the one before taught"


def test_a_long_step_of_lomo_is_ended_not_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.trainer, "_LONG_STEP_SECONDS", -1.0)
    schedule = SCHEDULE.model_copy(update={"micro_batch_tokens": 1})
    looks = iter([False, True])
    events = list(
        train(lomo_training(tmp_path, schedule=schedule), should_stop=lambda: next(looks))
    )
    assert [event.step for event in events if isinstance(event, Stepped)] == [1]
    again = lomo_training(tmp_path, schedule=schedule)
    list(train(again))
    whole = lomo_training(tmp_path, "whole", schedule=schedule)
    list(train(whole))
    assert digest(again) == digest(whole)


@fault(14, "A gradient of LOMO is no number", "No weight takes it; told, or Failed with advice")
@pytest.mark.parametrize("most_steps_left_out", [3, 0])
def test_a_step_of_lomo_without_a_number_is_left_out(
    tmp_path: Path, most_steps_left_out: int
) -> None:
    task = lomo_training(tmp_path, limits=Limits(most_steps_left_out=most_steps_left_out))
    weight = task.language_model.model.model.layers[1].mlp.down_proj.weight
    calls = []

    def spoil(gradient: Tensor) -> Tensor:
        calls.append(gradient)
        return gradient * math.nan if len(calls) == 2 else gradient

    weight.register_hook(spoil)
    events = list(train(task))
    if most_steps_left_out:
        told = [event.words for event in events if isinstance(event, Noticed)]
        assert len(told) == 1 and "Step 2 was left out" in told[0]
        assert isinstance(events[-1], Finished)
    else:
        assert isinstance(events[-1], Failed) and "step 2" in events[-1].what
    learned = trainable(task.language_model.model).values()
    assert all(bool(value.isfinite().all()) for value in learned)


def test_every_method_trains_with_its_own_optimizer(tmp_path: Path) -> None:
    task = lomo_training(tmp_path)
    made = task.new_optimizer(trainable(task.language_model.model), task.schedule)
    assert isinstance(made, Lomo)
    plain = replace(task, new_optimizer=adamw)
    assert not isinstance(plain.new_optimizer({"w": nn.Parameter(torch.ones(1))}, SCHEDULE), Lomo)
