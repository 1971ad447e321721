"""From what is chosen for a project to a kept plan: shared by the page and the plan verb."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from engine.bases import BaseCard
from engine.plan import TrainPlan, read_plan, write_plan
from engine.planning.choices import EstimateRequest, OtherBase
from engine.planning.estimate import CostEstimate
from studio.home import Home
from studio.projects import PlanChoices, Project
from studio.records import keep_estimate
from templates.errors import PlanError
from templates.files import write_atomically
from templates.values import parse

_LARGEST_FILE_BYTES = 64 << 10
_MOST_CHARACTERS = 2000


def plan_request(home: Home, project: Project, cards: Iterable[BaseCard] = ()) -> EstimateRequest:
    """Put together what the engine needs to make a project's plan.

    Args:
        home: the folder behind all steps.
        project: has a dataset, and choices that need not be right.
        cards: bases that may be proposed where the chosen one does not fit.

    Returns:
        The request.
    """
    chosen = project.choices
    return EstimateRequest(
        dataset_folder=home.place("dataset") / project.dataset,
        base=project.base,
        revision=project.revision,
        method=chosen.method,
        options=chosen.options,
        schedule=chosen.schedule,
        limits=chosen.limits,
        precision=chosen.precision,
        seed=chosen.seed,
        other_bases=tuple(
            OtherBase(
                reference=card.reference,
                revision=card.revision,
                title=card.title,
                num_parameters=card.num_parameters,
            )
            for card in cards
            if card.is_downloaded and not card.problem and card.num_parameters
        ),
    )


def keep_plan(home: Home, plan: TrainPlan, estimate: CostEstimate, *, force: bool = False) -> str:
    """Write a plan where runs find it, with what it was said to cost.

    Args:
        home: the folder behind all steps.
        plan: the plan.
        estimate: of that plan.
        force: whether a plan that may not fit is kept too.

    Returns:
        The plan's id.

    Raises:
        PlanError: it does not fit, and `force` is not set.
    """
    if estimate.blockers and not force:
        raise PlanError(
            estimate.blockers[0].removesuffix("."),
            where="estimate",
            fix="Change the plan, or ask for it all the same (on the command line: --force)",
        )
    path = home.new("plan").with_suffix(".yaml")
    write_atomically(path, write_plan(plan))
    keep_estimate(home, plan, estimate)
    home.mark_latest("plan", path.stem)
    return path.stem


def read_foreign_plan(path: Path) -> TrainPlan:
    """Read a plan file that somebody brought along.

    Args:
        path: YAML or JSON.

    Returns:
        The plan; whether base, method and options exist here is not known yet.

    Raises:
        PlanError: it is no plan, is too large, or is made to grow when it is opened.
    """
    try:
        if path.stat().st_size > _LARGEST_FILE_BYTES:
            raise PlanError("The file is too large to be a plan", fix="Choose a plan file")
        # A few lines of references to references would fill the memory when they are written out.
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(path.read_text("utf-8"))):
            raise PlanError(
                "The plan refers to parts of itself", fix="Write every setting out once"
            )
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        raise PlanError(
            "The file is neither YAML nor JSON", fix="Choose a file that Plan gave to download"
        ) from None
    return read_plan(path)


def choices_of(plan: TrainPlan, before: PlanChoices) -> PlanChoices:
    """Take over the choices of a plan.

    Args:
        plan: perhaps from elsewhere.
        before: what was chosen; says how the page is looked at.

    Returns:
        The choices.

    Raises:
        PlanError: an option holds something that no option holds.
    """
    for name, value in plan.method.options.items():
        if not all(_is_plain(part) for part in (value if isinstance(value, list) else [value])):
            raise PlanError(
                f"{name[:80]} holds something that no option holds", where="plan file",
                fix="Give a number, a word, or a list of words",
            )  # fmt: skip
    content = before.model_dump() | {
        "method": plan.method.name,
        "options": plan.method.options,
        "schedule": plan.schedule.model_dump(mode="json"),
        "limits": plan.limits.model_dump(mode="json"),
        "precision": plan.base.precision,
        "seed": plan.seed,
    }
    return parse(PlanChoices, content, where="plan file", error=PlanError)


def changed_choices(before: PlanChoices, changes: Mapping[str, Any]) -> PlanChoices:
    """Change some choices.

    Args:
        before: what was chosen.
        changes: new values by field; a new method brings back what was last set for it.

    Returns:
        The choices now.
    """
    content = before.model_dump()
    method = changes.get("method", before.method)
    if method != before.method:
        mine = {"options": before.options, "schedule": before.schedule}
        content["others"] = {**before.others, before.method: mine}
        theirs = before.others.get(method, {})
        content |= {"options": {}, "schedule": {}, "precision": None, **theirs}
    return parse(PlanChoices, content | dict(changes), where="choices", error=PlanError)


def _is_plain(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= _MOST_CHARACTERS
    return value is None or isinstance(value, bool | int | float)
