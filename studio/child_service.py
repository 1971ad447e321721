"""The web process's way to a resident child: starts it, asks it, and starts it again.

The child may hang, explode or be killed; each costs the caller one sentence and the next caller
the seconds of a new start. It cannot outlive this process: its input ends when we do.
"""

import contextlib
import json
import os
import queue
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, Self
from uuid import uuid4

from studio.settings import child_environment
from templates.errors import RunError, StudioError
from templates.files import disk_errors

_ROOT = Path(__file__).parents[1]
_USUAL_LIMIT_SECONDS = 60.0
_FAREWELL_SECONDS = 3.0  # how long a child that should stop may take
_MOST_LINE_BYTES = 64 << 20
_LARGEST_LOG_BYTES = 1 << 20
_LOOK_AGAIN_SECONDS = 0.05  # whether the input was closed, or nobody wants the answer any more
_ERRORS = {kind.__name__: kind for kind in StudioError.__subclasses__()}


@dataclass(frozen=True)
class ChildWords:
    """How sentences speak of a child.

    Attributes:
        name: such as "engine".
        too_slow: what a person can do where it took too long.
        too_large: what a person can do where it ended, most likely for want of memory.
    """

    name: str
    too_slow: str
    too_large: str


class Answer:
    """The parts of an answer as they come; after the last one, `result` is there."""

    def __init__(self, exchange: Generator[Any, None, Any]) -> None:
        """Begin when the first part is asked for.

        Args:
            exchange: yields parts, returns the result.
        """
        self.result: Any = None
        self._exchange = exchange

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            return next(self._exchange)
        except StopIteration as end:
            self.result = self.result if end.value is None else end.value
            raise

    def close(self) -> None:
        """Stop the child's work on it; needed only where parts are left unread."""
        self._exchange.close()


