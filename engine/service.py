"""The engine behind the web process: a resident child, as `templates/service.py` describes it.

Untrusted tokenizers, chat templates and configs are opened here.
"""

import argparse
import os
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import Field

from engine.base_model import load_reader, locate_base
from engine.liveness import is_out_of_memory
from engine.methods import all_methods
from engine.model_folder import STARTER
from engine.plan import Limits, Schedule
from engine.planning.choices import EstimateRequest, MethodsRequest
from engine.planning.estimate import Hardware
from engine.planning.ground import remembered_ground
from engine.planning.hardware import measure_hardware, prepare_process
from engine.planning.make_plan import check_choices, plan_on
from engine.planning.method_table import method_rows
from engine.planning.preview import preview, token_lengths
from engine.planning.remedies import remedies
from engine.trying import Bench, RunRequest, TryRequest
from templates.dataset import Split, read_dataset, read_split
from templates.memory import limit_memory, memory_bytes
from templates.service import Nothing, Operation, Server, Service, take_pipes
from templates.values import Value

_SAVE_MEMORY = "Choose a smaller base or shorter texts, or close other programs"


class PreviewRequest(Value):
    """Which examples to show, and as which base reads them."""

    dataset_folder: Path
    base: str = STARTER
    revision: str = ""
    split: Split = "train"
    count: int = Field(default=3, ge=0, le=100)


class Engine:
    """The operations, and what they keep in memory between requests."""

    def __init__(self) -> None:
        """Begin without a model."""
        self._bench = Bench()
        self.operations = {
            "ping": Operation(Nothing, lambda _: {"pid": os.getpid()}),
            "methods": Operation(Nothing, lambda _: describe_methods()),
            "estimate": Operation(EstimateRequest, estimate),
            "compare_methods": Operation(MethodsRequest, compare_methods),
            "preview": Operation(PreviewRequest, show_preview),
            "try": Operation(TryRequest, self._bench.answer),
            "inside": Operation(RunRequest, self._bench.look_inside),
            "unload": Operation(Nothing, self._unload),
        }

    def _unload(self, arguments: Nothing) -> dict[str, Any]:
        self._bench.unload()
        return {}


def describe_methods() -> dict[str, Any]:
    """Say what a form needs to know of every method.

    Returns:
        Methods by name with the JSON schema of their options and their own schedule; the schemas
        of schedule and limits, with the usual limits.
    """
    methods = {
        name: {
            "title": spec.title,
            "family": spec.family,
            "summary": spec.summary,
            "when_to_choose": spec.when_to_choose,
            "servable_by": list(spec.servable_by),
            "paper": spec.paper,
            "precisions": list(spec.precisions),
            "starts_as_base": spec.starts_as_base,
            "publishes_adapter": spec.export is not None,
            "publishes_merged": spec.merge is not None,
            "options": spec.options.model_json_schema(),
            "schedule": spec.schedule.model_dump(mode="json"),
        }
        for name, spec in all_methods().items()
    }
    return {
        "methods": methods,
        "schedule": Schedule.model_json_schema(),
        "limits": Limits.model_json_schema(),
        "usual_limits": Limits().model_dump(mode="json"),
    }


def estimate(request: EstimateRequest) -> dict[str, Any]:
    """Make a plan and say what it will take.

    Args:
        request: the choices.

    Returns:
        The plan, its cost, and where it does not fit what would make it fit.
    """
    check_choices(request)
    ground = remembered_ground(request.dataset_folder, request.base, request.revision)
    hardware = _hardware_now()
    plan, cost = plan_on(ground, request, hardware)
    found = () if cost.fits else remedies(ground, request, plan, cost, hardware)
    return {
        "plan": plan.model_dump(mode="json"),
        "estimate": cost.model_dump(mode="json"),
        "remedies": [remedy.model_dump(mode="json") for remedy in found],
    }


def compare_methods(request: MethodsRequest) -> dict[str, Any]:
    """Say what every method would take on the same data and base.

    Args:
        request: data, base, and what holds for every method.

    Returns:
        A `MethodRow` for each, the one to begin with first.
    """
    ground = remembered_ground(request.dataset_folder, request.base, request.revision)
    rows = method_rows(ground, request, _hardware_now())
    return {"rows": [row.model_dump(mode="json") for row in rows]}


def show_preview(request: PreviewRequest) -> dict[str, Any]:
    """Show the first examples of a split as a base reads them, and how long all of them are.

    Args:
        request: which.

    Returns:
        A `PreviewItem` for each, and the `LengthReport` of the split.
    """
    template = read_dataset(request.dataset_folder).template
    reader = load_reader(locate_base(request.base, request.revision))
    examples = read_split(request.dataset_folder, request.split)
    items = preview(reader, examples, template, request.count)
    lengths = token_lengths(reader, examples, template)
    return {
        "items": [item.model_dump(mode="json") for item in items],
        "lengths": lengths.model_dump(mode="json"),
    }


def _hardware_now() -> Hardware:
    available, _ = memory_bytes()
    return _hardware().model_copy(update={"memory_available_bytes": available})


@cache
def _hardware() -> Hardware:
    """Measure once, before a model is loaded: its memory would be taken for a worker's own."""
    return measure_hardware()


def main() -> None:
    """Serve until the input ends."""
    parser = argparse.ArgumentParser(prog="python -m engine.service", description=__doc__)
    parser.add_argument(
        "--memory-ratio", type=float, default=0.8, help="Share of the machine's memory to use."
    )
    options = parser.parse_args()
    requests, answers = take_pipes()
    limit_memory(options.memory_ratio)
    prepare_process()
    _hardware()
    server = Server("engine", Engine().operations, is_out_of_memory, _SAVE_MEMORY)
    Service(requests, answers, server).serve()


if __name__ == "__main__":
    main()
