"""Where a job stands: a pure fold over what an attempt wrote, and liveness. Free of torch."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from engine.attempts import LAST_WORDS
from engine.events import (
    Failed,
    Finished,
    Launched,
    Progressed,
    Stamped,
    Started,
    Stepped,
    Stopped,
)
from engine.liveness import Process, boot_id, memory_kills, why_it_ended

JobState = Literal["new", "running", "finished", "stopped", "failed", "interrupted"]
SILENT_SECONDS = 600.0  # loading a large base is the longest time without an event


@dataclass(frozen=True)
class JobStatus:
    """Where a job stands.

    Attributes:
        state: see `fold`; "new" where no worker has begun.
        attempt: the newest attempt with events; 0 before the first.
        done_ratio: share of the work, 0 to 1.
        words: what is being done.
        step: optimizer steps taken; 0 for other kinds.
        total_steps: steps of the whole run; 0 until it is known.
        loss: of the last step.
        best_loss: the best validation loss of a run that finished or paused.
        what: why it failed or was interrupted; empty otherwise.
        fix: what to do then.
        where: the place, where one is known.
        started_at: UTC seconds of the attempt's first event.
        updated_at: UTC seconds of its last.
        silent_seconds: time since the last sign of life; 0 unless running.
        process: the worker, where the attempt said.
        was_killed_for_memory: whether the system ended the worker because memory ran out.
    """

    state: JobState
    attempt: int = 0
    done_ratio: float = 0.0
    words: str = ""
    step: int = 0
    total_steps: int = 0
    loss: float | None = None
    best_loss: float | None = None
    what: str = ""
    fix: str = ""
    where: str = ""
    started_at: float = 0.0
    updated_at: float = 0.0
    silent_seconds: float = 0.0
    process: Process | None = None
    was_killed_for_memory: bool = False

    @property
    def is_silent(self) -> bool:
        """Whether it runs without a sign of life for so long that somebody should look."""
        return self.silent_seconds > SILENT_SECONDS


class FoundDead(NamedTuple):
    """What was seen when a worker was first found gone without a last word."""

    boot_id: str
    memory_kills: int
    on_request: bool = False


def fold(
    events: Sequence[Stamped],
    attempt: int,
    *,
    alive: Callable[[Process], bool],
    found_dead: "FoundDead | None" = None,
) -> JobStatus:
    """Fold an attempt's events and liveness into a state. Pure, but for the clock of a living one.

    A last word decides: "finished", "stopped" or "failed". Without one, an attempt whose process
    lives is "running", and any other was "interrupted", or "failed" where memory ran out.

    Args:
        events: of one attempt, in order; those in the middle may be left out.
        attempt: its number.
        alive: tells whether a process still runs.
        found_dead: what was seen when the process was first found gone.

    Returns:
        The status.
    """
    ends = (place for place, s in enumerate(events, 1) if isinstance(s.event, LAST_WORDS))
    events = events[: next(ends, None)]  # what is said after the last word does not count
    status = _progress_of(events, attempt)
    last_word = events[-1].event if isinstance(events[-1].event, LAST_WORDS) else None
    launched = next((s.event for s in events if isinstance(s.event, Launched)), None)
    if isinstance(last_word, Failed):
        return _with(
            status, state="failed", what=last_word.what, fix=last_word.fix,
            where=last_word.where,
        )  # fmt: skip
    if isinstance(last_word, Stopped):
        return _with(status, state="stopped")
    if last_word is not None:
        return _with(status, state="finished", done_ratio=1.0)
    if launched is None:  # written before workers said who they are
        return _with(status, state="interrupted", what="It did not end", fix="Resume it")
    process = Process(launched.pid, launched.process_started, launched.boot_id)
    if alive(process):
        silent = max(0.0, time.monotonic() - events[-1].monotonic_seconds)
        return _with(status, state="running", process=process, silent_seconds=silent)
    seen = found_dead or FoundDead(boot_id(), memory_kills())
    reason = why_it_ended(launched, seen.boot_id, seen.memory_kills, on_request=seen.on_request)
    ran_out = seen.boot_id == launched.boot_id and seen.memory_kills > launched.memory_kills
    ran_out = ran_out and not seen.on_request
    fix = reason.fix
    if ran_out and status.total_steps:
        fix = f"Resume it, with half as many tokens in memory at once; or {fix[0].lower()}{fix[1:]}"
    state: JobState = "failed" if ran_out else "interrupted"
    return _with(status, state=state, what=reason.what, fix=fix, was_killed_for_memory=ran_out)


def _with(status: JobStatus, **changes: Any) -> JobStatus:
    return JobStatus(**{**status.__dict__, **changes})


def _progress_of(events: Sequence[Stamped], attempt: int) -> JobStatus:
    found: dict[str, Any] = {}
    for stamped in events:
        event = stamped.event
        if isinstance(event, Progressed):
            found |= {"done_ratio": event.done_ratio, "words": event.words}
        elif isinstance(event, Started):
            found |= {"total_steps": event.total_steps, "step": event.first_step - 1}
        elif isinstance(event, Stepped):
            found |= {"step": event.step, "loss": event.loss}
        elif isinstance(event, Finished | Stopped):
            found |= {"step": event.step, "best_loss": event.best_loss}
    if found.get("total_steps"):
        total = found["total_steps"]
        found |= {"done_ratio": found["step"] / total, "words": f"step {found['step']}/{total}"}
    return JobStatus("new", attempt, started_at=events[0].at, updated_at=events[-1].at, **found)
