"""Successive halving: what must hold for any sweep, in whatever order its members arrive."""

import math
import random
from dataclasses import replace

import pytest

from studio.jobs.halving import (
    Decision,
    Halving,
    Standing,
    decide,
    num_places,
    planned_ratio,
    rung_steps,
)

TWO_RUNGS = Halving(eta=2, num_rungs=2)


def paused(*losses: float | None, rungs: tuple[int, ...] = (3, 6)) -> Standing:
    return Standing("paused", rungs, rungs[len(losses) - 1], losses)


def test_rungs_lie_on_evaluations_and_never_before_the_first() -> None:
    assert rung_steps(TWO_RUNGS, 12, 3) == (3, 6)
    assert rung_steps(TWO_RUNGS, 12, 5) == (5, 10)
    assert rung_steps(Halving(eta=4, num_rungs=3), 12, 3) == (3, 3, 3)
    assert rung_steps(TWO_RUNGS, 5, 7) == (5, 5)


@pytest.mark.parametrize("seed", range(50))
def test_rungs_of_any_run(seed: int) -> None:
    draw = random.Random(seed)
    halving = Halving(eta=draw.randint(2, 5), num_rungs=draw.randint(1, 5))
    total, between = draw.randint(1, 500), draw.randint(1, 60)
    steps = rung_steps(halving, total, between)
    assert len(steps) == halving.num_rungs and list(steps) == sorted(steps)
    for rung, step in enumerate(steps):
        assert step == total or (step % between == 0 and step >= between)
        assert step >= total / halving.eta ** (halving.num_rungs - rung)


def test_nobody_goes_on_before_all_have_arrived() -> None:
    waiting = Standing("going", (3, 6))
    assert decide([paused(1.0), waiting, paused(2.0)], TWO_RUNGS) == [Decision()] * 3


def test_the_better_half_goes_on_and_the_rest_is_dropped() -> None:
    members = [paused(3.0), paused(1.0), paused(2.0), paused(4.0)]
    assert decide(members, TWO_RUNGS) == [
        Decision(dropped_at=1),
        Decision(goes_on=True, until_step=6),
        Decision(goes_on=True, until_step=6),
        Decision(dropped_at=1),
    ]
    members[1], members[2] = paused(1.0, 0.9), paused(2.0, 0.5)
    assert decide(members, TWO_RUNGS) == [
        Decision(dropped_at=1),
        Decision(dropped_at=2),
        Decision(goes_on=True, until_step=0),
        Decision(dropped_at=1),
    ]


def test_ties_go_to_the_first_and_no_loss_is_worst() -> None:
    decisions = decide([paused(None), paused(1.0), paused(1.0), paused(1.0)], TWO_RUNGS)
    assert [decision.goes_on for decision in decisions] == [False, True, True, False]


@pytest.mark.parametrize("state", ["failed", "left_out"])
def test_who_failed_or_was_left_out_never_blocks_and_gives_its_place_away(state: str) -> None:
    gone = Standing(state, (3, 6))  # type: ignore[arg-type]
    late = Standing(state, (3, 6), 5, (0.1,))  # type: ignore[arg-type]
    decisions = decide([gone, paused(2.0), late, paused(3.0)], TWO_RUNGS)
    assert [decision.goes_on for decision in decisions] == [False, True, False, True]
    assert decide([gone, gone], TWO_RUNGS) == [Decision(), Decision()]


def test_who_went_on_is_not_called_back() -> None:
    """A dropped member that a person sent on competes at the next rung."""
    members = [paused(1.0, 0.9), paused(2.0), Standing("finished", (3, 6), 12, (3.0, 0.1))]
    decisions = decide(members, Halving(eta=3, num_rungs=2))
    assert decisions == [Decision(dropped_at=2), Decision(dropped_at=1), Decision()]


def test_rungs_that_fall_together_choose_twice_at_once() -> None:
    members = [paused(float(loss), float(loss), rungs=(4, 4)) for loss in (2, 1, 4, 3)]
    decisions = decide(members, TWO_RUNGS)
    assert [decision.dropped_at for decision in decisions] == [2, 0, 1, 1]
    assert decisions[1] == Decision(goes_on=True)


