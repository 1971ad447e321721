"""From a person's choices to a plan that can run, and what it will cost."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_origin

from engine.base_model import load_skeleton, locate_base
from engine.method import MethodOptions, MethodSpec, check_precision, parse_options
from engine.methods import get_method
from engine.plan import BaseChoice, Limits, MethodChoice, Precision, Schedule, TrainPlan
from engine.planning.choices import EstimateRequest
from engine.planning.cost import estimate
from engine.planning.estimate import CostEstimate, Hardware
from engine.planning.ground import Ground, lay_ground
from engine.planning.hardware import measure_hardware
from templates.dataset import Dataset
from templates.errors import PlanError
from templates.values import Value, parse

ValueT = TypeVar("ValueT", bound=Value)
_NARROWEST = 384  # the starter's width: on no narrower model was a rate tried


def make_plan(
    dataset: Dataset,
    dataset_folder: Path,
    base_reference: str,
    method_name: str,
    *,
    options: Mapping[str, Any] | None = None,
    schedule_changes: Mapping[str, Any] | None = None,
    limits_changes: Mapping[str, Any] | None = None,
    precision: Precision | None = None,
    revision: str = "",
    seed: int = 0,
    hardware: Hardware | None = None,
) -> tuple[TrainPlan, CostEstimate]:
    """Check every choice, pin what the run depends on, and say what it will take.

    Values may be text, as a command line gives them: "8", "0.1", "true", "q_proj,v_proj".

    Args:
        dataset: the manifest of the prepared data.
        dataset_folder: where its splits are.
        base_reference: "starter", a model folder or a Hub id.
        method_name: a tuning method.
        options: of that method; what is left out keeps its default.
        schedule_changes: to the method's own schedule.
        limits_changes: to the usual limits.
        precision: of the base; None for the method's first.
        revision: of a Hub base; empty for the newest.
        seed: fixes every draw.
        hardware: what to plan for; None measures this machine.

    Returns:
        The plan and its cost; whether it fits is in the cost's `blockers`.

    Raises:
        PlanError: an option, schedule value, limit or combination is not possible.
    """
    choices = _Choices.of(
        method_name, options or {}, schedule_changes or {}, limits_changes or {}, precision, seed
    )
    base = locate_base(base_reference, revision)
    # A rank above a layer is refused before data is read.
    choices.spec.attach(load_skeleton(base), choices.options)
    ground = lay_ground(dataset, dataset_folder, base)
    return choices.on(ground, hardware or measure_hardware())


def plan_on(
    ground: Ground, request: EstimateRequest, hardware: Hardware
) -> tuple[TrainPlan, CostEstimate]:
    """Do what `make_plan` does, where data and base are open already.

    Args:
        ground: data and base; those in the request are not looked at.
        request: the choices.
        hardware: what to plan for.

    Returns:
        The plan and its cost.
    """
    return _Choices.of_request(request).on(ground, hardware)


def check_choices(request: EstimateRequest) -> None:
    """Refuse a wrong value before a base is opened or data is read.

    Args:
        request: the choices.
    """
    _Choices.of_request(request)


@dataclass(frozen=True)
class _Choices:
    """What a person chose, checked as far as that is possible without a base."""

    spec: MethodSpec
    options: MethodOptions
    schedule: Mapping[str, Any]
    limits: Limits
    precision: Precision
    seed: int

    @classmethod
    def of(
        cls,
        method_name: str,
        options: Mapping[str, Any],
        schedule: Mapping[str, Any],
        limits: Mapping[str, Any],
        precision: Precision | None,
        seed: int,
    ) -> "_Choices":
        spec = get_method(method_name)
        chosen = parse_options(spec, _from_text(spec.options, options, "option"))
        held = _checked_precision(spec, precision)
        limited = _changed(Limits(), limits, "limits")
        _schedule(spec, schedule, 0)
        return cls(spec, chosen, schedule, limited, held, seed)

    @classmethod
    def of_request(cls, request: EstimateRequest) -> "_Choices":
        return cls.of(
            request.method,
            request.options,
            request.schedule,
            request.limits,
            request.precision,
            request.seed,
        )

    def on(self, ground: Ground, hardware: Hardware) -> tuple[TrainPlan, CostEstimate]:
        """Pin what the run depends on, and put no more into memory at once than fits."""
        content = {
            "base": BaseChoice(
                id=ground.base_id,
                revision=ground.base.revision,
                fingerprint=ground.base.fingerprint,
                precision=self.precision,
            ),
            "dataset_id": ground.dataset.id,
            "dataset_sha256": ground.dataset.sha256,
            "method": MethodChoice(
                name=self.spec.name, options=self.options.model_dump(mode="json")
            ),
            "schedule": _schedule(self.spec, self.schedule, ground.width),
            "limits": self.limits,
            "seed": self.seed,
        }
        plan = parse(TrainPlan, content, where="plan", error=PlanError)
        while True:
            cost = estimate(
                plan, ground.base, ground.train, hardware, validation_lengths=ground.validation
            )
            tokens = plan.schedule.micro_batch_tokens
            fitting = _fitting_tokens(tokens, cost)
            if "micro_batch_tokens" in self.schedule or fitting == tokens:
                return plan, cost
            schedule = plan.schedule.model_copy(update={"micro_batch_tokens": fitting})
            plan = plan.model_copy(update={"schedule": schedule})


def _checked_precision(spec: MethodSpec, precision: Precision | None) -> Precision:
    if precision is None:
        return spec.precisions[0]
    check_precision(spec, precision)
    return precision


def _schedule(spec: MethodSpec, changes: Mapping[str, Any], width: int) -> Schedule:
    """Change the method's schedule; the learning rate follows the model."""
    defaults = spec.schedule
    if width and spec.rate_at_width:
        # Adam's best step shrinks with the width: Yang et al. 2022, arXiv 2203.03466, table 3.
        rate = spec.schedule.learning_rate * spec.rate_at_width / max(width, _NARROWEST)
        defaults = defaults.model_copy(update={"learning_rate": float(f"{rate:.2g}")})
    return _changed(defaults, changes, "schedule")


def _fitting_tokens(tokens: int, cost: CostEstimate) -> int:
    """Say how many tokens at once may fit, a power of two; as many as now where none would."""
    surplus = cost.peak_memory_bytes - cost.memory_available_bytes
    by_batch = cost.memory.activations_bytes + cost.memory.logits_bytes
    if surplus <= 0 or surplus >= by_batch or tokens < cost.longest_tokens:
        return tokens
    room = max(1, int(tokens * (1 - surplus / by_batch)))
    return max(1, min(tokens // 2, 1 << (room.bit_length() - 1)))


def _changed(value: ValueT, changes: Mapping[str, Any], where: str) -> ValueT:
    content = {**value.model_dump(), **_from_text(type(value), changes, where)}
    return parse(type(value), content, where=where, error=PlanError)


def _from_text(kind: type[Value], content: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Cut comma lists where a field holds several values, and refuse a value that is not there."""
    ready = dict(content)
    for name, value in content.items():
        field = kind.model_fields.get(name)
        may_be_empty = field is not None and field.default == ""
        if value is None or (isinstance(value, str) and not value.strip() and not may_be_empty):
            raise PlanError(
                f"{name} is missing its value",
                where=where,
                fix=f"Give {name} a value, or leave it out to keep the default",
            )
        if field and isinstance(value, str) and get_origin(field.annotation) is tuple:
            ready[name] = tuple(part.strip() for part in value.split(",") if part.strip())
    return ready
