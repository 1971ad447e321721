"""The engine behind the web process: one resident child that speaks JSON lines.

    in   {"id": …, "operation": …, "arguments": {…}}      one line each
    out  {"id": …, "part": …}                             none or more
         {"id": …, "result": …} or {"id": …, "error": {"kind", "what", "where", "fix"}}

A line with the operation "cancel" ends the parts of the answer it names; the result is then null.
Untrusted tokenizers, chat templates and configs are opened here, under a memory limit, so that
what explodes is this process. It ends when its input does, even in the middle of an operation.
"""

import argparse
import json
import os
import queue
import resource
import threading
import traceback
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import Field

from engine.base_model import STARTER, load_reader, locate_base
from engine.liveness import is_out_of_memory
from engine.methods import all_methods
from engine.plan import Limits, Precision, Schedule
from engine.planning.estimate import Hardware
from engine.planning.hardware import measure_hardware, memory_bytes, prepare_process
from engine.planning.make_plan import make_plan
from engine.planning.preview import preview, token_lengths
from engine.trying import Bench, TryRequest
from templates.dataset import Split, read_dataset, read_split
from templates.errors import RunError, StudioError
from templates.values import Value, parse

CANCEL = "cancel"
_PUBLIC_ERRORS = (StudioError, *StudioError.__subclasses__())
_GIGABYTE = 1e9


class Request(Value):
    """One line of the input."""

    id: str
    operation: str
    arguments: Mapping[str, Any] = Field(default={})


class Nothing(Value):
    """The arguments of an operation that takes none."""


class EstimateRequest(Value):
    """The choices of a plan, as forms give them."""

    dataset_folder: Path
    base: str = STARTER
    revision: str = ""
    method: str = "lora"
    options: Mapping[str, Any] = Field(default={})
    schedule: Mapping[str, Any] = Field(default={}, description="Changes to the method's own.")
    limits: Mapping[str, Any] = Field(default={}, description="Changes to the usual ones.")
    precision: Precision | None = None
    seed: int = Field(default=0, ge=0, lt=2**32)


class PreviewRequest(Value):
    """Which examples to show, and as which base reads them."""

    dataset_folder: Path
    base: str = STARTER
    revision: str = ""
    split: Split = "train"
    count: int = Field(default=3, ge=0, le=100)


@dataclass(frozen=True)
class Operation:
    """What can be asked for.

    Attributes:
        arguments: the value that its arguments must be.
        run: gives the result; a generator gives parts before it.
    """

    arguments: type[Value]
    run: Callable[[Any], Any]


class Engine:
    """The operations, and what they keep in memory between requests."""

    def __init__(self) -> None:
        """Begin without a model."""
        self._bench = Bench()
        self.operations = {
            "ping": Operation(Nothing, lambda _: {"pid": os.getpid()}),
            "methods": Operation(Nothing, lambda _: describe_methods()),
            "estimate": Operation(EstimateRequest, estimate),
            "preview": Operation(PreviewRequest, show_preview),
            "try": Operation(TryRequest, self._bench.answer),
            "unload": Operation(Nothing, self._unload),
        }

    def _unload(self, arguments: Nothing) -> dict[str, Any]:
        self._bench.unload()
        return {}


