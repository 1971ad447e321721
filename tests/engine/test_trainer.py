import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import engine.trainer
from engine.checkpoint_tensors import read_learned
from engine.checkpoints import best_checkpoint, newest_checkpoint
from engine.events import (
    Evaluated,
    Event,
    Failed,
    Finished,
    Noticed,
    Saved,
    Started,
    Stepped,
    Stopped,
)
from engine.language_model import FastPaths, LanguageModel
from engine.method import trainable
from engine.plan import Limits
from engine.trainer import Training, train
from templates.errors import PlanError
from tests.engine.tiny import save_tiny
from tests.engine.train_tiny import SCHEDULE, digest, tiny_training
from tests.faults import fault


def training(folder: Path, run: str = "run", method: str = "lora", **changes: object) -> Training:
    base = folder / "base"
    return tiny_training(
        base if base.exists() else save_tiny(base, "llama"), folder / run, method, **changes
    )


def at_call(number: int) -> Callable[[], bool]:
    """Somebody asks to stop just before the trainer looks for the n-th time."""
    calls = iter(range(1, 1000))
    return lambda: next(calls) >= number


def kinds(events: list[Event]) -> list[type]:
    return [type(event) for event in events]


def losses(events: list[Event]) -> list[tuple[int, float]]:
    return [(event.step, event.loss) for event in events if isinstance(event, Evaluated)]


def test_a_run_tells_its_story_and_learns(tmp_path: Path) -> None:
    task = training(tmp_path)
    events = list(train(task))
    assert kinds(events)[0] is Started and kinds(events)[-1] is Finished
    steps = [event for event in events if isinstance(event, Stepped)]
    assert [step.step for step in steps] == list(range(1, 13))
    evaluated = [event for event in events if isinstance(event, Evaluated)]
    assert [event.step for event in evaluated] == [3, 6, 9, 12]
    assert evaluated[-1].loss < evaluated[0].loss
    best = min(evaluated, key=lambda event: event.loss)
    assert events[-1].best_step == best.step and best.is_best
    assert events[-1].peak_memory_bytes > 10_000_000


def test_the_model_ends_with_its_best_weights(tmp_path: Path) -> None:
    task = training(tmp_path, schedule=SCHEDULE.model_copy(update={"learning_rate": 0.5}))
    events = list(train(task))
    assert isinstance(events[-1], Finished)
    folder = tmp_path / "run" / f"step-{events[-1].best_step:08d}"
    assert folder.is_dir(), "the best checkpoint is never pruned"
    assert len(list((tmp_path / "run").glob("step-*"))) <= 3


@pytest.mark.parametrize("method", ["lora", "full", "lomo", "qlora", "prompt_tuning"])
@pytest.mark.parametrize("interrupted_after", [1, 4, 8])
def test_resumed_ends_with_the_same_bits(
    tmp_path: Path, method: str, interrupted_after: int
) -> None:
    whole = training(tmp_path, "whole", method)
    list(train(whole))
    cut = train(training(tmp_path, "cut", method))
    for event in cut:
        if isinstance(event, Stepped) and event.step == interrupted_after:
            break
    cut.close()  # like a kill: nothing is saved on the way out
    again = training(tmp_path, "cut", method)
    events = list(train(again))
    assert events[0].first_step == interrupted_after // 3 * 3 + 1
    assert digest(whole) == digest(again)


def test_micro_batches_add_up_exactly(tmp_path: Path) -> None:
    found = []
    for size in (4096, 1):
        schedule = SCHEDULE.model_copy(update={"micro_batch_tokens": size})
        task = training(tmp_path, f"micro{size}", "full", schedule=schedule)
        steps = [event for event in train(task) if isinstance(event, Stepped)]
        found.append(steps)
    for whole, parts in zip(*found, strict=True):
        assert parts.loss == pytest.approx(whole.loss, rel=1e-5)
        assert parts.gradient_norm == pytest.approx(whole.gradient_norm, rel=1e-4)


def test_asked_to_stop_it_saves_and_resumes(tmp_path: Path) -> None:
    events = list(train(training(tmp_path), should_stop=at_call(3)))
    assert kinds(events) == [Started, Stepped, Stepped, Saved, Stopped]
    assert events[-1] == Stopped(2, None)
    final = training(tmp_path)
    again = list(train(final))
    assert again[0].first_step == 3 and isinstance(again[-1], Finished)
    whole = training(tmp_path, "whole")
    list(train(whole))
    assert digest(whole) == digest(final)


