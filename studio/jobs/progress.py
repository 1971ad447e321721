"""How a job goes on, read from the ends of its event files: cheap enough to ask every second.

However long a run is, only the first kilobytes and the last megabyte of its newest attempts are
looked at. What was noticed between them is in the files, and not here.
"""

import contextlib
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import psutil

from engine.attempts import read_ends
from engine.checkpoints import STATE, TrainerState
from engine.events import (
    Degraded,
    Evaluated,
    Event,
    Failed,
    Launched,
    Noticed,
    Sample,
    Sampled,
    Stamped,
    Started,
    Stepped,
    from_json,
)
from engine.job_status import JobStatus
from engine.jobs import Job
from engine.liveness import Process
from studio.jobs.queue import Queue, QueueState, standing
from studio.jobs.requests import TrainRequest, read_request
from templates.errors import RunError, StudioError

_HEAD_BYTES, _WINDOW_BYTES, _RECENT_BYTES = 4 << 10, 1 << 20, 32 << 10
_MOST_RECENT_LINES = 40
# So many attempts are asked for the last evaluation, where the newest has not come to one.
_MOST_ATTEMPTS = 4
_LEAST_DOUBT, _MOST_DOUBT = 0.05, 0.5


@dataclass(frozen=True)
class RunProgress:
    """Where a job stands and how it goes on; of jobs that do not train only the general part.

    Attributes:
        state: the line included.
        place: in the line, 1 for the next; 0 where it does not wait.
        words: what is being done.
        done_ratio: share of the work, 0 to 1.
        is_silent: whether it runs without a sign of life for so long that somebody should look.
        step: optimizer steps taken.
        total_steps: of the whole run; 0 until it is known.
        epoch: passes over the data so far; None where that cannot be told.
        loss: of the last step.
        learning_rate: of the last step.
        tokens_per_second: of the last steps, evaluations left out.
        validation_loss: of the last evaluation.
        best_step: the one with the lowest validation loss; None before the first evaluation.
        memory_bytes: what the worker holds in memory now; None unless it runs.
        elapsed_seconds: that all attempts took.
        eta_low_seconds: how long it takes at least, if it goes on as before; to the end, or to the
            step where it pauses. Patience may end it earlier.
        eta_high_seconds: how long at most.
        notices: sentences to show.
        samples: what the model answered last.
        sampled_step: when that was.
        failure: why it failed or was interrupted.
    """

    state: QueueState
    place: int = 0
    words: str = ""
    done_ratio: float = 0.0
    is_silent: bool = False
    step: int = 0
    total_steps: int = 0
    epoch: float | None = None
    loss: float | None = None
    learning_rate: float | None = None
    tokens_per_second: float | None = None
    validation_loss: float | None = None
    best_step: int | None = None
    memory_bytes: int | None = None
    elapsed_seconds: float = 0.0
    eta_low_seconds: float | None = None
    eta_high_seconds: float | None = None
    notices: tuple[str, ...] = ()
    samples: tuple[Sample, ...] = ()
    sampled_step: int | None = None
    failure: Failed | None = None


def read_progress(queue: Queue, job: Job) -> RunProgress:
    """Read how a job of any kind goes on.

    Args:
        queue: the line it may stand in.
        job: the job.

    Returns:
        Its progress, as of now.

    Raises:
        RunError: there is no such job, or not any more.
    """
    try:
        job.kind  # noqa: B018 - raises where there is none
        return _read(queue, job)
    except FileNotFoundError:
        raise RunError("There is no such run", where=job.id, fix="List them first") from None