class Service:
    """Answers requests one after the other, in the order in which they came."""

    def __init__(self, requests: BinaryIO, answers: BinaryIO, engine: Engine) -> None:
        """Connect the pipes; nothing is read yet.

        Args:
            requests: lines of JSON; when they end, this process does.
            answers: where to write lines of JSON.
            engine: does the work.
        """
        self._requests, self._answers, self._engine = requests, answers, engine
        self._waiting: queue.SimpleQueue[Request | StudioError] = queue.SimpleQueue()
        self._cancelled = ""

    def serve(self) -> None:
        """Work until the input ends."""
        # Beside the work, so that the end of the input is seen while an operation runs.
        threading.Thread(target=self._read, daemon=True).start()
        while True:
            self._handle(self._waiting.get())

    def _read(self) -> None:
        for line in self._requests:
            request = _parsed(line)
            if isinstance(request, Request) and request.operation == CANCEL:
                self._cancelled = request.id
            else:
                self._waiting.put(request)
        os._exit(0)  # the main thread may be inside a library that never returns

    def _handle(self, request: Request | StudioError) -> None:
        if isinstance(request, StudioError):
            self._say("", error=_as_json(request))
            return
        try:
            self._say(request.id, result=self._result(request))
        except Exception as error:  # whatever happens, the next request is answered
            self._say(request.id, error=_as_json(_sentence(error)))

    def _result(self, request: Request) -> Any:
        operation = self._engine.operations.get(request.operation)
        if operation is None:
            raise RunError(
                f"The engine has no operation {request.operation!r}",
                fix=f"The operations are: {', '.join(self._engine.operations)}",
            )
        arguments = parse(
            operation.arguments, request.arguments, where=request.operation, error=RunError
        )
        outcome = operation.run(arguments)
        if isinstance(outcome, Generator):
            return self._stream(request.id, outcome)
        return outcome

    def _stream(self, id_: str, parts: Generator[Value, None, Value]) -> Any:
        try:
            while self._cancelled != id_:
                self._say(id_, part=next(parts).model_dump(mode="json"))
        except StopIteration as end:
            return end.value.model_dump(mode="json")
        finally:
            parts.close()
        self._cancelled = ""
        return None

    def _say(self, id_: str, **content: Any) -> None:
        line = json.dumps({"id": id_, **content}, ensure_ascii=False, allow_nan=False)
        self._answers.write(line.encode(errors="replace") + b"\n")
        self._answers.flush()


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
            "paper": spec.paper,
            "precisions": list(spec.precisions),
            "starts_as_base": spec.starts_as_base,
            "publishes_adapter": spec.export is not None,
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
        The plan and its cost.
    """
    available, _ = memory_bytes()
    plan, cost = make_plan(
        read_dataset(request.dataset_folder),
        request.dataset_folder,
        request.base,
        request.method,
        options=request.options,
        schedule_changes=request.schedule,
        limits_changes=request.limits,
        precision=request.precision,
        revision=request.revision,
        seed=request.seed,
        hardware=_hardware().model_copy(update={"memory_available_bytes": available}),
    )
    return {"plan": plan.model_dump(mode="json"), "estimate": cost.model_dump(mode="json")}


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


@cache
def _hardware() -> Hardware:
    """Measure once, before a model is loaded: its memory would be taken for a worker's own."""
    return measure_hardware()


def _parsed(line: bytes) -> Request | StudioError:
    try:
        return parse(Request, json.loads(line), where="request", error=RunError)
    except StudioError as error:
        return error
    except (ValueError, RecursionError):
        return RunError("A request to the engine is not JSON", fix="Send one JSON object a line")


def _sentence(error: Exception) -> StudioError:
    if isinstance(error, StudioError):
        return error
    traceback.print_exception(error)
    if is_out_of_memory(error):
        limit = resource.getrlimit(resource.RLIMIT_DATA)[0]
        return RunError(
            f"The engine has used up its {limit / _GIGABYTE:.1f} GB of memory",
            fix="Choose a smaller base or shorter texts, or close other programs",
        )
    return StudioError(
        "The engine made a mistake that it did not foresee",
        where=type(error).__name__,
        fix="Report it with the engine's log",
    )


def _as_json(error: StudioError) -> dict[str, str]:
    kind = next(kind for kind in type(error).__mro__ if kind in _PUBLIC_ERRORS)
    return {
        "kind": kind.__name__, "what": error.what, "where": error.where, "fix": error.fix,
    }  # fmt: skip


def _take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Keep stdin and stdout for the protocol: what a library prints goes to stderr."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.close(nowhere)
    os.dup2(2, 1)
    return requests, answers


def _limit_memory(ratio: float) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = int(memory_bytes()[1] * ratio)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def main() -> None:
    """Serve until the input ends."""
    parser = argparse.ArgumentParser(prog="python -m engine.service", description=__doc__)
    parser.add_argument(
        "--memory-ratio", type=float, default=0.8, help="Share of the machine's memory to use."
    )
    options = parser.parse_args()
    requests, answers = _take_pipes()
    _limit_memory(options.memory_ratio)
    prepare_process()
    _hardware()
    Service(requests, answers, Engine()).serve()


if __name__ == "__main__":
    main()
