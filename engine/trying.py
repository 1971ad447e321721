"""Trying a text: the base and the tuned model answer it, each as it does in a comparison.

The base's weights are held once. The tuned model is a twin of the base: modules of its own over
the same tensors, and beside them only what the method learned.
"""

import copy
import fcntl
import gc
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field
from torch import Tensor, nn

from engine.answering.generation import stream
from engine.answering.label_scores import score_labels
from engine.base_model import load_base
from engine.checkpoint_tensors import read_learned
from engine.checkpoints import Checkpoint, best_checkpoint
from engine.comparing.prompting import (
    Prompts,
    Question,
    build_prompts,
    longest_answer_tokens,
)
from engine.inside import Inside, LayerChange, PromptVector, look_inside
from engine.jobs import Job
from engine.language_model import LanguageModel
from engine.method import attach_method, load_trained, parse_options
from engine.methods import get_method
from engine.plan import TrainPlan
from engine.quantise import QuantisedLinear
from engine.runs import open_planned_base
from templates.dataset import Dataset, read_dataset, read_split
from templates.errors import DataError, PlanError, RunError
from templates.example import Example, Role, Turn
from templates.files import disk_errors
from templates.render import describe_task
from templates.template import Template
from templates.values import Value, parse

Arm = Literal["base", "tuned"]


class AskedTurn(Value):
    """One message of the conversation to go on with."""

    role: Role
    content: str


class RunRequest(Value):
    """Which run to open."""

    run_folder: Path
    dataset_folder: Path
    device_lock: Path = Field(description="Held while a model is loaded and while it is used.")


class TryRequest(RunRequest):
    """What to try, and with which run."""

    fields: Mapping[str, str] = Field(default={}, description="Template slot -> text.")
    turns: tuple[AskedTurn, ...] = Field(default=(), description="For chat; a user turn last.")
    max_new_tokens: int = Field(default=0, ge=0, description="0: a little more than in training.")


class Piece(Value):
    """A little more of an answer; "" says that the model is still at it."""

    arm: Arm
    text: str


class LabelProbability(Value):
    """How likely an arm finds a label, among all labels."""

    label: str
    probability: float


class ArmAnswer(Value):
    """What one arm answered."""

    answer: str
    labels: tuple[LabelProbability, ...] = Field(
        default=(), description="The likeliest first; none where the answer is free text."
    )
    prompt_tokens: int = Field(description="Soft prompt and task description included.")
    answer_tokens: int
    seconds: float = Field(description="Prompt building included, loading left out.")
    was_cut: bool = Field(description="The start of the text was cut to fit the context.")


class TryResult(Value):
    """Both answers."""

    base: ArmAnswer
    tuned: ArmAnswer


@dataclass(frozen=True)
class _Pair:
    """A run ready to be asked."""

    run_folder: Path
    checkpoint: Checkpoint
    weights_sha256: str
    base: LanguageModel
    tuned: LanguageModel
    answer_tokens: int


class Bench:
    """Keeps the models of the run that was tried last."""

    def __init__(self) -> None:
        """Begin without a model."""
        self._pair: _Pair | None = None

    def unload(self) -> None:
        """Drop the models."""
        self._pair = None
        gc.collect()  # modules refer to each other; else they wait for some later collection

    def answer(self, request: TryRequest) -> Generator[Piece, None, TryResult]:
        """Let both models answer, the base first.

        Args:
            request: what to try.

        Returns:
            Pieces of text, which are an arm's answer when joined; and in the end both answers.

        Raises:
            DataError: there is nothing to answer, or the run was trained on other data.
        """
        plan, dataset = _planned(request)
        template = dataset.template
        example = _example(request, template)
        labels = dataset.labels if template.has_labels else ()
        with _held(request.device_lock):
            pair = self._open(request, plan, dataset)
            question = Question(template, labels, request.max_new_tokens or pair.answer_tokens)
            instruction = describe_task(template, labels)
            base = yield from _answer(pair.base, "base", example, question, instruction)
            tuned = yield from _answer(pair.tuned, "tuned", example, question, "")
        return TryResult(base=base, tuned=tuned)

    def look_inside(self, request: RunRequest) -> Generator[Value, None, Inside]:
        """Say what tuning changed in the model.

        Args:
            request: which run.

        Returns:
            Each layer and virtual token as it is looked at; and in the end all of them.

        Raises:
            DataError: the run was trained on other data.
        """
        plan, dataset = _planned(request)
        found: list[Value] = []
        with _held(request.device_lock):
            pair = self._open(request, plan, dataset)
            for part in look_inside(pair.base, pair.tuned):
                found.append(part)
                yield part
        return Inside(
            layers=tuple(part for part in found if isinstance(part, LayerChange)),
            prompt=tuple(part for part in found if isinstance(part, PromptVector)),
        )

    def _open(self, request: RunRequest, plan: TrainPlan, dataset: Dataset) -> _Pair:
        job = Job(request.run_folder)
        if self._pair and _is_current(self._pair, job):
            return self._pair
        self.unload()  # two pairs at once may be more than memory holds
        checkpoint = best_checkpoint(job.checkpoints)
        base = load_base(open_planned_base(plan), plan.base.precision)
        tuned = tuned_twin(base, plan, read_learned(checkpoint))
        rows = read_split(request.dataset_folder, "train")
        self._pair = _Pair(
            run_folder=job.folder.resolve(),
            checkpoint=checkpoint,
            weights_sha256=checkpoint.weights_sha256,
            base=base,
            tuned=tuned,
            answer_tokens=longest_answer_tokens(tuned, rows, dataset.template),
        )
        return self._pair


