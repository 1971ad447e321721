"""A sweep: train jobs that were asked for together, and who of them goes on.

Its file is written once. Where the members stand is read from their own folders each time, so
whatever is killed, the next to look comes to the same decision.
"""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import Field, ValidationError

from engine.job_status import JobState, JobStatus
from engine.jobs import Job
from studio.home import Home
from studio.jobs.halving import Decision, Halving, MemberState, Standing, decide
from studio.jobs.history import History, read_history
from studio.jobs.requests import TrainRequest, read_request
from templates.errors import PlanError, RunError, StudioError
from templates.values import Value

_MOST_MEMBERS = 64
Label = dict[str, str | int | float]


class SweepMember(Value):
    """One train job of a sweep."""

    job: str
    label: Label = Field(description="What sets it apart, such as method and learning_rate.")
    total_steps: int = Field(ge=1)
    rungs: tuple[int, ...] = Field(default=(), description="Steps where halving chooses.")


class Sweep(Value):
    """Train jobs with one table."""

    id: str
    name: str
    members: tuple[SweepMember, ...]
    halving: Halving | None = None


def check_size(num_members: int) -> None:
    """Refuse a sweep that nobody could wait for or read.

    Args:
        num_members: that are wanted.

    Raises:
        PlanError: there are too many, or none.
    """
    if not 0 < num_members <= _MOST_MEMBERS:
        raise PlanError(
            f"A sweep has between 1 and {_MOST_MEMBERS} members, and this one has {num_members}",
            fix="Try fewer methods, learning rates or seeds at once",
        )


def read_sweep(path: Path) -> Sweep:
    """Read a sweep's file.

    Args:
        path: from `Home.find("sweep", ...)`.

    Returns:
        The sweep.

    Raises:
        RunError: there is none, or the file is damaged.
    """
    try:
        return Sweep.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValidationError, ValueError):
        raise RunError(
            "The sweep's file is missing or damaged",
            where=path.stem,
            fix="Look at its runs one by one: python app.py jobs list",
        ) from None


def sweep_of(home: Home, job: Job) -> Sweep | None:
    """Find the sweep that a job belongs to.

    Args:
        home: where sweeps are kept.
        job: of any kind.

    Returns:
        The sweep; None where it belongs to none that can be read.
    """
    try:
        request = read_request(job)
        if isinstance(request, TrainRequest) and request.sweep_id:
            return read_sweep(_file(home, request.sweep_id))
    except StudioError:
        return None
    return None


@dataclass(frozen=True)
class MemberNow:
    """A member as its folder shows it.

    Attributes:
        member: which.
        status: of its job; "new" where that was deleted.
        best_loss: the best validation loss so far.
        seconds: that its attempts took, loading the base included.
        standing: what halving sees.
        decision: what becomes of it; nothing without halving.
    """

    member: SweepMember
    status: JobStatus
    best_loss: float | None
    seconds: float
    standing: Standing
    decision: Decision = field(default_factory=Decision)


def look(
    home: Home, sweep: Sweep, *, going: Collection[str], held: Collection[str]
) -> list[MemberNow]:
    """See where each member stands, and what becomes of it.

    Args:
        home: where jobs are kept.
        sweep: the sweep.
        going: ids of jobs that wait or run.
        held: ids of jobs that a person stopped.

    Returns:
        The members in order.
    """
    found = [_look(home, member, going, held) for member in sweep.members]
    if sweep.halving is None:
        return found
    decided = decide([now.standing for now in found], sweep.halving)
    return [replace(now, decision=decision) for now, decision in zip(found, decided, strict=True)]


def next_entries(
    home: Home, sweep_id: str, *, going: Collection[str], held: Collection[str]
) -> list[tuple[str, int]] | None:
    """Say what must be put into the line for a sweep now.

    Args:
        home: where sweeps and jobs are kept.
        sweep_id: the sweep.
        going: ids of jobs that wait or run.
        held: ids of jobs that a person stopped.

    Returns:
        Job ids, each with the step to pause at (0: the end); none while members are on their
        way. None where nothing will happen until somebody starts a member.
    """
    try:
        sweep = read_sweep(_file(home, sweep_id))
    except StudioError:
        return None
    if any(member.job in going for member in sweep.members):
        return []
    return [
        (now.member.job, now.decision.until_step)
        for now in look(home, sweep, going=going, held=held)
        if now.decision.goes_on
    ] or None


def pause_step(
    home: Home, sweep: Sweep, job: Job, *, going: Collection[str], held: Collection[str]
) -> int:
    """Say where a member that a person starts again pauses.

    Args:
        home: where jobs are kept.
        sweep: its sweep.
        job: the member.
        going: ids of all jobs that wait or run.
        held: ids of jobs that a person stopped.

    Returns:
        Its next rung; 0 where none is left, or it was dropped: then it goes on to the end.
    """
    others = [name for name in going if name != job.id]
    for now in look(home, sweep, going=others, held=held):
        if now.member.job == job.id and not now.decision.dropped_at:
            return now.standing.next_pause
    return 0


def _file(home: Home, sweep_id: str) -> Path:
    return home.place("sweep") / f"{sweep_id}.json"


def _look(
    home: Home, member: SweepMember, going: Collection[str], held: Collection[str]
) -> MemberNow:
    job = Job(home.place("train") / member.job)
    if not job.folder.is_dir():  # deleted
        return MemberNow(member, JobStatus("new"), None, 0.0, Standing("left_out", member.rungs))
    status, history = job.status(), read_history(job)
    losses = tuple(
        history.best_loss(until_step=rung)
        for rung in member.rungs
        if status.state == "finished" or history.last_evaluated >= rung
    )
    standing = Standing(
        state=_state(job.id, status.state, history, going, held),
        rungs=member.rungs,
        step=max(status.step, history.last_evaluated),
        losses=losses,
    )
    return MemberNow(member, status, history.best_loss(), history.seconds, standing)


def _state(
    name: str,
    state: JobState,
    history: History,
    going: Collection[str],
    held: Collection[str],
) -> MemberState:
    if state == "finished":
        return "finished"
    if name in going or state == "running":
        return "going"
    if state == "failed":
        return "failed"
    if name in held:
        return "left_out"
    if 0 < history.asked_step <= history.last_evaluated:
        return "paused"
    return "going" if state == "interrupted" else "left_out"
