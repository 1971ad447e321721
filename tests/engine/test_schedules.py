from itertools import pairwise

import pytest

from engine.plan import Schedule
from engine.schedules import learning_rate_at, steps_between_evaluations


def rates(shape: str, total: int = 20) -> list[float]:
    schedule = Schedule(learning_rate=1.0, shape=shape, warmup_ratio=0.2)
    return [learning_rate_at(step, total, schedule) for step in range(1, total + 1)]


def test_warms_up_to_the_peak() -> None:
    assert rates("cosine")[:5] == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])


def test_cosine_is_half_way_down_in_the_middle() -> None:
    assert rates("cosine")[12] == pytest.approx(0.5)
    assert 0 < rates("cosine")[-1] < 0.02


def test_linear_falls_evenly_and_constant_stays() -> None:
    falling = rates("linear")[4:]
    assert [round(a - b, 6) for a, b in pairwise(falling)] == [0.0625] * 15
    assert set(rates("constant")[3:]) == {1.0}


def test_a_run_of_one_step_uses_the_peak() -> None:
    assert learning_rate_at(1, 1, Schedule(learning_rate=0.3)) == pytest.approx(0.3)


@pytest.mark.parametrize(("num_examples", "steps"), [(1, 1), (64, 2), (65, 2), (96, 3)])
def test_steps_between_evaluations(num_examples: int, steps: int) -> None:
    schedule = Schedule(learning_rate=0.1, batch_size=16, evaluations_per_epoch=2)
    assert steps_between_evaluations(num_examples, schedule) == steps
