"""The training loop: a generator of events, the same on a laptop and on a cluster.

Step s of a run depends on the plan, the data and the state after step s - 1, and on nothing else:
batches are drawn from (seed, epoch), dropout from (seed, step). So a run resumed from a checkpoint
ends, on the same machine, with the same bits as one that was never interrupted.
"""

import math
import resource
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn

from engine.attention import attending_to_packed_rows
from engine.batches import Batch, collate, epoch_batches, micro_batches
from engine.checkpoint_tensors import read_learned, read_optimizer, save_checkpoint
from engine.checkpoints import (
    Checkpoint,
    TrainerState,
    best_checkpoint,
    newest_checkpoint,
    prune_checkpoints,
)
from engine.encode import Encoded
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
from engine.language_model import LanguageModel
from engine.liveness import is_out_of_memory
from engine.loss import evaluate_loss, loss_sum
from engine.method import count_parameters, load_trained, trainable
from engine.optimizers import (
    Lomo,
    NewOptimizer,
    adamw,
    backward,
    begin_step,
    clip_gradients,
)
from engine.plan import Limits, Schedule
from engine.sampling import Sampler
from engine.schedules import learning_rate_at, num_steps, steps_between_evaluations
from engine.stem import keep_stem
from templates.errors import PlanError

_KEEP_NEWEST = 2
# A step that takes longer than this is given up when somebody asks to stop; a shorter one is ended.
_LONG_STEP_SECONDS = 2.0


@dataclass(frozen=True)
class Training:
    """All that a run needs, already in memory.

    Attributes:
        language_model: the base with the method attached and initialised.
        train: encoded training items.
        validation: encoded validation items.
        schedule: how fast and how long.
        limits: where to end.
        seed: fixes batches and dropout.
        checkpoints: the run's checkpoint folder.
        notices: sentences to show with the start.
        new_optimizer: makes the optimizer of the learned parameters; a group of its own with a
            "rate_ratio" learns at that multiple of the schedule's rate.
    """

    language_model: LanguageModel
    train: Sequence[Encoded]
    validation: Sequence[Encoded]
    schedule: Schedule
    limits: Limits
    seed: int
    checkpoints: Path
    notices: tuple[str, ...] = ()
    new_optimizer: NewOptimizer = adamw

    def with_less_at_once(self, halvings: int) -> "Training":
        """Hold fewer tokens in memory at once; a step still learns from as many examples.

        Args:
            halvings: how often memory ran out so that the run could not go on by itself.

        Returns:
            The training, with a notice where it differs.
        """
        if not halvings:
            return self
        size = max(1, self.schedule.micro_batch_tokens >> halvings)
        schedule = self.schedule.model_copy(update={"micro_batch_tokens": size})
        return replace(self, schedule=schedule, notices=(*self.notices, _less_at_once(size)))

    @property
    def batches_per_epoch(self) -> int:
        """Optimizer steps of one pass."""
        return math.ceil(len(self.train) / self.schedule.batch_size)

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        return num_steps(len(self.train), self.schedule, self.limits.max_steps)

    @property
    def steps_between_evaluations(self) -> int:
        """Optimizer steps from one validation pass to the next."""
        return steps_between_evaluations(len(self.train), self.schedule)


