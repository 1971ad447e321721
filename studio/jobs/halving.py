"""Successive halving: of many runs, only the better ones get more steps.

Jamieson and Talwalkar 2016, arXiv 1502.07943. All members train to the first rung, a share of
their own steps; the best of them by validation loss, one in `eta`, go on to the next, and so on to
the end. Nothing here remembers: the same standings give the same answer, whoever asks and when.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from templates.values import Value

# A member that failed or was left out never holds the others up, and its place goes to the next.
MemberState = Literal["going", "paused", "finished", "failed", "left_out"]


class Halving(Value):
    """How hard a sweep chooses."""

    eta: int = Field(
        default=2, ge=2, le=16, title="Keep one in", description="Of the members at each rung."
    )
    num_rungs: int = Field(
        default=2, ge=1, le=8, title="Rungs", description="Times to choose before the end."
    )


@dataclass(frozen=True)
class Standing:
    """Where a member of a sweep stands.

    Attributes:
        state: "going" on its way or sure to come back, "paused" where it was asked to pause.
        rungs: the steps of its rungs, from `rung_steps`.
        step: steps taken.
        losses: its best validation loss at each rung that it has reached; None where it has none.
    """

    state: MemberState
    rungs: tuple[int, ...]
    step: int = 0
    losses: tuple[float | None, ...] = ()

    @property
    def next_pause(self) -> int:
        """The step of its next rung; 0 where none is left."""
        return next(iter(self.rungs[len(self.losses) :]), 0)

    def went_past(self, rung: int) -> bool:
        """Whether it trains, or has trained, beyond a rung (0 for the first)."""
        on_its_way = self.state == "going" and len(self.losses) > rung
        return self.state == "finished" or on_its_way or self.step > self.rungs[rung]


@dataclass(frozen=True)
class Decision:
    """What becomes of a member now.

    Attributes:
        goes_on: whether it is to be started again.
        until_step: where it pauses then; 0: at the end.
        dropped_at: the rung that it did not survive, 1 for the first; 0: none.
    """

    goes_on: bool = False
    until_step: int = 0
    dropped_at: int = 0


def rung_steps(
    halving: Halving, total_steps: int, steps_between_evaluations: int
) -> tuple[int, ...]:
    """Place the rungs of one member where its validation loss is known.

    Args:
        halving: number of rungs and what lies between them.
        total_steps: of the whole run.
        steps_between_evaluations: the last step is evaluated too.

    Returns:
        Steps, never falling; each at or after its share of the run, and equal to `total_steps`
        where there is no evaluation between.
    """
    steps = []
    for rung in range(halving.num_rungs):
        share = total_steps / halving.eta ** (halving.num_rungs - rung)
        evaluation = math.ceil(share / steps_between_evaluations) * steps_between_evaluations
        steps.append(min(evaluation, total_steps))
    return tuple(steps)


def can_choose(rungs: Sequence[int], total_steps: int) -> bool:
    """Say whether halving can end a member early.

    Args:
        rungs: from `rung_steps`.
        total_steps: of the whole run.

    Returns:
        Whether a rung lies before the end.
    """
    return any(rung < total_steps for rung in rungs)


def num_places(num_members: int, halving: Halving, rung: int) -> int:
    """Count who may go on from a rung.

    Args:
        num_members: of the whole sweep.
        halving: the share.
        rung: 0 for the first.

    Returns:
        At least 1; rounded up, because in a small field the first look errs often.
    """
    return math.ceil(num_members / int(halving.eta ** (rung + 1)))


def planned_ratio(num_members: int, halving: Halving | None) -> float:
    """Say how much of the work of a sweep halving leaves.

    Args:
        num_members: of the whole sweep.
        halving: None: every member trains to the end.

    Returns:
        Steps with halving over steps without, before rounding to evaluations.
    """
    if halving is None:
        return 1.0
    ends = [halving.eta ** (rung - halving.num_rungs) for rung in range(halving.num_rungs + 1)]
    field, begin, total = num_members, 0.0, 0.0
    for rung, end in enumerate(ends):
        total += field * (end - begin)
        field, begin = num_places(num_members, halving, rung), end
    return total / num_members


def decide(members: Sequence[Standing], halving: Halving) -> list[Decision]:
    """Choose who goes on, rung after rung, as far as all have arrived.

    A rung is decided once nobody in its field is still going to arrive. Who went past a rung, also
    where a person sent it, belongs to the field of the next.

    Args:
        members: in the order that breaks ties.
        halving: how hard to choose.

    Returns:
        A decision for each member.
    """
    decisions = [Decision() for _ in members]
    field = list(range(len(members)))
    for rung in range(halving.num_rungs):
        arrived = [number for number in field if len(members[number].losses) > rung]
        # Who is paused further down was chosen just above, and is about to come.
        if any(members[number].state in ("going", "paused") for number in {*field} - {*arrived}):
            break
        fit = [number for number in arrived if members[number].state not in ("failed", "left_out")]
        fit.sort(key=lambda number: _worth(members[number].losses[rung]))
        chosen = fit[: num_places(len(members), halving, rung)]
        for number in arrived:
            member = members[number]
            if member.state != "paused" or member.went_past(rung):
                continue
            if number not in chosen:
                decisions[number] = Decision(dropped_at=rung + 1)
            elif len(member.losses) == rung + 1:
                decisions[number] = Decision(goes_on=True, until_step=member.next_pause)
        field = [number for number in field if number in chosen or members[number].went_past(rung)]
    return decisions


def _worth(loss: float | None) -> tuple[bool, float]:
    """Sort key: the smallest loss first, none last."""
    return loss is None, loss or 0.0
