"""The joint table of a sweep, its winner, and what that is worth."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from studio.home import Home
from studio.jobs.halving import decide
from studio.jobs.queue import Queue
from studio.jobs.sweep import Label, MemberNow, Sweep, look

RowState = Literal[
    "queued", "running", "paused", "dropped", "stopped", "interrupted", "failed", "finished",
    "deleted",
]  # fmt: skip
_AT_ITS_END = ("dropped", "failed", "finished", "deleted")
HONEST = (
    "The winner was chosen by its loss on the validation rows, so that loss looks better than it "
    "is. Whether tuning helped, only compare can prove, on the test rows."
)


@dataclass(frozen=True)
class SweepRow:
    """One member of a sweep.

    Attributes:
        job: its id.
        label: what sets it apart.
        state: "paused" at a rung where others are still expected; "dropped" at one for good;
            "stopped" by a person before it was dropped, and left out until it is resumed.
        step: steps taken.
        total_steps: of a whole run.
        best_loss: the best validation loss so far.
        seconds: that its attempts took, loading the base included.
        rank: 1 for the best; who went further stands first. 0: failed, or without a loss.
        dropped_at: the rung that it did not survive, 1 for the first; 0: none.
        what: why it failed or was interrupted.
    """

    job: str
    label: Label
    state: RowState
    step: int
    total_steps: int
    best_loss: float | None
    seconds: float
    rank: int = 0
    dropped_at: int = 0
    what: str = ""


@dataclass(frozen=True)
class SweepTable:
    """All members side by side.

    Attributes:
        rows: in the order in which they were asked for.
        best_so_far: the job with the best validation loss of those that finished; empty: none.
        is_over: whether every member came to its end; one that was stopped did not.
    """

    rows: tuple[SweepRow, ...]
    best_so_far: str
    is_over: bool

    @property
    def winner(self) -> str:
        """The best of all; empty while anybody could still beat it, or where none finished."""
        return self.best_so_far if self.is_over else ""

    @property
    def is_stuck(self) -> bool:
        """Whether members are unfinished, and nothing happens until the sweep is resumed."""
        states = {row.state for row in self.rows}
        return bool(states & {"stopped", "interrupted"}) and not states & {"queued", "running"}


def sweep_table(queue: Queue, home: Home, sweep: Sweep) -> SweepTable:
    """Put the members of a sweep side by side.

    Args:
        queue: knows who waits, and whom a person stopped.
        home: where jobs are kept.
        sweep: the sweep.

    Returns:
        The table as of now.
    """
    line = queue.line()
    waiting = [entry.job for entry in line.waiting]
    members = look(home, sweep, going=waiting, held=line.held)
    dropped_at = _dropped_at(home, sweep, members, waiting, line.held)
    rows = [_row(home, now, waiting, rung) for now, rung in zip(members, dropped_at, strict=True)]
    ranked = sorted(
        (number for number, row in enumerate(rows) if _has_rank(row)),
        key=lambda number: _order(rows[number], members[number]),
    )
    for rank, number in enumerate(ranked, 1):
        rows[number] = replace(rows[number], rank=rank)
    best = rows[ranked[0]] if ranked and rows[ranked[0]].state == "finished" else None
    return SweepTable(
        rows=tuple(rows),
        best_so_far=best.job if best else "",
        is_over=all(row.state in _AT_ITS_END for row in rows),
    )


def _dropped_at(
    home: Home,
    sweep: Sweep,
    members: Sequence[MemberNow],
    waiting: Collection[str],
    held: Collection[str],
) -> list[int]:
    """Find the rung that each member did not survive; 0: none.

    Stopping a sweep holds all of its members, also those that were dropped before. They are the
    ones that would be dropped if everybody were resumed.
    """
    found = [now.decision.dropped_at for now in members]
    names = {member.job for member in sweep.members}
    if sweep.halving is None or not names & {*held}:
        return found
    free = look(home, sweep, going=waiting, held=[name for name in held if name not in names])
    standings = [
        replace(now.standing, state="going")
        if now.standing.state == "left_out" and (home.place("train") / now.member.job).is_dir()
        else now.standing
        for now in free
    ]
    resumed = decide(standings, sweep.halving)
    return [
        rung or (decision.dropped_at if now.standing.state == "left_out" else 0)
        for rung, decision, now in zip(found, resumed, members, strict=True)
    ]


def _has_rank(row: SweepRow) -> bool:
    return row.best_loss is not None and row.state not in ("failed", "deleted")


def _order(row: SweepRow, now: MemberNow) -> tuple[bool, int, float]:
    """Who went further first, because a loss after few steps says less; then by loss."""
    return row.state != "finished", -len(now.standing.losses), row.best_loss or 0.0


def _row(home: Home, now: MemberNow, waiting: Collection[str], dropped_at: int) -> SweepRow:
    exists = (home.place("train") / now.member.job).is_dir()
    return SweepRow(
        job=now.member.job,
        label=now.member.label,
        state=_state(now, now.member.job in waiting, dropped_at) if exists else "deleted",
        step=now.standing.step,
        total_steps=now.member.total_steps,
        best_loss=now.best_loss,
        seconds=now.seconds,
        dropped_at=dropped_at,
        what=now.status.what,
    )


def _state(now: MemberNow, is_waiting: bool, dropped_at: int) -> RowState:
    standing = now.standing.state
    if now.status.state == "running":
        return "running"
    if is_waiting:
        return "queued"
    if standing == "paused":
        return "dropped" if dropped_at else "paused"
    if standing == "left_out":
        return "dropped" if dropped_at else "stopped"
    return "interrupted" if standing == "going" else standing