def train(
    training: Training,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    pause_at_step: int = 0,
    sampler: Sampler | None = None,
) -> Iterator[Event]:
    """Train, or go on where the newest sound checkpoint stands.

    A run that was stopped or paused and goes on later ends with the bits of one that never was.
    Afterwards the model holds the weights of the best validation loss.

    Args:
        training: model, data and schedule.
        should_stop: asked after every step, between the micro-batches of a long one and between
            the batches of an evaluation; True saves and ends the attempt as Stopped.
        pause_at_step: the attempt ends there as Stopped, after the evaluation where one is due;
            0 or the last step: go on to the end.
        sampler: answers examples before the first step and after evaluations.

    Yields:
        Events in the order they happen. Failed is the last one when the loss diverges.

    Raises:
        PlanError: there is nothing to learn from, or nothing that learns.
    """
    if not training.train or not training.validation:
        raise PlanError(
            "Training needs rows to learn from and rows to validate on",
            fix="Prepare the data with a larger training or validation share",
        )
    for items in (training.train, training.validation):
        if not any(item.num_supervised for item in items):
            raise PlanError(
                "No row has a token for the loss to see",
                fix="Give the rows answers, or prepare the data with a template that has them",
            )
    started_at = time.monotonic()
    model = training.language_model.model
    if training.schedule.recomputes:
        _recompute(training.language_model)
    learned = trainable(model)
    optimizer = training.new_optimizer(learned, training.schedule)
    checkpoint, notices = newest_checkpoint(training.checkpoints)
    state = TrainerState(step=0)
    if checkpoint:
        state = _restore(checkpoint, model, optimizer)
    yield Started(
        total_steps=training.total_steps,
        first_step=state.step + 1,
        num_trainable=count_parameters(learned.values()),
        num_parameters=count_parameters(model.parameters()),
        notices=(*training.notices, *training.language_model.paths.notices, *notices),
    )
    training, words = _with_stem(training, should_stop)
    if words:
        yield Noticed(words)
    validation = _validation_batches(training, state)
    draws = _draws(training, state.step + 1)
    items = next(draws)
    saved = state
    if sampler and not state.step:
        yield from sampler.sample(0, should_stop)
    while not _is_over(training, state):
        if state.evaluation_due:
            before = time.monotonic()
            try:
                scores = evaluate_loss(training.language_model, validation, should_stop=should_stop)
            except Exception as error:
                state = _with_less_at_once(state, validation, error)
                yield Noticed(_less_at_once(state.micro_batch_tokens))
                validation = _validation_batches(training, state)
                continue
            if scores is None:
                break
            loss, accuracy = scores
            if not math.isfinite(loss):
                yield _diverged(state.step, training)
                return
            state = saved = _judged(state, loss)
            is_best = state.best_step == state.step
            yield Evaluated(state.step, loss, accuracy, is_best, time.monotonic() - before)
            yield _save(training, state, optimizer)
            if sampler:  # after the save, so that nothing is lost where it takes long
                yield from sampler.sample(state.step, should_stop)
        elif 0 < pause_at_step <= state.step or should_stop():
            break
        else:
            before = time.monotonic()
            batches = _micro_batches(training, state, items)
            try:
                total = _add_up(training, optimizer, state.step + 1, batches, should_stop)
            except Exception as error:
                optimizer.zero_grad(set_to_none=True)
                state = _with_less_at_once(state, batches, error)
                yield Noticed(_less_at_once(state.micro_batch_tokens))
                continue
            if total is None:
                optimizer.zero_grad(set_to_none=True)
                break
            num_tokens = sum(batch.num_tokens for batch in batches)
            stepped = _update(training, optimizer, state.step + 1, total, num_tokens, before)
            left_out = not _is_number(stepped)
            if left_out and not _may_be_left_out(training, state, learned):
                yield _diverged(stepped.step, training)
                return
            state = state.model_copy(
                update={
                    "step": stepped.step,
                    "evaluation_due": _ends_with_evaluation(training, stepped.step),
                    "steps_left_out": state.steps_left_out + left_out,
                }
            )
            items = next(draws)
            yield _left_out(training, state) if left_out else stepped
    if not _is_over(training, state):
        if state != saved:
            yield _save(training, state, optimizer)
        yield Stopped(state.step, state.best_loss)
        return
    finished_early = _is_out_of_patience(training, state)
    load_trained(model, read_learned(best_checkpoint(training.checkpoints)))
    model.eval()
    early = f"no better validation loss in {training.schedule.patience} evaluations"
    yield Finished(
        step=state.step,
        best_step=state.best_step,
        best_loss=state.best_loss or 0.0,
        reason=early if finished_early else "all steps taken",
        seconds=time.monotonic() - started_at,
        peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


def _with_stem(training: Training, should_stop: Callable[[], bool]) -> tuple[Training, str]:
    """Keep what frozen blocks make of the examples, where they are read more than once."""
    if training.total_steps <= training.batches_per_epoch:
        return training, ""
    language_model, words = keep_stem(
        training.language_model,
        chain(training.train, training.validation),
        most_tokens=training.schedule.micro_batch_tokens,
        folder=training.checkpoints.parent,
        should_stop=should_stop,
    )
    return replace(training, language_model=language_model), words


def _is_over(training: Training, state: TrainerState) -> bool:
    if state.evaluation_due:
        return False
    return state.step >= training.total_steps or _is_out_of_patience(training, state)


def _is_out_of_patience(training: Training, state: TrainerState) -> bool:
    return state.evaluations_without_gain >= training.schedule.patience


def _ends_with_evaluation(training: Training, step: int) -> bool:
    return step % training.steps_between_evaluations == 0 or step == training.total_steps


def _add_up(
    training: Training,
    optimizer: torch.optim.Optimizer,
    step: int,
    batches: list[Batch],
    should_stop: Callable[[], bool],
) -> float | None:
    """Add up the gradients of one step: exact mean loss per supervised token over all batches.

    None where it was given up: then the run stands at the step before. LOMO, which learns at once,
    is never given up; where memory runs out, it learns from the batches before once more.
    """
    before = time.monotonic()
    torch.manual_seed(training.seed * 1_000_003 + step)  # dropout of this step, also on resume
    training.language_model.model.train()
    rate = learning_rate_at(step, training.total_steps, training.schedule)
    begin_step(optimizer, rate, step / training.total_steps)
    num_supervised = max(1, sum(batch.num_supervised for batch in batches))
    may_be_given_up = not isinstance(optimizer, Lomo)
    total = 0.0
    for batch in batches:
        is_long = time.monotonic() - before > _LONG_STEP_SECONDS
        if is_long and may_be_given_up and should_stop():
            return None
        loss = loss_sum(training.language_model, batch) / num_supervised
        backward(loss, optimizer, batch.num_supervised / num_supervised)
        total += float(loss.detach())
    return total


def _update(
    training: Training,
    optimizer: torch.optim.Optimizer,
    step: int,
    loss: float,
    num_tokens: int,
    before: float,
) -> Stepped:
    """Take one optimizer step, unless its loss or gradient is no number."""
    norm = clip_gradients(optimizer, training.schedule.max_gradient_norm)
    rate = learning_rate_at(step, training.total_steps, training.schedule)
    stepped = Stepped(step, loss, rate, norm, num_tokens, time.monotonic() - before)
    if _is_number(stepped):
        optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return replace(stepped, seconds=time.monotonic() - before)


def _is_number(stepped: Stepped) -> bool:
    return math.isfinite(stepped.loss) and math.isfinite(stepped.gradient_norm)


def _may_be_left_out(
    training: Training, state: TrainerState, learned: Mapping[str, nn.Parameter]
) -> bool:
    """Say whether another batch may still give a number: not where the weights are none."""
    if state.steps_left_out >= training.limits.most_steps_left_out:
        return False
    return all(bool(value.isfinite().all()) for value in learned.values())


def _left_out(training: Training, state: TrainerState) -> Noticed:
    return Noticed(
        f"Step {state.step} was left out, because its loss or gradient was no number "
        f"({state.steps_left_out} of at most {training.limits.most_steps_left_out})"
    )


def _with_less_at_once(state: TrainerState, batches: list[Batch], error: Exception) -> TrainerState:
    """Halve what is in memory at once after it did not fit; the effective batch stays the same.

    Raises what was raised where memory is not what ran out, or no batch holds several examples.
    """
    largest = max(batches, key=lambda batch: (len(batch.lengths) > 1, batch.ids.numel()))
    if not is_out_of_memory(error) or len(largest.lengths) == 1:
        raise error
    return state.model_copy(update={"micro_batch_tokens": max(1, largest.ids.numel() // 2)})


def _less_at_once(num_tokens: int) -> str:
    return (
        f"Memory ran out: from here on {num_tokens:,} tokens are in memory at once; "
        "a step still learns from as many examples"
    )


def _recompute(language_model: LanguageModel) -> None:
    """Keep only what enters a layer, and compute the layer again in the backward pass.

    That pass comes after packed rows were read, so it has to be told again how to attend.
    """
    model = language_model.model

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        again = attending_to_packed_rows(model) if language_model.paths.packs else nullcontext()
        return nullcontext(), again

    model.activation_checkpointing_enable({"use_reentrant": False, "context_fn": contexts})


def _draws(training: Training, first_step: int) -> Iterator[list[Encoded]]:
    """Yield the items of each step from `first_step` on."""
    lengths = [len(item.ids) for item in training.train]
    epoch, skip = divmod(first_step - 1, training.batches_per_epoch)
    while True:
        batches = epoch_batches(
            lengths, training.schedule.batch_size, seed=training.seed, epoch=epoch
        )
        for batch in batches[skip:]:
            # In order of length, so that like lengths share a micro-batch.
            yield [training.train[number] for number in sorted(batch, key=lengths.__getitem__)]
        epoch, skip = epoch + 1, 0


def _validation_batches(training: Training, state: TrainerState) -> list[Batch]:
    items = sorted(training.validation, key=lambda item: len(item.ids))
    return _micro_batches(training, state, items)


def _micro_batches(
    training: Training, state: TrainerState, items: Sequence[Encoded]
) -> list[Batch]:
    """Cut items of rising length into what is in memory at once."""
    language_model = training.language_model
    lengths = [language_model.num_virtual_tokens + len(item.ids) for item in items]
    planned = training.schedule.micro_batch_tokens
    most_tokens = min(state.micro_batch_tokens or planned, planned)
    parts = micro_batches(lengths, most_tokens, packed=language_model.paths.packs)
    return [collate([items[number] for number in part], language_model) for part in parts]


def _judged(state: TrainerState, loss: float) -> TrainerState:
    if state.best_loss is None or loss < state.best_loss:
        gain = {"best_step": state.step, "best_loss": loss, "evaluations_without_gain": 0}
    else:
        gain = {"evaluations_without_gain": state.evaluations_without_gain + 1}
    return state.model_copy(update={"evaluation_due": False, **gain})


def _save(training: Training, state: TrainerState, optimizer: torch.optim.Optimizer) -> Saved:
    learned = trainable(training.language_model.model)
    moments: dict[str, Tensor] = {}
    for name, parameter in learned.items():
        for moment, value in optimizer.state[parameter].items():
            moments[f"{name}/{moment}"] = value
    checkpoint = save_checkpoint(training.checkpoints, state, learned, moments)
    prune_checkpoints(training.checkpoints, state, keep_newest=_KEEP_NEWEST)
    return Saved(state.step, checkpoint.folder.name, state.best_step == state.step)


def _restore(
    checkpoint: Checkpoint, model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> TrainerState:
    load_trained(model, read_learned(checkpoint))
    learned = trainable(model)
    for key, value in read_optimizer(checkpoint).items():
        name, _, moment = key.rpartition("/")
        parameter = learned[name]
        optimizer.state[parameter][moment] = value.to(parameter.device)
    return checkpoint.state


def _diverged(step: int, training: Training) -> Failed:
    return Failed(
        what=f"The loss is no longer a number at step {step}: training diverged",
        fix=f"Lower the learning rate from {training.schedule.learning_rate:g} to about a third",
    )