def _read(queue: Queue, job: Job) -> RunProgress:
    waiting = queue.waiting()  # before the status: who left the line by then has begun
    status = job.status()
    state = standing(job, status, waiting)
    files = list(job.attempt_events().values())
    ends = _Ends(files[-1] if files else None)
    steps = ends.recent_steps()
    evaluated, sampled = _last_looks(ends, files)
    low, high = _eta_seconds(ends, steps, status) if state == "running" else (None, None)
    failure = Failed(status.what, status.fix, status.where)
    return RunProgress(
        state=state,
        place=waiting.index(job.id) + 1 if state == "queued" else 0,
        words=status.words,
        done_ratio=status.done_ratio,
        is_silent=status.is_silent,
        step=status.step,
        total_steps=status.total_steps,
        epoch=_epoch(job, status),
        loss=status.loss,
        learning_rate=steps[-1][1].learning_rate if steps else None,
        tokens_per_second=_tokens_per_second([step for _, step in steps]),
        validation_loss=evaluated.loss if evaluated else None,
        best_step=_best_step(job),
        memory_bytes=_memory_bytes(status.process) if status.process else None,
        elapsed_seconds=_elapsed_seconds(files, is_running=state == "running"),
        eta_low_seconds=low,
        eta_high_seconds=high,
        notices=tuple(ends.notices()),
        samples=sampled.samples if sampled else (),
        sampled_step=sampled.step if sampled else None,
        failure=failure if state in ("failed", "interrupted") else None,
    )


class _Ends:
    """The first and the last events of an attempt, parsed only where somebody asks."""

    def __init__(self, path: Path | None) -> None:
        self._content = bytearray()
        if path is not None:
            with path.open("rb", buffering=0) as file:
                size = file.seek(0, 2)
                head = size if size <= _HEAD_BYTES + _WINDOW_BYTES else _HEAD_BYTES
                rest = min(size - head, _WINDOW_BYTES)
                # One piece of memory: copies of a megabyte would cost more than all the rest.
                self._content = bytearray(b"\n") * (head + rest + 2)
                view = memoryview(self._content)
                file.seek(0)
                file.readinto(view[1 : 1 + head])
                file.seek(size - rest)
                file.readinto(view[2 + head :])

    def all(self, kind: type[Event]) -> Iterator[Stamped]:
        """Give the events of a kind in order; torn ones are passed over."""
        mark, end = _mark(kind), -1
        while (start := self._content.find(mark, end + 1)) >= 0:
            end = start + len(mark)
            yield from self._event_at(start)

    def last(self, kind: type[Event]) -> Stamped | None:
        """Give the last event of a kind that is not torn."""
        mark, end = _mark(kind), len(self._content)
        while (start := self._content.rfind(mark, 0, end)) >= 0:
            for found in self._event_at(start):
                return found
            end = start
        return None

    def first(self, kind: type[Event]) -> Stamped | None:
        return next(self.all(kind), None)

    def recent_steps(self) -> list[tuple[float, Stepped]]:
        """Give the last steps and when they were written."""
        lines = bytes(self._content[-_RECENT_BYTES:]).split(b"\n")[-_MOST_RECENT_LINES:]
        found = [(stamped.monotonic_seconds, stamped.event) for stamped in _whole(lines)]
        return [(at, event) for at, event in found if isinstance(event, Stepped)]

    def notices(self) -> Iterator[str]:
        started = self.first(Started)
        if started and isinstance(started.event, Started):
            yield from started.event.notices
        later = [*self.all(Noticed), *self.all(Degraded)]
        for stamped in sorted(later, key=lambda stamped: stamped.monotonic_seconds):
            if isinstance(stamped.event, Noticed):
                yield stamped.event.words
            elif isinstance(stamped.event, Degraded):
                lost = stamped.event
                yield f"{lost.num_lost} events were not written: {lost.reason}."

    def _event_at(self, start: int) -> Iterator[Stamped]:
        end = self._content.find(b"\n", start + 1)
        return _whole([bytes(self._content[start + 1 : end if end >= 0 else None])])


def _mark(kind: type[Event]) -> bytes:
    return f'\n{{"event":"{kind.__name__}"'.encode()


def _whole(lines: Iterable[bytes]) -> Iterator[Stamped]:
    for line in lines:
        with contextlib.suppress(ValueError):  # torn
            yield from_json(line)