def tuned_twin(
    base: LanguageModel, plan: TrainPlan, learned: Mapping[str, Tensor]
) -> LanguageModel:
    """Build the tuned model over the tensors of the base; only what was learned is held anew.

    Args:
        base: the plan's base; must stay as it is while the twin is in use.
        plan: gives method, options and seed.
        learned: tensors by parameter name, from a checkpoint of the plan.

    Returns:
        The tuned model in evaluation mode; the base still answers as before.
    """
    shared: dict[int, Any] = {
        id(parameter): nn.Parameter(parameter.data, requires_grad=False)
        for parameter in base.model.parameters()
    }
    shared |= {id(buffer): buffer for buffer in base.model.buffers()}
    for module in base.model.modules():
        if isinstance(module, QuantisedLinear):
            shared |= {id(module.codes): module.codes, id(module.scales): module.scales}
    twin = copy.deepcopy(base.model, shared)  # what is in `shared` is taken instead of copied
    for name, parameter in twin.named_parameters():
        if name in learned:
            parameter.data = parameter.data.clone()
    spec = get_method(plan.method.name)
    options = parse_options(spec, plan.method.options)
    own = LanguageModel(twin, base.tokenizer, base.precision)
    tuned = attach_method(own, spec, options, seed=plan.seed)
    load_trained(tuned.model, learned)
    tuned.model.eval()
    return tuned


def _planned(request: RunRequest) -> tuple[TrainPlan, Dataset]:
    """Read what a finished run was, and check that these are its data."""
    job = Job(request.run_folder)
    plan = parse(TrainPlan, job.request("train")["plan"], where=job.id, error=PlanError)
    state = job.status().state
    if state != "finished":
        raise RunError(
            f"The run is {state}, and its weights may still change",
            where=job.id,
            fix="Let it finish first",
        )
    dataset = read_dataset(request.dataset_folder)
    if dataset.sha256 != plan.dataset_sha256:
        raise DataError(
            "The run was trained on other data", where=dataset.id, fix=f"Use {plan.dataset_id}"
        )
    return plan, dataset


def _is_current(pair: _Pair, job: Job) -> bool:
    """Say whether the run on disk is the one in memory; its weights are not hashed again."""
    try:
        on_disk = pair.checkpoint.weights_sha256
    except (OSError, ValueError, KeyError):
        return False
    return pair.run_folder == job.folder.resolve() and pair.weights_sha256 == on_disk


def _example(request: TryRequest, template: Template) -> Example:
    if template.task == "chat":
        if not request.turns or request.turns[-1].role != "user":
            raise DataError(
                "There is nothing to answer", fix="Let the conversation end with a user turn"
            )
        turns = [Turn(turn.role, turn.content) for turn in request.turns]
        return Example(turns=(*turns, Turn("assistant", "")), source_rows=(1,))
    for name in sorted(request.fields.keys() - set(template.slots)):
        raise DataError(
            f"The task has no field {name!r}",
            fix=f"The fields are: {', '.join(template.slots)}",
        )
    if not "".join(request.fields.values()).strip():
        raise DataError("There is nothing to answer", fix=f"Give some text for {template.slots[0]}")
    return Example(fields=request.fields, source_rows=(1,))


@contextmanager
def _held(device_lock: Path) -> Iterator[None]:
    """Use the device alone, or not at all: a person who waits should hear why."""
    with disk_errors("the lock of the device"):
        device_lock.parent.mkdir(parents=True, exist_ok=True)
        file = device_lock.open("a")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(
                "The device is busy with a job", fix="Wait until it ends, or stop it"
            ) from None
        yield


def _answer(
    model: LanguageModel, arm: Arm, example: Example, question: Question, instruction: str
) -> Generator[Piece, None, ArmAnswer]:
    started = time.perf_counter()
    prompts = build_prompts(model, [example], question, instruction=instruction)
    labels: tuple[LabelProbability, ...] = ()
    if question.labels:
        labels = _label_probabilities(model, prompts, question)
        answer = labels[0].label
        yield Piece(arm=arm, text=answer)
    else:
        answer = ""
        for _, text in stream(
            model,
            prompts.context_ids,
            prompts.prompt_ids,
            stop=prompts.stop,
            max_new_tokens=question.max_new_tokens,
        ):
            answer += text
            yield Piece(arm=arm, text=text)
    return ArmAnswer(
        answer=answer,
        labels=labels,
        prompt_tokens=round(prompts.tokens_per_item),
        answer_tokens=len(model.encode(answer)),
        seconds=time.perf_counter() - started,
        was_cut=bool(prompts.cut),
    )


def _label_probabilities(
    model: LanguageModel, prompts: Prompts, question: Question
) -> tuple[LabelProbability, ...]:
    [scores] = score_labels(model, prompts.context_ids, prompts.prompt_ids, prompts.label_ids)
    weights = np.exp(scores - scores.max())
    ratios = weights / weights.sum()
    return tuple(
        LabelProbability(label=question.labels[number], probability=float(ratios[number]))
        for number in np.argsort(-ratios, kind="stable")
    )
