"""The verbs as a person types them, beside the real queue and worker."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from engine.events import Stepped
from engine.jobs import Job, create_job
from studio.home import Home
from studio.jobs.queue import Queue
from studio.jobs.requests import TrainRequest
from studio.records import planned
from studio.runs.about import read_about
from studio.screen import verb
from studio.verbs.runs import RUN_VERBS
from tests.studio.jobs.running import has, wait_for, wait_until_over
from tests.studio.runs.conftest import spoil, train

APP = typer.Typer()
for name, function in RUN_VERBS:
    APP.command(name)(verb(function))


def run(*arguments: object, answer: str = "") -> Result:
    return CliRunner().invoke(APP, [str(argument) for argument in arguments], input=answer)


def said(*arguments: object, answer: str = "") -> str:
    result = run(*arguments, answer=answer)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def told(*arguments: object) -> dict:
    return json.loads(said(*arguments, "--json"))


def test_labels(home: Home, finished: Job) -> None:
    assert "the good one" in said("rename", finished.id, "the good one")
    said("tag", finished.id, "tickets", "best")
    assert told("tag", finished.id, "tickets", "--remove")["tags"] == ["best"]
    assert told("note", finished.id, "wins on refunds") == {
        "job": finished.id, "name": "the good one", "tags": ["best"], "note": "wins on refunds",
    }  # fmt: skip
    assert read_about(finished).note == "wins on refunds"
    result = run("rename", finished.id, "n" * 200)
    assert result.exit_code == 1
    assert "The name has at most 100 characters; this one is longer" in result.stderr


def test_diff(home: Home, finished: Job, paused: Job) -> None:
    shown = said("diff", finished.id, paused.id)
    assert "plan.seed" in shown and "best_loss" in shown and "stopped" in shown
    found = told("diff", finished.id, paused.id)
    assert found["settings"] == [{"name": "plan.seed", "left": 0, "right": 1}]
    assert found["kind"] == "train" and len(found["results"]) == 4
    assert "Their settings are the same." in said("diff", paused.id, paused.id)


def test_delete_and_restore(home: Home, finished: Job, paused: Job) -> None:
    create_job(home.place("compare") / "compare-1", "compare", {"run_id": finished.id})
    assert "The trash is empty." in said("trash")
    shown = said("delete", finished.id, finished.id, paused.id)
    assert f"Bring it back with: python app.py jobs restore {finished.id}" in shown
    assert "Made from it, and still here: compare-1" in shown
    assert [item["job"] for item in told("trash")] == sorted([finished.id, paused.id])
    assert finished.id in said("trash")
    assert f"Restored {finished.id}." in said("restore", finished.id)
    assert finished.folder.is_dir()
    assert told("delete", finished.id) == {finished.id: ["compare-1"]}
    assert told("restore", paused.id) == {"job": paused.id}


def test_emptying_the_trash_asks(home: Home, finished: Job) -> None:
    said("delete", finished.id)
    for answer in ("n\n", ""):
        result = run("trash", "--empty", answer=answer)
        assert result.exit_code == 1 and "Delete 1 job for good?" in result.stderr
    assert told("trash"), "it said no"
    assert "Freed 0." in said("trash", "--empty", answer="y\n")
    assert told("trash", "--empty", "--yes") == {"freed_bytes": 0}


def test_disk_and_prune(home: Home, finished: Job, paused: Job) -> None:
    use = told("disk")
    assert use["total_bytes"] == sum(use["places_bytes"].values())
    assert set(use["jobs_bytes"]) == {finished.id, paused.id}
    assert finished.id in said("disk") and "datasets" in said("disk")
    before = sorted(paused.checkpoints.iterdir())
    damaged = train(home, planned(finished))
    for folder in damaged.checkpoints.iterdir():
        spoil(folder)
    found = told("prune")
    assert found["freed_bytes"][finished.id] > 0 and list(found["freed_bytes"]) == [finished.id]
    assert "No checkpoint of the run is sound" in found["left_alone"][damaged.id]
    assert sorted(paused.checkpoints.iterdir()) == before, "only finished runs, unless named"
    shown = said("prune")
    assert "Left alone: No checkpoint" in shown and "Freed 0.00 MB in 1 run." in shown
    assert "in 1 run." in said("prune", paused.id)


def test_export_and_import(
    home: Home, finished: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = said("export", finished.id, tmp_path / "run.zip")
    assert "with its data ds-tickets" in shown and "is not inside" in shown
    assert told("export", finished.id, tmp_path / "again.zip")["bytes"] > 1000
    monkeypatch.setenv("STUDIO_HOME", str(tmp_path / "elsewhere"))
    shown = said("import", tmp_path / "run.zip")
    assert f"Imported {finished.id} (finished)." in shown
    assert f"Next: python app.py compare {finished.id}" in shown
    result = run("import", tmp_path / "run.zip", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stderr)["error"]["what"] == "This run is here already"
    said("delete", finished.id)
    assert told("import", tmp_path / "again.zip")["state"] == "finished"


@pytest.mark.slow
def test_a_run_at_work_is_let_be(home: Home, finished: Job, tmp_path: Path) -> None:
    plan = planned(finished)
    schedule = plan.schedule.model_copy(update={"epochs": 1000, "patience": 1000})
    queue = Queue(home)
    job = queue.submit(TrainRequest(plan=plan.model_copy(update={"schedule": schedule})))
    queue.advance()
    try:
        wait_for(job, has(Stepped))
        for words in (("delete", job.id), ("prune", job.id), ("export", job.id, tmp_path / "x")):
            result = run(*words)
            assert result.exit_code == 1
            expected = f"The job is running ({job.id}). Stop it first: python app.py jobs stop"
            assert expected in result.stderr
        assert "at work" in said("rename", job.id, "at work"), "labels may change at any time"
    finally:
        queue.stop(job)
    assert wait_until_over(home, job).state == "stopped"
    assert told("delete", job.id) == {job.id: []}
