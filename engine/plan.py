"""TrainPlan: everything a run depends on, as one frozen value. Free of torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, model_validator

from templates.dataset import Dataset
from templates.errors import PlanError
from templates.files import canonical_json, sha256_of_bytes
from templates.values import Value, parse

Precision = Literal["fp32", "bf16", "int8", "nf4"]  # each takes less than the one before
BITS: dict[Precision, int] = {"fp32": 32, "bf16": 16, "int8": 8, "nf4": 4}  # a weight
ScheduleShape = Literal["cosine", "linear", "constant"]
SIMPLE: dict[str, Any] = {"simple": True}  # in a schema: a newcomer may want to change this field


class BaseChoice(Value):
    """Which base model, pinned."""

    id: str = Field(title="Base model", description='"starter", a folder, or a Hub id.')
    revision: str = Field(default="", title="Revision", description="Hub commit; empty: local.")
    fingerprint: str = Field(
        default="", title="Fingerprint", description="Hash over the model's files when planned."
    )
    precision: Precision = Field(
        default="fp32", title="Precision", description="How the frozen weights are held."
    )


class MethodChoice(Value):
    """Which tuning method, with its options as plain JSON."""

    name: str
    options: Mapping[str, Any] = Field(default_factory=dict)


class Schedule(Value):
    """How fast and how long to learn. Each method brings its own defaults."""

    learning_rate: float = Field(
        gt=0,
        le=10,
        title="Learning rate",
        description="Peak step size. Too high: the loss jumps; too low: it hardly falls.",
        json_schema_extra=SIMPLE,
    )
    epochs: float = Field(
        default=3,
        gt=0,
        le=1000,
        title="Epochs",
        description="Passes over the training rows.",
        json_schema_extra=SIMPLE,
    )
    batch_size: int = Field(
        default=16, ge=1, le=4096, title="Batch size", description="Examples per optimizer step."
    )
    micro_batch_tokens: int = Field(
        default=1024,  # products of more rows are hardly faster: 0 to 3 % against 4,096
        ge=1,
        le=2**20,
        title="Tokens at once",
        description="Tokens in memory at once; gradients add up exactly over the batch.",
    )
    recomputes: bool = Field(
        default=False,
        title="Compute twice, keep less",
        description="Activation checkpointing: a third more work, a fraction of the memory.",
    )
    shape: ScheduleShape = Field(
        default="cosine", title="Shape", description="How the learning rate falls after warm-up."
    )
    warmup_ratio: float = Field(
        default=0.05, ge=0, lt=1, title="Warm-up", description="Share of steps spent rising."
    )
    weight_decay: float = Field(
        default=0.0, ge=0, le=1, title="Weight decay", description="Decoupled decay of what learns."
    )
    max_gradient_norm: float = Field(
        default=1.0,
        gt=0,
        le=1000,
        title="Gradient clip",
        description="Largest norm of all gradients.",
    )
    evaluations_per_epoch: int = Field(
        default=2, ge=1, le=100, title="Evaluations", description="Validation passes per epoch."
    )
    patience: int = Field(
        default=4,
        ge=1,
        le=1000,
        title="Patience",
        description="Stop after this many evaluations without a better validation loss.",
    )

    @model_validator(mode="before")
    @classmethod
    def _forget_micro_batch_size(cls, content: Any) -> Any:
        """Read plans of the time when examples at once were counted, not their tokens."""
        if isinstance(content, Mapping) and "micro_batch_tokens" not in content:
            return {key: value for key, value in content.items() if key != "micro_batch_size"}
        return content


class Limits(Value):
    """Where the run must end or refuse."""

    max_length_tokens: int = Field(
        default=0,
        ge=0,
        le=2**20,
        title="Longest example",
        description="In tokens. 0: as long as the base can read.",
        json_schema_extra=SIMPLE,
    )
    too_long: Literal["stop", "drop", "cut"] = Field(
        default="drop",
        title="Examples that are too long",
        description="Refuse, leave them out, or cut the start of the prompt; never the answer.",
    )
    max_steps: int = Field(
        default=0,
        ge=0,
        le=10**8,
        title="Most steps",
        description="End after so many optimizer steps. 0: no limit.",
    )
    most_steps_left_out: int = Field(
        default=3,
        ge=0,
        le=10**6,
        title="Steps that may fail",
        description="A step whose loss or gradient is no number is left out; after so many, stop.",
    )


class TrainPlan(Value):
    """What a run will do; its digest names it."""

    base: BaseChoice
    dataset_id: str
    dataset_sha256: str
    method: MethodChoice
    schedule: Schedule
    limits: Limits = Limits()
    seed: int = Field(default=0, ge=0, lt=2**32, title="Seed", description="Fixes every draw.")

    @property
    def digest(self) -> str:
        """A hash over the whole plan."""
        return sha256_of_bytes(canonical_json(self.model_dump(mode="json")).encode())


def check_dataset(plan: TrainPlan, dataset: Dataset) -> None:
    """Refuse data that is not what the plan was made for.

    Args:
        plan: pins the data.
        dataset: what is there now.

    Raises:
        PlanError: it changed.
    """
    if dataset.sha256 != plan.dataset_sha256:
        raise PlanError(
            "The data changed since this plan was made",
            where=dataset.id,
            fix="Run plan again on the prepared data",
        )


def write_plan(plan: TrainPlan, *, as_json: bool = False) -> str:
    """Write a plan for people and version control.

    Args:
        plan: the plan.
        as_json: JSON instead of YAML.

    Returns:
        The text.
    """
    content = plan.model_dump(mode="json")
    if as_json:
        return canonical_json(content, indent=2) + "\n"
    return str(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))


def read_plan(path: Path) -> TrainPlan:
    """Read a plan written as YAML or JSON.

    Args:
        path: the file.

    Returns:
        The plan; method options are checked later, by the method.

    Raises:
        PlanError: the file is missing, not YAML or JSON, or a setting is wrong.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError:
        raise PlanError("There is no such plan", where=path.name, fix="Run plan first") from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise PlanError(
            "The plan is neither YAML nor JSON", where=path.name, fix="Write it with the plan verb"
        ) from None
    return parse(TrainPlan, content, where=path.name, error=PlanError)