def test_members_of_different_length_meet_at_equal_shares() -> None:
    short, long = paused(2.0, rungs=(2, 4)), paused(1.0, rungs=(20, 40))
    decisions = decide([short, long], Halving(eta=2, num_rungs=2))
    assert decisions == [Decision(dropped_at=1), Decision(goes_on=True, until_step=40)]


def test_the_work_that_is_left() -> None:
    assert planned_ratio(4, TWO_RUNGS) == pytest.approx(0.5)
    assert planned_ratio(7, None) == 1.0
    assert planned_ratio(1, TWO_RUNGS) == pytest.approx(1.0)


class Race:
    """Members with a known curve each, moved on in any order: what a queue would do."""

    def __init__(self, draw: random.Random, curves: list[list[float]], halving: Halving) -> None:
        self.draw, self.curves, self.halving = draw, curves, halving
        totals = [len(curve) for curve in curves]
        self.members = [
            Standing("going", rung_steps(halving, total, draw.randint(1, 3))) for total in totals
        ]
        self.until = [member.rungs[0] for member in self.members]
        self.starts = [1] * len(curves)

    def run(self) -> list[Standing]:
        for _ in range(1000):
            going = [n for n, member in enumerate(self.members) if member.state == "going"]
            if going:
                self._arrive(self.draw.choice(going))
            decisions = decide(self.members, self.halving)
            assert decisions == decide(list(self.members), self.halving)
            for number, decision in enumerate(decisions):
                if decision.goes_on:
                    assert self.members[number].state == "paused"
                    self.members[number] = replace(self.members[number], state="going")
                    self.until[number] = decision.until_step
                    self.starts[number] += 1
            if not going and not any(decision.goes_on for decision in decisions):
                return self.members
        raise AssertionError("the sweep did not end")

    def _arrive(self, number: int) -> None:
        member, curve = self.members[number], self.curves[number]
        end = self.until[number] or len(curve)
        seen = curve[:end]
        if any(math.isnan(loss) for loss in seen):
            self.members[number] = replace(member, state="failed")
            return
        over = end >= len(curve)
        losses = tuple(min(curve[:rung]) for rung in member.rungs if over or rung <= end)
        state = "finished" if over else "paused"
        self.members[number] = Standing(state, member.rungs, end, losses)


@pytest.mark.parametrize("seed", range(100))
def test_a_race_ends_the_same_in_whatever_order_members_arrive(seed: int) -> None:
    draw = random.Random(seed)
    halving = Halving(eta=draw.randint(2, 4), num_rungs=draw.randint(1, 4))
    count = draw.randint(1, 12)
    curves = [
        [draw.choice((0.5, 1.0, draw.random())) for _ in range(draw.randint(1, 40))]
        for _ in range(count)
    ]
    runs = []
    for order in range(3):
        race = Race(random.Random(seed), curves, halving)
        race.draw = random.Random(seed * 7 + order)
        runs.append(race.run())
        assert max(race.starts) <= halving.num_rungs + 1
    assert runs[0] == runs[1] == runs[2]
    ends = [member for member in runs[0] if member.state == "finished"]
    assert ends, "somebody reaches the end"
    for rung in range(halving.num_rungs):
        past = [m for m in runs[0] if m.state != "finished" and m.went_past(rung)]
        assert len(past) <= num_places(count, halving, rung)
    best = min(range(count), key=lambda n: min(curves[n]))
    if all(min(curves[best][:rung]) < min(min(curves[n][:m.rungs[k]]) for n, m in
           enumerate(runs[0]) if n != best)
           for k, rung in enumerate(runs[0][best].rungs) if count > 1):  # fmt: skip
        assert runs[0][best].state == "finished", "best at every rung, so it is never dropped"


@pytest.mark.parametrize("seed", range(50))
def test_failures_never_stop_a_race(seed: int) -> None:
    draw = random.Random(seed)
    halving = Halving(eta=draw.randint(2, 3), num_rungs=draw.randint(1, 3))
    curves = [[draw.random() for _ in range(draw.randint(2, 30))] for _ in range(8)]
    for curve in draw.sample(curves, draw.randint(1, 8)):
        curve[draw.randrange(len(curve))] = math.nan
    members = Race(draw, curves, halving).run()
    assert any(m.state == "finished" for m in members) or all(
        m.state == "failed" for m in members
    ), "the place of who failed goes to the next, down to the last"
