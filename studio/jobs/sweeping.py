"""Starting, stopping and resuming all members of a sweep."""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from engine.jobs import Job, create_job
from engine.plan import TrainPlan
from engine.schedules import steps_between_evaluations
from studio.home import Home
from studio.jobs.follow import interrupts
from studio.jobs.halving import Halving, can_choose, rung_steps
from studio.jobs.launcher import ask_to_stop
from studio.jobs.queue import Entry, Line, Queue
from studio.jobs.requests import TrainRequest
from studio.jobs.sweep import Label, Sweep, SweepMember, check_size, look
from studio.jobs.training import files_from_runs
from studio.records import kept_estimate
from templates.errors import PlanError
from templates.files import write_atomically

_LOOK_SECONDS = 0.1
_ADVANCE_SECONDS = 1.0


def start_sweep(
    queue: Queue,
    home: Home,
    plans: Sequence[tuple[Label, TrainRequest]],
    halving: Halving | None = None,
    *,
    name: str = "",
) -> Sweep:
    """Put all members into the line, or none.

    Killed before its last write, it leaves folders of jobs that nobody waits for.

    Args:
        queue: the line.
        home: where jobs are kept.
        plans: what sets each member apart, and what it is to do; estimates of the plans are kept.
        halving: drop the worse on the way; None: all train to the end.
        name: for people.

    Returns:
        The sweep; its members start at the next `advance`.

    Raises:
        PlanError: there are too many members, none, or one that was never estimated; or halving
            could never choose; or a plan starts from another run, and none fits.
    """
    check_size(len(plans))
    path = home.new("sweep").with_suffix(".json")
    folders = _new_folders(home, len(plans))
    members = []
    for folder, (label, request) in zip(folders, plans, strict=True):
        total_steps, between = _steps(home, request.plan)
        rungs = rung_steps(halving, total_steps, between) if halving else ()
        members.append(
            SweepMember(job=folder.name, label=label, total_steps=total_steps, rungs=rungs)
        )
    sweep = Sweep(id=path.stem, name=name, members=tuple(members), halving=halving)
    if halving and len(beyond_halving(sweep)) == len(members):
        raise PlanError(
            "Halving could never choose: no member is evaluated before its last step, so all "
            "would train to the end",
            where=f"{max(member.total_steps for member in members)} steps at most",
            fix="Evaluate more often (a higher -o evaluations_per_epoch=...), train for more "
            "steps, or leave --halving out",
        )
    brought = [files_from_runs(home, request) for _, request in plans]
    write_atomically(path, sweep.model_dump_json(indent=2))
    for folder, (_, request), files in zip(folders, plans, brought, strict=True):
        content = request.model_copy(update={"sweep_id": sweep.id}).model_dump(mode="json")
        create_job(folder, "train", content, files=files)
    entries = [Entry(job=member.job, until_step=next(iter(member.rungs), 0)) for member in members]
    queue.edit(lambda line: _with(line, sweep, entries))
    return sweep


def beyond_halving(sweep: Sweep) -> list[SweepMember]:
    """List the members that halving never ends early.

    Args:
        sweep: the sweep.

    Returns:
        Those that are evaluated at their last step only; none without halving.
    """
    if sweep.halving is None:
        return []
    return [one for one in sweep.members if not can_choose(one.rungs, one.total_steps)]


def stop_sweep(queue: Queue, home: Home, sweep: Sweep, *, force: bool = False) -> None:
    """Take all members out of the line; a running one saves. Nobody is promoted any more.

    Args:
        queue: the line.
        home: where jobs are kept.
        sweep: the sweep.
        force: end a running member at once.
    """
    names = {member.job for member in sweep.members}

    def without(line: Line) -> Line:
        return line.model_copy(
            update={
                "waiting": tuple(entry for entry in line.waiting if entry.job not in names),
                "sweeps": tuple(other for other in line.sweeps if other != sweep.id),
                "held": tuple(sorted({*line.held, *names})),
            }
        )

    queue.edit(without)
    for job in members(home, sweep):
        process = job.status().process
        if process is not None:
            ask_to_stop(process, force=force)


def resume_sweep(queue: Queue, home: Home, sweep: Sweep) -> None:
    """Put everybody back who was stopped or interrupted, each as far as its next rung.

    Args:
        queue: the line.
        home: where jobs are kept.
        sweep: the sweep; nothing happens to members that were dropped, failed or are done.
    """

    def resumed(line: Line) -> Line:
        names = {member.job for member in sweep.members}
        waiting = [entry.job for entry in line.waiting]
        held = [name for name in line.held if name not in names]
        entries = []
        for now in look(home, sweep, going=waiting, held=held):
            name = now.member.job
            at_rest = name not in waiting and now.status.state != "running"
            exists = (home.place("train") / name).is_dir()
            # Who is "going" and yet at rest was interrupted.
            if now.standing.state in ("left_out", "going") and at_rest and exists:
                entries.append(Entry(job=name, until_step=now.standing.next_pause))
        return _with(line, sweep, entries).model_copy(update={"held": tuple(held)})

    queue.edit(resumed)


def follow_sweep(
    queue: Queue, home: Home, sweep: Sweep, *, show: Callable[[Job | None], None]
) -> bool:
    """Move the queue on until no member waits or runs; Ctrl-C and SIGTERM stop them all.

    Args:
        queue: the line.
        home: where jobs are kept.
        sweep: the sweep.
        show: called with the member that runs, several times a second.

    Returns:
        Whether somebody asked to stop.
    """
    names = {member.job for member in sweep.members}
    advanced_at, num_seen = -math.inf, 0
    with interrupts() as num_asked:
        while True:
            if num_asked() > num_seen:  # a second time, at once
                num_seen = num_asked()
                stop_sweep(queue, home, sweep, force=num_seen > 1)
            if time.monotonic() - advanced_at >= _ADVANCE_SECONDS:
                queue.advance()
                advanced_at = time.monotonic()
            line = queue.line()
            running = [name for name in line.running if name in names]
            if not running and not any(entry.job in names for entry in line.waiting):
                return num_seen > 0
            show(Job(home.place("train") / running[0]) if running else None)
            time.sleep(_LOOK_SECONDS)


def members(home: Home, sweep: Sweep) -> list[Job]:
    """List the jobs of a sweep.

    Args:
        home: where jobs are kept.
        sweep: the sweep.

    Returns:
        Those that were not deleted.
    """
    jobs = [Job(home.place("train") / member.job) for member in sweep.members]
    return [job for job in jobs if job.folder.is_dir()]


def _new_folders(home: Home, count: int) -> list[Path]:
    """Name jobs in the order of their ids; several are named in the same millisecond."""
    folders: set[Path] = set()
    while len(folders) < count:
        folders.add(home.new("train"))
    return sorted(folders)


def _with(line: Line, sweep: Sweep, entries: Sequence[Entry]) -> Line:
    return line.model_copy(
        update={
            "waiting": (*line.waiting, *entries),
            "sweeps": tuple(sorted({*line.sweeps, sweep.id})),
        }
    )


def _steps(home: Home, plan: TrainPlan) -> tuple[int, int]:
    """All steps of a run, and those between two evaluations."""
    estimate = kept_estimate(home, plan)
    if estimate is None:
        raise PlanError(
            "A member of a sweep was never estimated, so its steps are not known",
            where=plan.digest[:12],
            fix="Make its plan again",
        )
    return estimate.num_steps, steps_between_evaluations(estimate.num_examples, plan.schedule)