class ChildService:
    """One child, one operation at a time; other callers wait their turn. Safe for threads."""

    def __init__(
        self,
        command: Sequence[str],
        words: ChildWords,
        *,
        log: Path | None = None,
        idle_seconds: float = 300.0,
        offline: bool = True,
        limits_seconds: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        """Describe the child; it starts with the first request.

        Args:
            command: starts a program that speaks as `templates/service.py` describes.
            words: how sentences speak of it.
            log: file for what libraries print; None keeps nothing.
            idle_seconds: a child that nobody asked for so long is ended; its memory is free then.
            offline: whether the Hub must not be asked.
            limits_seconds: longest time for operations that take more than a minute.
        """
        self._command, self._words, self._log = list(command), words, log
        self._idle_seconds, self._offline = idle_seconds, offline
        self._limits_seconds = limits_seconds
        self._turn = threading.Lock()  # held for a whole operation, perhaps by several threads
        self._change = threading.Lock()  # held while the child is exchanged
        self._child: _Child | None = None
        self._timer: threading.Timer | None = None
        self._is_closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The child's process id; None while there is no child."""
        with self._change:
            return self._child.pid if self._child and self._child.is_running() else None

    def call(
        self,
        operation: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout_seconds: float | None = None,
    ) -> Any:
        """Ask for something and wait for the result.

        Args:
            operation: such as "estimate".
            arguments: JSON-ready; paths may be `Path`.
            timeout_seconds: for waiting in line, and again for the work; None: what is usual.

        Returns:
            The result, as JSON gives it.
        """
        answer = self.stream(operation, arguments, timeout_seconds=timeout_seconds)
        for _ in answer:
            pass
        return answer.result

    def stream(
        self,
        operation: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout_seconds: float | None = None,
        silence_seconds: float = 60.0,
        cancelled: threading.Event | None = None,
    ) -> Answer:
        """Ask for something whose answer comes in parts.

        The turn is taken with the first part and given back with the last: read on, or close.
        Another thread that sets `cancelled` ends the parts, also while none comes and while the
        turn is awaited; there is no result then.

        Args:
            operation: such as "try".
            arguments: JSON-ready; paths may be `Path`.
            timeout_seconds: for waiting in line, and again for the work; None: what is usual.
            silence_seconds: longest time from one part to the next.
            cancelled: set by whoever wants the answer no longer.

        Returns:
            The answer to iterate; errors are raised there.
        """
        usual = self._limits_seconds.get(operation, _USUAL_LIMIT_SECONDS)
        limit_seconds = usual if timeout_seconds is None else timeout_seconds
        is_cancelled = (cancelled or threading.Event()).is_set
        return Answer(self._exchange(
            operation, arguments or {}, limit_seconds, silence_seconds, is_cancelled
        ))  # fmt: skip

    def release(self) -> None:
        """End the child unless it is at work; all its memory is free then, until the next call."""
        if not self._turn.acquire(blocking=False):
            return
        try:
            with self._change:
                child, self._child = self._child, None
            if child is not None:
                child.end()
        finally:
            self._turn.release()

    def close(self) -> None:
        """End the child, also in the middle of an operation; nothing can be asked afterwards."""
        with self._change:
            self._is_closed = True
            child, self._child = self._child, None
        self._stop_timer()
        if child is not None:
            child.end()

    def _exchange(
        self,
        operation: str,
        arguments: Mapping[str, Any],
        limit_seconds: float,
        silence_seconds: float,
        is_cancelled: Callable[[], bool],
    ) -> Generator[Any, None, Any]:
        if not self._take_turn(operation, limit_seconds, is_cancelled):
            return None
        try:
            self._stop_timer()
            child = self._running_child()
            try:
                return (yield from _ask(
                    child, self._words, operation, arguments, limit_seconds, silence_seconds,
                    is_cancelled,
                ))  # fmt: skip
            finally:
                self._start_timer()
        finally:
            self._turn.release()

    def _take_turn(
        self, operation: str, limit_seconds: float, is_cancelled: Callable[[], bool]
    ) -> bool:
        """Wait in line -> whether it is our turn, and not cancelled."""
        until = time.monotonic() + limit_seconds
        while not is_cancelled():
            left_seconds = max(0.0, until - time.monotonic())
            if self._turn.acquire(timeout=min(left_seconds, _LOOK_AGAIN_SECONDS)):
                return True
            if time.monotonic() >= until:
                raise RunError(
                    f"The {self._words.name} is busy with another request",
                    where=operation,
                    fix="Try again soon",
                )
        return False

    def _running_child(self) -> "_Child":
        with self._change:
            if self._is_closed:
                raise RunError(f"The {self._words.name} was closed", fix="Start the studio again")
            if self._child is not None and not self._child.is_running():
                self._child.end()
                self._child = None
            if self._child is None:
                what = f"the {self._words.name}'s log"
                self._child = _Child(self._command, self._log, what, offline=self._offline)
            return self._child

    def _start_timer(self) -> None:
        timer = threading.Timer(self._idle_seconds, self.release)
        timer.daemon = True
        with self._change:
            if self._is_closed:
                return
            self._timer = timer
            timer.start()

    def _stop_timer(self) -> None:
        with self._change:
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()


class _SilentError(Exception):
    """No answer came in time."""


class _CancelledError(Exception):
    """Nobody wants the answer any more."""


class _EndedError(Exception):
    """The child ended, or can no longer be understood."""


def _ask(
    child: "_Child",
    words: ChildWords,
    operation: str,
    arguments: Mapping[str, Any],
    limit_seconds: float,
    silence_seconds: float,
    is_cancelled: Callable[[], bool],
) -> Generator[Any, None, Any]:
    """Send one request and pass its parts on; a child that does not keep to it is ended."""
    id_ = uuid4().hex
    deadline = until = time.monotonic() + limit_seconds
    is_over = False
    try:
        request = {"id": id_, "operation": operation, "arguments": arguments}
        child.send(request, deadline, is_cancelled)
        while "part" in (answer := child.answer(id_, until, is_cancelled)):
            yield answer["part"]
            until = min(deadline, time.monotonic() + silence_seconds)
        is_over = True
    except _CancelledError:
        return None
    except _SilentError:
        child.end(patience_seconds=0)
        seconds = limit_seconds if until == deadline else silence_seconds
        raise RunError(
            f"The {words.name} took longer than {seconds:g} s and was restarted",
            where=operation,
            fix=words.too_slow,
        ) from None
    except _EndedError:
        raise RunError(
            f"The {words.name} ended in the middle of its work and was restarted",
            where=operation,
            fix=words.too_large,
        ) from None
    finally:
        if not is_over:
            child.give_up(id_)
    if "error" in answer:
        error = answer["error"]
        kind = _ERRORS.get(error["kind"], StudioError)
        raise kind(error["what"], where=error["where"], fix=error["fix"])
    return answer["result"]


def _opened(log: Path | None) -> BinaryIO:
    """Go on with a log, which may tell why the child before ended; a large one begins anew."""
    is_large = log is not None and log.is_file() and log.stat().st_size > _LARGEST_LOG_BYTES
    return open(log or os.devnull, "wb" if is_large else "ab")


class _Child:
    """A running child."""

    def __init__(self, command: list[str], log: Path | None, what: str, *, offline: bool) -> None:
        """Start it: an argument list, a session of its own, few variables, no secrets."""
        with disk_errors(what), _opened(log) as errors:
            self._process = subprocess.Popen(  # noqa: S603 - our own program, numbers as arguments
                command,
                cwd=_ROOT,
                env=child_environment(offline=offline),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        assert self._process.stdin is not None
        self._input = self._process.stdin
        os.set_blocking(self._input.fileno(), False)  # a child that does not read holds nobody
        self._use_of_input = threading.Lock()  # so that no write meets a closed, reused number
        self._answers: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Its process id, which is its group's too."""
        return self._process.pid

    def is_running(self) -> bool:
        """Whether it can be asked."""
        return self._process.poll() is None

    def send(
        self,
        request: Mapping[str, Any],
        until: float,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        """Write one line, as fast as the child reads it."""
        left = memoryview(json.dumps(request, default=os.fspath).encode() + b"\n")
        room = select.poll()
        room.register(self._input_number(), select.POLLOUT)
        while left := left[self._write_some(left) :]:
            if is_cancelled():
                raise _CancelledError
            if time.monotonic() >= until:
                raise _SilentError
            room.poll(_LOOK_AGAIN_SECONDS * 1000)

    def answer(
        self, id_: str, until: float, is_cancelled: Callable[[], bool] = lambda: False
    ) -> dict[str, Any]:
        """Wait for the next answer to a request; those to given-up requests are passed over."""
        while True:
            if is_cancelled():
                raise _CancelledError
            left_seconds = max(0.0, until - time.monotonic())
            try:
                answer = self._answers.get(timeout=min(left_seconds, _LOOK_AGAIN_SECONDS))
            except queue.Empty:
                if time.monotonic() >= until:
                    raise _SilentError from None
                continue
            if answer is None:
                self._answers.put(None)  # for whoever asks next
                raise _EndedError
            if answer.get("id") == id_:
                return answer

    def give_up(self, id_: str) -> None:
        """Stop the work on a request; where it does not stop soon, end the child."""
        until = time.monotonic() + _FAREWELL_SECONDS
        try:
            self.send({"id": id_, "operation": "cancel"}, until)
            while "part" in self.answer(id_, until):
                pass
        except (_SilentError, _EndedError):
            self.end()

    def end(self, *, patience_seconds: float = _FAREWELL_SECONDS) -> None:
        """Close its input, wait a moment, kill its group, and collect it; twice is once."""
        with self._use_of_input, contextlib.suppress(OSError):
            self._input.close()  # at once: nothing is ever kept in its buffer
        try:
            self._process.wait(patience_seconds)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
        self._reader.join()

    def _input_number(self) -> int:
        try:
            return self._input.fileno()
        except ValueError:  # closed, perhaps by another thread
            raise _EndedError from None

    def _write_some(self, content: memoryview) -> int:
        """Write what there is room for now; past the buffer, whose lock `close` would wait for."""
        with self._use_of_input:
            try:
                return os.write(self._input_number(), content)
            except BlockingIOError:
                return 0
            except OSError:  # the pipe is broken
                raise _EndedError from None

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            while line := lines.readline(_MOST_LINE_BYTES):
                # What a library printed while it was imported is not an answer.
                with contextlib.suppress(ValueError):
                    answer = json.loads(line)
                    if isinstance(answer, dict):
                        self._answers.put(answer)
        self._answers.put(None)
        self._process.wait()  # else one that died by itself stays as a zombie