def _last_looks(ends: _Ends, files: Sequence[Path]) -> tuple[Evaluated | None, Sampled | None]:
    """Find the last evaluation and samples; in earlier attempts those that still count."""
    evaluated, sampled, first_step = None, None, math.inf
    for path in [None, *files[-2 : -_MOST_ATTEMPTS - 1 : -1]]:
        attempt = _Ends(path) if path else ends
        for stamped in (attempt.last(Evaluated), attempt.last(Sampled)):
            event = stamped.event if stamped else None
            if isinstance(event, Evaluated) and event.step < first_step:
                evaluated = evaluated or event
            elif isinstance(event, Sampled) and event.step < first_step:
                sampled = sampled or event
        if evaluated and sampled:
            break
        started = attempt.first(Started)
        if started and isinstance(started.event, Started):
            first_step = min(first_step, started.event.first_step)
    return evaluated, sampled


def _eta_seconds(
    ends: _Ends, steps: Sequence[tuple[float, Stepped]], status: JobStatus
) -> tuple[float | None, float | None]:
    """Between the pace of the whole attempt and that of the last steps, with less doubt in time.

    Both go by when steps were written, so evaluations, saves and samples are in them.
    """
    started, launched = ends.first(Started), ends.first(Launched)
    if not (steps and started and isinstance(started.event, Started)):
        return None, None
    until_step = getattr(launched.event, "until_step", 0) if launched else 0
    (first_at, first), (last_at, last) = steps[0], steps[-1]
    num_steps = max(1, last.step - started.event.first_step + 1)
    paces = [(last_at - started.monotonic_seconds) / num_steps]
    if last.step > first.step:
        paces.append((last_at - first_at) / (last.step - first.step))
    left = max(0, min(until_step or status.total_steps, status.total_steps) - last.step)
    doubt = min(_MOST_DOUBT, max(_LEAST_DOUBT, 1 / math.sqrt(num_steps)))
    low, high = max(0.0, min(paces)), max(0.0, *paces)
    return left * low * (1 - doubt), left * high * (1 + doubt)


def _tokens_per_second(steps: Sequence[Stepped]) -> float | None:
    seconds = sum(step.seconds for step in steps)
    return sum(step.num_tokens for step in steps) / seconds if seconds > 0 else None


def _epoch(job: Job, status: JobStatus) -> float | None:
    epochs, max_steps = _epochs(job.folder)
    if not (epochs and status.total_steps) or status.total_steps == max_steps:
        return None
    return epochs * status.step / status.total_steps


@lru_cache(maxsize=256)
def _epochs(folder: Path) -> tuple[float, int]:
    """Read the planned passes and the limit on steps; a request is written once."""
    with contextlib.suppress(StudioError):  # of another version: the rest can be shown
        request = read_request(Job(folder))
        if isinstance(request, TrainRequest):
            return request.plan.schedule.epochs, request.plan.limits.max_steps
    return 0.0, 0


def _best_step(job: Job) -> int | None:
    """Look into the newest checkpoint; whether it is sound is found out by who opens it."""
    for folder in sorted(job.checkpoints.glob("step-*"), reverse=True):
        with contextlib.suppress(OSError, ValueError):  # pruned or replaced just now
            return TrainerState.model_validate_json((folder / STATE).read_bytes()).best_step or None
    return None


def _memory_bytes(process: Process) -> int | None:
    try:
        return int(psutil.Process(process.pid).memory_info().rss)
    except psutil.Error:  # ended just now
        return None


def _elapsed_seconds(files: Sequence[Path], *, is_running: bool) -> float:
    spans = [_span(path, path.stat().st_size) for path in files]
    if is_running and spans:
        begin, _ = spans[-1]
        spans[-1] = begin, time.monotonic()
    return sum(max(0.0, end - begin) for begin, end in spans)


@lru_cache(maxsize=1024)
def _span(path: Path, size_bytes: int) -> tuple[float, float]:
    """When an attempt began and ended; read again only where the file has grown."""
    events = read_ends(path)
    return (events[0].monotonic_seconds, events[-1].monotonic_seconds) if events else (0.0, 0.0)
