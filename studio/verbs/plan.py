"""plan: choose base, method and schedule, and see what it will cost before it runs."""

from pathlib import Path
from typing import Annotated, Any

import typer

from engine.plan import Limits, Precision, Schedule, write_plan
from engine.planning.estimate import CostEstimate
from studio.doing import fetched
from studio.home import Home
from studio.planning import keep_plan
from studio.screen import say, say_json, say_table
from studio.verbs.upload import Json
from templates.dataset import read_dataset
from templates.errors import PlanError
from templates.files import write_atomically


def plan(
    dataset: Annotated[str, typer.Argument(help='Id of a dataset, or "latest".')] = "latest",
    method: Annotated[str, typer.Option(help="Tuning method; --list shows all.")] = "lora",
    base: Annotated[
        str, typer.Option(help='"starter", a model folder, or a Hub id such as org/name.')
    ] = "starter",
    revision: Annotated[str, typer.Option(help="Hub branch, tag or commit.")] = "",
    precision: Annotated[
        Precision | None, typer.Option(help="The first that the method offers, if not given.")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option", "-o",
            help="NAME=VALUE for the method, the schedule or the limits, such as rank=16, "
            "learning_rate=1e-3, max_steps=100; repeatable.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Fixes every draw.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Keep a plan that may not fit.")] = False,
    save: Annotated[
        Path | None, typer.Option(help="Also write the plan here, as .yaml or .json.")
    ] = None,
    list_methods: Annotated[bool, typer.Option("--list", help="List the methods.")] = False,
    json: Json = False,
) -> str:  # fmt: skip
    """Plan a training run: what will learn, how long, and what it costs."""
    from engine.methods import all_methods, get_method  # noqa: PLC0415
    from engine.planning.hardware import prepare_process  # noqa: PLC0415
    from engine.planning.make_plan import make_plan  # noqa: PLC0415

    if list_methods:
        rows = [(spec.name, spec.family, spec.summary) for spec in all_methods().values()]
        if json:
            say_json([dict(zip(("name", "family", "summary"), row, strict=True)) for row in rows])
            return ""
        say_table("Methods", ("name", "family", "what it does"), rows)
        return ""
    method_fields = get_method(method).options.model_fields
    options, schedule, limits = sort_options(option or [], method_fields)
    prepare_process()  # speeds are measured with the settings that training uses
    home = Home()
    folder = home.find("dataset", dataset)
    base = fetched(home, base, revision)
    value, estimate = make_plan(
        read_dataset(folder),
        folder,
        base,
        method,
        options=options,
        schedule_changes=schedule,
        limits_changes=limits,
        precision=precision,
        revision=revision,
        seed=seed,
    )
    plan_id = keep_plan(home, value, estimate, force=force)
    if save is not None:
        write_atomically(save, write_plan(value, as_json=save.suffix == ".json"))
    if json:
        say_json(
            {
                "id": plan_id,
                "plan": value.model_dump(mode="json"),
                "estimate": estimate.model_dump(mode="json"),
            }
        )
        return plan_id
    settings = _settings(value.model_dump(mode="json"))
    shown = [(name, _shown(setting)) for name, setting in settings]
    say_table(f"Plan {plan_id}", ("setting", "value"), shown)
    _say_estimate(estimate)
    say(f"Next: python app.py train {plan_id}")
    return plan_id


def sort_options(
    items: list[str], method_fields: Any
) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """Give each NAME=VALUE to the value that has a field of that name.

    Args:
        items: as typed.
        method_fields: of the method's options.

    Returns:
        What is for the method, for the schedule, and for the limits.

    Raises:
        PlanError: a value is missing, or nothing has that name.
    """
    sorted_: tuple[dict[str, str], dict[str, str], dict[str, str]] = ({}, {}, {})
    fields = (method_fields, Schedule.model_fields, Limits.model_fields)
    for item in items:
        name, equals, value = item.partition("=")
        if not equals:
            raise PlanError(
                f"The option {item!r} has no value", where="--option", fix="Write NAME=VALUE"
            )
        owner = next((place for place, known in enumerate(fields) if name in known), None)
        if owner is None:
            names = ", ".join(name for known in fields for name in known)
            raise PlanError(
                f"There is no setting called {name!r}",
                where="--option",
                fix=f"Choose from {names}",
            )
        sorted_[owner][name] = value
    return sorted_


def _settings(content: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in content.items():
        if isinstance(value, dict):
            found += _settings(value, f"{prefix}{name}.")
        else:
            found.append((prefix + name, value))
    return found


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    text = str(value)
    return text[:12] + "…" if len(text) == 64 else text


def _say_estimate(estimate: CostEstimate) -> None:
    parts = [
        (name.removesuffix("_bytes"), f"{size / 2**20:,.1f} MiB")
        for name, size in estimate.memory.model_dump().items()
    ]
    peak = f"{estimate.peak_memory_bytes / 2**20:,.1f} MiB"
    say_table("Estimated memory", ("part", "size"), [*parts, ("peak", peak)])
    say(
        f"Learns {estimate.num_trainable:,} of {estimate.num_parameters:,} parameters "
        f"({100 * estimate.trainable_ratio:.2f} %), adapter "
        f"{estimate.adapter_bytes / 2**20:.2f} MiB; {estimate.num_steps} steps, about "
        f"{estimate.low_seconds:.0f} to {estimate.high_seconds:.0f} s."
    )
    if estimate.adapter_servers:
        say(f"The adapter can be served unmerged by {', '.join(estimate.adapter_servers)}.")
    if estimate.stem_saved_flops:
        kept = estimate.memory.stem_bytes or estimate.stem_disk_bytes
        place = "in memory" if estimate.memory.stem_bytes else "on disk"
        saved = estimate.stem_saved_flops / (estimate.stem_saved_flops + estimate.flops)
        say(
            f"Frozen blocks run once an example, which saves {100 * saved:.0f} % of the arithmetic "
            f"and keeps {kept / 2**20:.1f} MiB {place}."
        )
    for sentence in (*estimate.blockers, *estimate.warnings):
        say(f"Warning: {sentence}")
