"""`app.py jobs` on real runs."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from engine.events import Stepped
from engine.jobs import Job
from studio.home import Home
from studio.jobs.queue import Queue
from studio.jobs.requests import TrainRequest
from studio.verbs import app
from tests.studio.jobs.running import (
    has,
    long_plan,
    plan_of,
    start,
    wait_for,
    wait_until_over,
    working_here,
)

ROOT = Path(__file__).parents[3]


def jobs(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["jobs", *(str(argument) for argument in arguments)])


def jobs_json(*arguments: object) -> object:
    result = jobs(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_a_run_is_watched_stopped_copied_and_resumed(home: Home) -> None:
    job = start(home, long_plan(home))
    wait_for(job, has(Stepped))
    behind = start(home, plan_of(home))
    last = start(home, plan_of(home))
    listed = {row["job"]: row["state"] for row in jobs_json("list")}
    assert listed[job.id] == "running" and listed[behind.id] == listed[last.id] == "queued"
    assert "place 2 in the line" in jobs("list", "--state", "queued").stdout.replace("\n", " ")
    assert jobs_json("move", last.id, 1) == [last.id, behind.id]
    assert jobs_json("stop", behind.id) == {behind.id: "stopped"}
    shown = jobs_json("show", job.id)
    assert shown["state"] == "running" and shown["total_steps"] > 0
    stopped = jobs_json("stop", "all")
    assert stopped == {job.id: "stopped", last.id: "stopped"}
    assert "step" in jobs("logs", job.id).stdout
    lines = jobs("logs", job.id, "--json").stdout.splitlines()
    assert json.loads(lines[0])["event"] == "Launched"
    assert json.loads(lines[-1])["event"] == "Stopped"
    copied = jobs("duplicate", behind.id, "-o", "learning_rate=1e-3", "-o", "epochs=1")
    assert copied.exit_code == 0, copied.stderr
    copy = home.find_job("train")
    assert copy.request("train")["plan"]["schedule"]["learning_rate"] == 0.001
    assert "peak memory" in jobs("show", copy.id).stdout
    resumed = jobs("resume", behind.id)
    assert resumed.exit_code == 0 and "Next: python app.py compare" in resumed.stdout
    assert jobs("retry", behind.id).exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["show", "nope"], "There is no job 'nope'"),
        (["show", "../x"], "There is no job '../x'"),
        (["resume", "train-9"], "There is no run 'train-9'"),
        (["move", "train", "1"], "Only a waiting job can change its place"),
        (["retry", "train"], "this one is stopped"),
        (["duplicate", "train", "-o", "bogus=1"], "names no single setting"),
        (["duplicate", "train", "-o", "rank=-4"], "rank"),
        (["duplicate", "train", "-o", "epochs=many"], "epochs"),
    ],
)
def test_mistakes_are_sentences(home: Home, arguments: list[str], words: str) -> None:
    Queue(home).stop(start_later(home))
    result = jobs(*arguments)
    assert result.exit_code == 1 and words in result.stderr, result.stderr
    assert "Traceback" not in result.stderr


def start_later(home: Home) -> Job:
    return Queue(home).submit(TrainRequest(plan=plan_of(home)))


def test_interrupted_while_it_waits_the_verb_takes_it_out_of_the_line(home: Home) -> None:
    job = start(home, long_plan(home))
    wait_for(job, has(Stepped))
    for extra in ([], ["--json"]):
        before = set(home.all("train"))
        verb = subprocess.Popen(
            [sys.executable, "app.py", "train", *extra], cwd=ROOT, text=True,
            env={**os.environ, "STUDIO_HOME": str(home.root)},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        deadline = time.monotonic() + 60
        while not Queue(home).waiting():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.3)
        verb.send_signal(signal.SIGINT)
        out, err = verb.communicate(timeout=30)
        assert verb.returncode == 130, err
        [made] = set(home.all("train")) - before
        assert made.name in out and not Queue(home).waiting()
        if extra:
            assert json.loads(out)["state"] == "stopped"
    Queue(home).stop(job, force=True)
    status = wait_until_over(home, job)
    assert status.state == "interrupted" and "as asked" in status.what


def test_a_home_that_may_only_be_read_is_still_shown(home: Home) -> None:
    job = start_later(home)
    (home.root / "locks" / "queue.lock").unlink()
    (home.root / "locks" / "queue.lock").mkdir()  # the lock cannot be taken
    assert jobs("list").exit_code == 0 and job.id in jobs("list").stdout
    assert jobs("show", job.id).exit_code == 0


def test_predict_never_overwrites_its_table(home: Home, tmp_path: Path) -> None:
    with working_here():
        assert start(home, plan_of(home)).status().state == "finished"
    table = tmp_path / "one.csv"
    table.write_text("text\nhello\n")
    result = CliRunner().invoke(app, ["predict", str(table), "--to", str(table)])
    assert result.exit_code == 1 and "would overwrite the table" in result.stderr
    assert table.read_text() == "text\nhello\n"


def test_a_relative_home_works(home: Home, tmp_path: Path) -> None:
    environment = {**os.environ, "STUDIO_HOME": "home", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, str(ROOT / "app.py"), "prepare", "--base", plan_of(home).base.id],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert not (ROOT / "home").exists()
