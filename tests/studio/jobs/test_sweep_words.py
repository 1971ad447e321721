"""What a person reads of a sweep: no winner before its end, what to do next, ids to copy."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from studio.home import Home
from studio.jobs.halving import Halving
from studio.jobs.queue import Queue
from studio.jobs.sweep import Sweep
from studio.jobs.sweeping import beyond_halving, start_sweep
from studio.verbs import app
from studio.verbs.sweep import _warn
from templates.errors import PlanError
from tests.studio.jobs.test_sweep import TOTAL, Trainer, advance_until_still, begin, request_of


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.setenv("STUDIO_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "80")
    return Home(tmp_path)


@pytest.fixture
def queue(home: Home) -> Queue:
    return Queue(home, launch=Trainer(home))


def asked(*arguments: str) -> Result:
    result = CliRunner().invoke(app, ["sweep", *arguments])
    assert result.exit_code == 0, result.stderr
    return result


def advanced(queue: Queue, home: Home, halving: Halving | None, times: int) -> Sweep:
    sweep = begin(queue, home, halving)
    for _ in range(times):
        queue.advance()
    return sweep


def test_stopped_early_names_no_winner_and_ends_with_how_to_go_on(queue: Queue, home: Home) -> None:
    sweep = advanced(queue, home, None, 2)
    go_on = f"Go on with: python app.py sweep --resume {sweep.id}"
    stopped = asked("--stop", sweep.id).stdout
    assert stopped.splitlines()[-1] == f"Stopped and saved. {go_on}"
    shown = asked("--show", sweep.id).stdout
    assert shown.index(go_on) < shown.index("Best so far (2 of 4 finished): seed 0, ")
    for text in (stopped, shown):
        assert "Best so far (2 of 4 finished)" in text
        assert "Winner" not in text and "Next:" not in text
    content = json.loads(asked("--show", sweep.id, "--json").stdout)
    assert (content["winner"], content["is_over"], content["note"]) == (None, False, "")
    assert content["best_so_far"] == sweep.members[0].job


def test_with_none_finished_nothing_is_best(queue: Queue, home: Home) -> None:
    sweep = advanced(queue, home, None, 0)
    assert "Best so far" not in asked("--stop", sweep.id).stdout
    content = json.loads(asked("--stop", sweep.id, "--json").stdout)
    assert content["best_so_far"] is content["winner"] is None


def test_dropped_stays_dropped_and_ids_stay_whole(queue: Queue, home: Home) -> None:
    sweep = advanced(queue, home, Halving(eta=2, num_rungs=2), 5)
    stopped = asked("--stop", sweep.id).stdout
    rows = json.loads(asked("--show", sweep.id, "--json").stdout)["members"]
    assert [row["state"] for row in rows] == ["stopped", "dropped", "stopped", "dropped"]
    lines = stopped.splitlines()
    assert all(f"{n}: {member.job}" in lines for n, member in enumerate(sweep.members, 1))
    assert max(map(len, lines[:-1])) <= 80
    table = [line for line in lines if line.startswith("│")]
    assert len(table) == 4, "one line a member"


def test_the_end_has_a_winner(queue: Queue, home: Home) -> None:
    sweep = begin(queue, home)
    advance_until_still(queue)
    for option in ("--show", "--stop"):
        shown = asked(option, sweep.id).stdout
        assert "Winner: seed 2, " in shown and "Go on with" not in shown
        assert shown.splitlines()[-1] == f"Next: python app.py compare {sweep.members[2].job}"


def test_halving_that_could_never_choose_is_refused(
    queue: Queue, home: Home, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    between = {0: TOTAL, 1: TOTAL}
    monkeypatch.setattr("studio.jobs.sweeping._steps", lambda _, plan: (TOTAL, between[plan.seed]))
    plans = [({"seed": seed}, request_of(home, seed)) for seed in between]
    with pytest.raises(PlanError, match=r"never choose.*evaluations_per_epoch.*leave --halving"):
        start_sweep(queue, home, plans, Halving())
    assert not home.all("sweep") and not queue.line().waiting
    assert beyond_halving(start_sweep(queue, home, plans)) == []
    between[1] = TOTAL // 4
    sweep = start_sweep(queue, home, plans, Halving())
    assert beyond_halving(sweep) == [sweep.members[0]]
    _warn(sweep)
    assert "1 of 2 members" in capsys.readouterr().err