def test_a_stop_at_any_instant_costs_no_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between steps, micro-batches and validation batches: wherever the trainer looks."""
    changes = {
        "schedule": SCHEDULE.model_copy(update={"micro_batch_tokens": 1}),
        "limits": Limits(max_steps=4),
    }
    whole = training(tmp_path, "whole", **changes)
    list(train(whole))
    monkeypatch.setattr(engine.trainer, "_LONG_STEP_SECONDS", -1.0)
    for call in range(1, 40):
        run = f"stopped-{call}"
        stopped = list(train(training(tmp_path, run, **changes), should_stop=at_call(call)))
        if isinstance(stopped[-1], Finished):
            break
        assert isinstance(stopped[-1], Stopped)
        again = training(tmp_path, run, **changes)
        events = list(train(again))
        assert events[0].first_step == stopped[-1].step + 1
        assert digest(again) == digest(whole), f"stopped at look {call}"
    assert call == 4 + 10 + 2 * 4 + 1, "4 steps of 10 micro-batches, 2 evaluations of 4 batches"


def test_a_stop_during_an_evaluation_leaves_it_to_the_next_attempt(tmp_path: Path) -> None:
    """Three looks before the steps; the fifth is between two validation batches."""
    schedule = SCHEDULE.model_copy(update={"micro_batch_tokens": 1})
    events = list(train(training(tmp_path, schedule=schedule), should_stop=at_call(5)))
    assert kinds(events) == [Started, Stepped, Stepped, Stepped, Saved, Stopped]
    assert events[-1] == Stopped(3, None) and not events[-2].is_best
    again = list(train(training(tmp_path, schedule=schedule)))
    assert kinds(again)[:3] == [Started, Evaluated, Saved]
    assert again[0].first_step == 4 and again[1].step == 3 and again[2].is_best
    whole = list(train(training(tmp_path, "whole", schedule=schedule)))
    assert losses(again) == losses(whole)


def test_a_stop_during_the_last_evaluation_can_go_on_too(tmp_path: Path) -> None:
    limits = Limits(max_steps=3)
    events = list(train(training(tmp_path, limits=limits), should_stop=at_call(4)))
    assert kinds(events)[-2:] == [Saved, Stopped] and events[-1].step == 3
    again = list(train(training(tmp_path, limits=limits)))
    assert kinds(again) == [Started, Evaluated, Saved, Finished]
    assert again[-1].best_step == 3


def test_a_short_step_is_ended_and_a_long_one_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule = SCHEDULE.model_copy(update={"micro_batch_tokens": 1})
    looks = []
    task = training(tmp_path, schedule=schedule, limits=Limits(max_steps=2))
    list(train(task, should_stop=lambda: bool(looks.append(1))))
    assert len(looks) == 2 + 4, "before every step and every validation batch, nowhere else"
    monkeypatch.setattr(engine.trainer, "_LONG_STEP_SECONDS", -1.0)
    task = training(tmp_path, "long", schedule=schedule)
    events = list(train(task, should_stop=at_call(3)))
    assert kinds(events) == [Started, Stopped] and events[-1] == Stopped(0, None)
    assert not (tmp_path / "long").exists(), "there is nothing to save before the first step"
    learned = trainable(task.language_model.model).values()
    assert all(parameter.grad is None for parameter in learned), "half a step is no step"


def test_a_stop_right_after_a_resume_saves_nothing_anew(tmp_path: Path) -> None:
    list(train(training(tmp_path), pause_at_step=4))
    before = {path: path.stat().st_ino for path in (tmp_path / "run").iterdir()}
    events = list(train(training(tmp_path), should_stop=lambda: True))
    assert kinds(events) == [Started, Stopped]
    assert events[-1].step == 4 and events[-1].best_loss is not None
    assert {path: path.stat().st_ino for path in (tmp_path / "run").iterdir()} == before


@pytest.mark.parametrize("pauses", [(1,), (3,), (5, 8), (2, 3, 9, 11)])
def test_a_run_that_paused_ends_with_the_same_bits(tmp_path: Path, pauses: tuple[int]) -> None:
    whole = training(tmp_path, "whole")
    story = list(train(whole))
    told: list[Event] = []
    for pause in pauses:
        told += train(training(tmp_path), pause_at_step=pause)
        best = min((loss for _, loss in losses(told)), default=None)
        assert told[-1] == Stopped(pause, best)
        assert isinstance(told[-2], Saved) and told[-2].step == pause
    final = training(tmp_path)
    told += train(final, pause_at_step=12)
    assert isinstance(told[-1], Finished), "the last step is no pause"
    assert losses(told) == losses(story)
    assert digest(final) == digest(whole)


def test_a_run_that_stands_past_its_pause_does_not_move(tmp_path: Path) -> None:
    list(train(training(tmp_path), pause_at_step=5))
    for pause in (5, 4):
        events = list(train(training(tmp_path), pause_at_step=pause))
        assert kinds(events) == [Started, Stopped] and events[-1].step == 5
    list(train(training(tmp_path)))
    events = list(train(training(tmp_path), pause_at_step=5))
    assert kinds(events) == [Started, Finished], "a finished run stays finished"


def test_stops_early_when_validation_stops_falling(tmp_path: Path) -> None:
    schedule = SCHEDULE.model_copy(update={"patience": 1, "learning_rate": 2.0, "epochs": 20})
    events = list(train(training(tmp_path, schedule=schedule)))
    assert isinstance(events[-1], Finished)
    assert "no better validation loss in 1 evaluations" in events[-1].reason
    assert events[-1].step < events[0].total_steps


def without_room_for(monkeypatch: pytest.MonkeyPatch, most_tokens: int) -> None:
    """Whatever is larger than that does not fit into memory, in a step or an evaluation."""

    def checked(whole: Callable[..., Any]) -> Callable[..., Any]:
        def run(language_model: LanguageModel, batches: Any, **others: Any) -> Any:
            several = batches if isinstance(batches, list) else [batches]
            if max(batch.ids.numel() for batch in several) > most_tokens:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried …")
            return whole(language_model, batches, **others)

        return run

    for name in ("loss_sum", "evaluate_loss"):
        monkeypatch.setattr(engine.trainer, name, checked(getattr(engine.trainer, name)))


@fault(13, "A batch does not fit into memory", "Split and told; same effective batch, same loss")
def test_a_batch_that_does_not_fit_is_split_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = list(train(training(tmp_path, "plain", "full")))
    with monkeypatch.context() as patched:
        without_room_for(patched, 60)
        whole = training(tmp_path, "whole", "full")
        events = list(train(whole))
        list(train(training(tmp_path, "cut", "full"), pause_at_step=5))
        again = training(tmp_path, "cut", "full")
        list(train(again))
    told = [event.words for event in events if isinstance(event, Noticed)]
    assert told and all("Memory ran out: from here on" in words for words in told)
    assert len(told) < 4, "what did not fit once is not tried again"
    assert [step for step, _ in losses(events)] == [step for step, _ in losses(plain)]
    assert [loss for _, loss in losses(events)] == pytest.approx(
        [loss for _, loss in losses(plain)], rel=1e-4
    )
    assert digest(again) == digest(whole), "a resumed run goes on with as many at once"


def test_an_example_that_does_not_fit_alone_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_room_for(monkeypatch, 5)
    with pytest.raises(RuntimeError, match="can't allocate"):
        list(train(training(tmp_path)))


def spoiled(monkeypatch: pytest.MonkeyPatch, *calls: int) -> None:
    """Some losses of steps are no number, although the weights are fine."""
    numbers, whole = iter(range(1, 1000)), engine.trainer.loss_sum

    def loss_sum(*arguments: Any) -> torch.Tensor:
        return whole(*arguments) * (math.inf if next(numbers) in calls else 1.0)

    monkeypatch.setattr(engine.trainer, "loss_sum", loss_sum)


@fault(14, "A step's loss is no number, the weights are fine", "Left out and told; the run goes on")
def test_a_step_without_a_number_is_left_out_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoiled(monkeypatch, 2, 5)
    task = training(tmp_path)
    events = list(train(task))
    told = [event.words for event in events if isinstance(event, Noticed)]
    assert told == [
        f"Step {step} was left out, because its loss or gradient was no number ({so_far} of at "
        "most 3)" for step, so_far in ((2, 1), (5, 2))
    ]  # fmt: skip
    assert [event.step for event in events if isinstance(event, Stepped)] == [
        1, 3, 4, 6, 7, 8, 9, 10, 11, 12,
    ]  # fmt: skip
    assert isinstance(events[-1], Finished) and math.isfinite(events[-1].best_loss)
    assert newest_checkpoint(task.checkpoints)[0].state.steps_left_out == 2


def test_a_gradient_that_is_no_number_is_left_out_although_the_loss_is_one(tmp_path: Path) -> None:
    task = training(tmp_path)
    learned = trainable(task.language_model.model)
    calls: list[torch.Tensor] = []
    before: dict[str, torch.Tensor] = {}

    def spoil(gradient: torch.Tensor) -> torch.Tensor:
        calls.append(gradient)
        if len(calls) != 2:
            return gradient
        before.update({name: value.detach().clone() for name, value in learned.items()})
        return gradient * math.nan

    next(iter(learned.values())).register_hook(spoil)
    told = []
    for event in train(task):
        if isinstance(event, Noticed):
            told.append(event.words)
            assert all(torch.equal(before[name], value) for name, value in learned.items())
    assert len(told) == 1 and "Step 2 was left out" in told[0]
    assert isinstance(event, Finished)
    assert all(bool(value.isfinite().all()) for value in learned.values())


@pytest.mark.parametrize("most", [0, 1])
def test_too_many_steps_without_a_number_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    spoiled(monkeypatch, 2, 4)
    events = list(train(training(tmp_path, limits=Limits(most_steps_left_out=most))))
    assert isinstance(events[-1], Failed) and f"step {2 + 2 * most}" in events[-1].what


@pytest.mark.parametrize("method", ["lora", "full", "qlora", "prompt_tuning"])
def test_layers_computed_twice_learn_the_same(tmp_path: Path, method: str) -> None:
    plain = training(tmp_path, "plain", method)
    list(train(plain))
    schedule = plain.schedule.model_copy(update={"recomputes": True})
    twice = training(tmp_path, "twice", method, schedule=schedule)
    list(train(twice))
    assert digest(twice) == digest(plain)


def test_what_was_not_proven_is_told_at_the_start(tmp_path: Path) -> None:
    task = training(tmp_path, "padded", "full")
    assert task.language_model.paths.packs and task.language_model.paths.notices == ()
    task.language_model.paths = FastPaths(notices=("packing is off",))
    events = list(train(task))
    assert events[0].notices == ("packing is off",)
    packed = list(train(training(tmp_path, "packed", "full")))
    assert [loss for _, loss in losses(events)] == pytest.approx(
        [loss for _, loss in losses(packed)], rel=1e-4
    )


def test_rows_without_anything_to_learn_are_refused_before_the_start(tmp_path: Path) -> None:
    task = training(tmp_path)
    silent = [replace(item, supervised=(False,) * len(item.ids)) for item in task.train]
    with pytest.raises(PlanError, match="No row has a token for the loss to see"):
        next(train(replace(task, train=silent)))


@fault(14, "The loss is no longer a number", "Failed with advice; never saved as best")
def test_a_diverging_run_fails_with_advice_and_saves_no_nan(tmp_path: Path) -> None:
    task = training(tmp_path)
    events = []
    for event in train(task):
        events.append(event)
        if isinstance(event, Saved):
            next(iter(trainable(task.language_model.model).values())).data.fill_(math.nan)
    assert isinstance(events[-1], Failed)
    assert "step 4" in events[-1].what and "learning rate" in events[-1].fix
    assert [event.step for event in events if isinstance(event, Saved)] == [3]


def test_an_evaluation_that_is_no_number_leaves_the_best_alone(tmp_path: Path) -> None:
    task = training(tmp_path)
    events = []
    for event in train(task):
        events.append(event)
        if isinstance(event, Stepped) and event.step == 6:
            next(iter(trainable(task.language_model.model).values())).data.fill_(math.nan)
    assert isinstance(events[-1], Failed) and "step 6" in events[-1].what
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["step-00000003"]
    learned = read_learned(best_checkpoint(tmp_path / "run"))
    assert all(tensor.isfinite().all() for tensor in learned.values())


def test_max_steps_ends_the_run(tmp_path: Path) -> None:
    events = list(train(training(tmp_path, limits=Limits(max_steps=2))))
    assert events[-1].step == 2 and isinstance(events[-1], Finished)


def test_nothing_to_learn_from_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="rows to learn from"):
        list(train(training(tmp_path, validation=[])))
