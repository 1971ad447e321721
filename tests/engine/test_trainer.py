import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine.encode import encode_example
from engine.events import Evaluated, Event, Failed, Finished, Saved, Started, Stepped, Stopped
from engine.method import attach_method, parse_options, trainable
from engine.methods import get_method
from engine.plan import Limits, Schedule
from engine.trainer import Training, train
from templates.errors import PlanError
from tests.engine.tiny import TEMPLATE, TICKETS, tiny_model

SCHEDULE = Schedule(
    learning_rate=5e-3, epochs=4, batch_size=3, micro_batch_size=3, evaluations_per_epoch=1
)


def training(folder: Path, run: str = "run", method: str = "lora", **changes: object) -> Training:
    spec = get_method(method)
    base = tiny_model(folder / "base", "llama", spec.precisions[0])
    options = {"rank": 4, "dropout": 0.3} if method == "lora" else {}
    tuned = attach_method(base, spec, parse_options(spec, options), seed=3)
    items = [encode_example(tuned, ticket, TEMPLATE) for ticket in TICKETS]
    whole = Training(tuned, items, items[:4], SCHEDULE, Limits(), 5, folder / run)
    return replace(whole, **changes)


def weights(task: Training) -> dict[str, torch.Tensor]:
    return {k: v.detach().clone() for k, v in trainable(task.language_model.model).items()}


def equal(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(left[name], right[name]) for name in left)


def kinds(events: list[Event]) -> list[type]:
    return [type(event) for event in events]


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


@pytest.mark.parametrize("method", ["lora", "full", "qlora", "prompt_tuning"])
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
    assert equal(weights(whole), weights(again))


def test_micro_batches_add_up_exactly(tmp_path: Path) -> None:
    losses = []
    for size in (3, 1):
        schedule = SCHEDULE.model_copy(update={"micro_batch_size": size})
        task = training(tmp_path, f"micro{size}", "full", schedule=schedule)
        steps = [event for event in train(task) if isinstance(event, Stepped)]
        losses.append([step.loss for step in steps])
        norm = steps[0].gradient_norm
    assert losses[0] == pytest.approx(losses[1], abs=2e-4)
    assert norm > 0


def test_asked_to_stop_it_saves_and_resumes(tmp_path: Path) -> None:
    task = training(tmp_path)
    steps = iter(range(100))
    events = list(train(task, should_stop=lambda: next(steps) == 1))
    assert kinds(events)[-2:] == [Saved, Stopped]
    assert events[-1].step == 2
    again = list(train(training(tmp_path)))
    assert again[0].first_step == 3 and isinstance(again[-1], Finished)
    whole = training(tmp_path, "whole")
    list(train(whole))
    final = training(tmp_path)
    list(train(final))
    assert equal(weights(whole), weights(final))


def test_stops_early_when_validation_stops_falling(tmp_path: Path) -> None:
    schedule = SCHEDULE.model_copy(update={"patience": 1, "learning_rate": 2.0, "epochs": 20})
    events = list(train(training(tmp_path, schedule=schedule)))
    assert isinstance(events[-1], Finished)
    assert "no better validation loss in 1 evaluations" in events[-1].reason
    assert events[-1].step < events[0].total_steps


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


def test_max_steps_ends_the_run(tmp_path: Path) -> None:
    events = list(train(training(tmp_path, limits=Limits(max_steps=2))))
    assert events[-1].step == 2 and isinstance(events[-1], Finished)


def test_nothing_to_learn_from_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="rows to learn from"):
        list(train(training(tmp_path, validation=[])))
