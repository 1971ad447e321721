"""From a person's choices to a plan that can run, and what it will cost."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_origin

from transformers import AutoTokenizer

from engine.base_model import STARTER, BaseFolder, load_skeleton, locate_base
from engine.cost import estimate
from engine.estimate import CostEstimate, Hardware
from engine.hardware import measure_hardware
from engine.language_model import LanguageModel
from engine.method import MethodSpec, parse_options
from engine.methods import get_method
from engine.plan import BaseChoice, Limits, MethodChoice, Precision, Schedule, TrainPlan
from engine.preview import measure_lengths
from templates.dataset import Dataset, read_split
from templates.errors import ModelError, PlanError
from templates.values import Value, parse

ValueT = TypeVar("ValueT", bound=Value)


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
    spec = get_method(method_name)
    chosen = parse_options(spec, _from_text(spec.options, options or {}, "option"))
    precision = _checked_precision(spec, precision)
    schedule = _schedule(spec, schedule_changes or {})
    limits = _changed(Limits(), limits_changes or {}, "limits")
    base = locate_base(base_reference, revision)
    # A relative folder would name another model as soon as somebody works elsewhere.
    is_folder = base_reference != STARTER and not base.revision
    content = {
        "base": BaseChoice(
            id=str(base.path.resolve()) if is_folder else base_reference,
            revision=base.revision,
            fingerprint=base.fingerprint,
            precision=precision,
        ),
        "dataset_id": dataset.id,
        "dataset_sha256": dataset.sha256,
        "method": MethodChoice(name=spec.name, options=chosen.model_dump(mode="json")),
        "schedule": schedule,
        "limits": limits,
        "seed": seed,
    }
    plan = parse(TrainPlan, content, where="plan", error=PlanError)
    spec.attach(load_skeleton(base), chosen)  # a rank above a layer is refused before data is read
    reader = open_reader(base)
    train, validation = (
        measure_lengths(reader, read_split(dataset_folder, split), dataset.template)
        for split in ("train", "validation")
    )
    if not train or not validation:
        raise PlanError(
            "Training needs rows to learn from and rows to validate on",
            where=dataset.id,
            fix="Prepare the data with a larger training or validation share",
        )
    machine = hardware or measure_hardware()
    return plan, estimate(plan, base, train, machine, validation_lengths=validation)


def open_reader(base: BaseFolder) -> LanguageModel:
    """Open a base's tokenizer without its weights: enough to encode, preview and measure.

    Args:
        base: from `locate_base`.

    Returns:
        A language model whose weights are on the meta device.

    Raises:
        ModelError: the tokenizer cannot be read.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            base.path, trust_remote_code=False, local_files_only=True
        )
    except Exception as error:  # the folder is foreign: a damaged one fails in many ways
        raise ModelError(
            f"The tokenizer cannot be opened: {str(error).splitlines()[0][:200]}",
            where=base.id,
            fix="Download the base again, or choose another one",
        ) from None
    return LanguageModel(load_skeleton(base), tokenizer)


def _checked_precision(spec: MethodSpec, precision: Precision | None) -> Precision:
    if precision is None:
        return spec.precisions[0]
    if precision not in spec.precisions:
        raise PlanError(
            f"{spec.title} does not train on {precision} weights",
            where="base precision",
            fix=f"Choose {' or '.join(spec.precisions)}",
        )
    return precision


def _schedule(spec: MethodSpec, changes: Mapping[str, Any]) -> Schedule:
    """Change the method's schedule; the micro-batch follows a smaller batch by itself."""
    schedule = _changed(spec.schedule, changes, "schedule")
    if "micro_batch_size" in changes:
        return schedule
    size = min(schedule.batch_size, schedule.micro_batch_size)
    return schedule.model_copy(update={"micro_batch_size": size})


def _changed(value: ValueT, changes: Mapping[str, Any], where: str) -> ValueT:
    content = {**value.model_dump(), **_from_text(type(value), changes, where)}
    return parse(type(value), content, where=where, error=PlanError)


def _from_text(kind: type[Value], content: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Cut comma lists where a field holds several values, and refuse a value that is not there."""
    ready = dict(content)
    for name, value in content.items():
        if value is None or (isinstance(value, str) and not value.strip()):
            raise PlanError(
                f"{name} is missing its value",
                where=where,
                fix=f"Give {name} a value, or leave it out to keep the default",
            )
        field = kind.model_fields.get(name)
        if field and isinstance(value, str) and get_origin(field.annotation) is tuple:
            ready[name] = tuple(part.strip() for part in value.split(",") if part.strip())
    return ready
