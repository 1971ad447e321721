"""Watching a job from its place in the line to its last word, from any process."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from engine.events import Stamped, from_json
from engine.job_status import JobStatus
from engine.jobs import Job
from studio.jobs.queue import Queue

_LOOK_SECONDS = 0.05
_ADVANCE_SECONDS = 1.0
_ENDS = ("finished", "stopped", "failed", "interrupted")


def follow(
    queue: Queue,
    job: Job,
    *,
    show: Callable[[Stamped], None] = lambda stamped: None,
    show_place: Callable[[int], None] = lambda place: None,
) -> JobStatus:
    """Wait until a job ends, showing what it reports; Ctrl-C and SIGTERM ask the job to stop.

    Meanwhile the queue is moved on, so a job that waits gets its turn without anybody else.

    Args:
        queue: the line it stands in.
        job: the job.
        show: called with each event of the coming or running attempt.
        show_place: called with its place while it waits, 1 for the next.

    Returns:
        The status at its end.
    """
    done = _newest_attempt(job) if queue.state(job) == "queued" else _newest_attempt(job) - 1
    reader = _EventReader(job, after_attempt=done)
    advanced_at = -_ADVANCE_SECONDS
    with interrupts() as num_asked:
        num_seen = 0
        while True:
            if num_asked() > num_seen:  # a second time, at once
                num_seen = num_asked()
                queue.stop(job, force=num_seen > 1)
            if time.monotonic() - advanced_at >= _ADVANCE_SECONDS:
                queue.advance()
                advanced_at = time.monotonic()
            waiting = queue.waiting()  # before the status: who left the line by then has begun
            status = job.status()
            for stamped in reader.new_events():
                show(stamped)
            if job.id in waiting:
                show_place(waiting.index(job.id) + 1)
            elif status.state in _ENDS or status.state == "new":
                queue.advance()  # collects the worker, and lets the next one begin
                return job.status()
            time.sleep(_LOOK_SECONDS)


def tail(job: Job, *, until: Callable[[], bool]) -> Iterator[Stamped]:
    """Give every event of a job, the ones to come too.

    Args:
        job: the job.
        until: asked when there is nothing new; True ends it.

    Yields:
        Events in order, attempt after attempt.
    """
    reader = _EventReader(job, after_attempt=0)
    while True:
        over = until()  # asked first: what is written after this is read next time
        yield from reader.new_events()
        if over:
            return
        time.sleep(_LOOK_SECONDS)


class _EventReader:
    """Remembers how far each attempt's events were read."""

    def __init__(self, job: Job, *, after_attempt: int) -> None:
        self._job, self._after = job, after_attempt
        self._offsets: dict[Path, int] = {}

    def new_events(self) -> Iterator[Stamped]:
        for number, path in self._job.attempt_events().items():
            if number <= self._after:
                continue
            with path.open("rb") as file:
                file.seek(self._offsets.get(path, 0))
                content = file.read()
            whole = content.rpartition(b"\n")[0] + b"\n" if b"\n" in content else b""
            self._offsets[path] = self._offsets.get(path, 0) + len(whole)
            for line in whole.split(b"\n"):
                with contextlib.suppress(ValueError):
                    yield from_json(line)


def _newest_attempt(job: Job) -> int:
    return max(job.attempt_events(), default=0)


@contextmanager
def interrupts() -> Iterator[Callable[[], int]]:
    """Count SIGINT and SIGTERM instead of ending.

    Yields:
        Tells how often somebody asked to stop.
    """
    count = 0

    def hear(number: int, frame: FrameType | None) -> None:
        nonlocal count
        count += 1

    before: dict[int, Any] = {}
    for which in (signal.SIGINT, signal.SIGTERM):
        before[which] = signal.signal(which, hear)
    try:
        yield lambda: count
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
