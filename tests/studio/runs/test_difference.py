from pathlib import Path

import pytest

from engine.jobs import Job, create_job
from studio.home import Home
from studio.runs.difference import Row, difference, flat
from templates.errors import RunError
from tests.studio.runs.conftest import PAUSE_STEP


def test_settings_get_dotted_names() -> None:
    steps = [{"name": "trim"}, {"name": "length", "options": {"most": 3}}]
    assert flat({"a": {"b": 1, "c": {}}, "tags": ["x", "y"], "steps": steps}) == {
        "a.b": 1,
        "tags": ["x", "y"],
        "steps.1.name": "trim",
        "steps.2.name": "length",
        "steps.2.options.most": 3,
    }


def test_only_what_differs_is_shown(tmp_path: Path) -> None:
    left = {"plan": {"seed": 1, "method": {"options": {"rank": 4}}, "name": "x"}}
    right = {"plan": {"seed": 2, "method": {"options": {"alpha": 8}}, "name": "x"}}
    jobs = [
        create_job(tmp_path / f"train-{n}", "train", {**content, "memory_available_bytes": n})
        for n, content in enumerate((left, right))
    ]
    found = difference(*jobs)
    assert found.settings == (
        Row("plan.method.options.rank", 4, None),
        Row("plan.seed", 1, 2),
        Row("plan.method.options.alpha", None, 8),
    )
    assert found.results[:2] == (Row("state", "new", "new"), Row("best_loss", None, None))


def test_runs_are_compared_by_what_came_of_them(finished: Job, paused: Job) -> None:
    found = difference(finished, paused)
    assert found.settings == (Row("plan.seed", 0, 1),)
    state, loss, steps, seconds = found.results
    assert state == Row("state", "finished", "stopped")
    assert steps == Row("steps", 15, PAUSE_STEP)
    assert loss.left == finished.events()[-1].best_loss
    assert loss.right == paused.events()[-1].best_loss
    assert 0 < seconds.left < 60 and 0 < seconds.right < 60


def test_other_kinds_have_settings_but_no_results(home: Home) -> None:
    jobs = [
        create_job(home.place("compare") / f"compare-{n}", "compare", {"run_id": n})
        for n in ("a", "b")
    ]
    found = difference(*jobs)
    assert found.settings == (Row("run_id", "a", "b"),) and not found.results


def test_jobs_of_two_kinds_are_refused(tmp_path: Path) -> None:
    jobs = [create_job(tmp_path / f"{kind}-1", kind, {}) for kind in ("train", "publish")]
    with pytest.raises(RunError) as caught:
        difference(*jobs)
    assert str(caught.value) == (
        "A train job and a publish job have no settings in common (train-1, publish-1). "
        "Give two jobs of the same kind."
    )
