"""The child behind the web process: one that stays, answers questions, and speaks JSON lines.

    in   {"id": …, "operation": …, "arguments": {…}}      one line each
    out  {"id": …, "part": …}                             none or more
         {"id": …, "result": …} or {"id": …, "error": {"kind", "what", "where", "fix"}}

A line with the operation "cancel" ends the parts of the answer it names; the result is then null.
What is untrusted is opened in such a child, under a memory limit, so that what explodes is this
process. It ends when its input does, even in the middle of an operation.
"""

import json
import os
import queue
import resource
import threading
import traceback
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from pydantic import Field

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


@dataclass(frozen=True)
class Operation:
    """What can be asked for.

    Attributes:
        arguments: the value that its arguments must be.
        run: gives the result; a generator gives parts before it.
    """

    arguments: type[Value]
    run: Callable[[Any], Any]


@dataclass(frozen=True)
class Server:
    """Who answers, and how it speaks of itself.

    Attributes:
        name: for sentences, such as "engine".
        operations: what can be asked for, by name.
        is_out_of_memory: recognises that memory ran out, whichever library says so.
        save_memory: what a person can do then.
        interrupt: called beside the work when its parts are cancelled, so that a slow step ends.
    """

    name: str
    operations: Mapping[str, Operation]
    is_out_of_memory: Callable[[Exception], bool]
    save_memory: str
    interrupt: Callable[[], None] = lambda: None


class Service:
    """Answers requests one after the other, in the order in which they came."""

    def __init__(self, requests: BinaryIO, answers: BinaryIO, server: Server) -> None:
        """Connect the pipes; nothing is read yet.

        Args:
            requests: lines of JSON; when they end, this process does.
            answers: where to write lines of JSON.
            server: does the work.
        """
        self._requests, self._answers, self._server = requests, answers, server
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
            request = self._parsed(line)
            if isinstance(request, Request) and request.operation == CANCEL:
                self._cancelled = request.id
                self._server.interrupt()
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
            self._say(request.id, error=_as_json(self._sentence(error)))

    def _result(self, request: Request) -> Any:
        operation = self._server.operations.get(request.operation)
        if operation is None:
            raise RunError(
                f"The {self._server.name} has no operation {request.operation!r}",
                fix=f"The operations are: {', '.join(self._server.operations)}",
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

    def _parsed(self, line: bytes) -> Request | StudioError:
        try:
            return parse(Request, json.loads(line), where="request", error=RunError)
        except StudioError as error:
            return error
        except (ValueError, RecursionError):
            return RunError(
                f"A request to the {self._server.name} is not JSON",
                fix="Send one JSON object a line",
            )

    def _sentence(self, error: Exception) -> StudioError:
        if isinstance(error, StudioError):
            return error
        traceback.print_exception(error)
        if self._server.is_out_of_memory(error):
            limit = resource.getrlimit(resource.RLIMIT_DATA)[0]
            return RunError(
                f"The {self._server.name} has used up its {limit / _GIGABYTE:.1f} GB of memory",
                fix=self._server.save_memory,
            )
        return StudioError(
            f"The {self._server.name} made a mistake that it did not foresee",
            where=type(error).__name__,
            fix=f"Report it with the {self._server.name}'s log",
        )


def take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Keep stdin and stdout for the protocol: what a library prints goes to stderr.

    Returns:
        Where requests come from, and where answers go.
    """
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.close(nowhere)
    os.dup2(2, 1)
    return requests, answers


def _as_json(error: StudioError) -> dict[str, str]:
    kind = next(kind for kind in type(error).__mro__ if kind in _PUBLIC_ERRORS)
    return {
        "kind": kind.__name__, "what": error.what, "where": error.where, "fix": error.fix,
    }  # fmt: skip
