"""Faults of the machine, the disk and the clock, and of people who do two things at once."""

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engine.events import (
    Degraded,
    Failed,
    Finished,
    Launched,
    Saved,
    Started,
    Stepped,
    from_json,
)
from engine.job_status import fold
from engine.jobs import Job, create_job
from engine.liveness import boot_id, find_process, memory_kills, this_process
from studio.home import Home
from studio.jobs.launcher import ask_to_stop
from studio.jobs.queue import Queue
from studio.jobs.requests import TrainRequest
from studio.server import Server
from studio.verbs import app
from templates.errors import RunError
from tests.faults import fault
from tests.studio.jobs.running import (
    has,
    learned_of,
    long_plan,
    plan_for_table,
    plan_of,
    start,
    wait_for,
    wait_until_over,
    work_here,
    working_here,
)
from tests.studio.tables import write_table

ROOT = Path(__file__).parents[3]


def verb(home: Home, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "app.py", *map(str, arguments)], cwd=ROOT, text=True,
        env={**os.environ, "STUDIO_HOME": str(home.root)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@fault(4, "The disk is full while events are written", "Counted, said, and the run goes on")
def test_events_that_do_not_fit_are_counted_and_the_work_goes_on(
    home: Home, tmp_path: Path
) -> None:
    # So many rows that no checkpoint is due while files may not grow: that would end the run.
    table = write_table(tmp_path / "long.csv", rows_per_label=400)
    plan_for_table(home, table, Path(plan_of(home).base.id))
    job = start(home, long_plan(home))
    wait_for(job, has(Stepped))
    events_file = job.folder / "attempts" / "1" / "events.jsonl"
    process = job.status().process
    # Real refusals by the system, in the middle of a line: its beginning fills the file, and the
    # rest is lost, unless the limit is raised in the instant between the two.
    while not has(Degraded)(job.events()):
        step = job.status().step
        size = events_file.stat().st_size + 40
        limit(process.pid, size)
        wait_for(job, lambda _, size=size: events_file.stat().st_size >= size)
        limit(process.pid, -1)
        wait_for(job, lambda _, step=step: job.status().step > step + 3)
    assert not has(Saved)(job.events())
    assert find_process(process.pid) == process, "it trains on"
    degraded = next(event for event in job.events() if isinstance(event, Degraded))
    assert degraded.num_lost >= 1 and "disk is full" in degraded.reason


def limit(pid: int, size: int) -> None:
    hard = resource.RLIM_INFINITY
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard if size < 0 else size, hard))


@fault(9, "Two servers on one home", "The second is refused and says who holds it")
def test_a_second_server_is_refused(home: Home) -> None:
    with Server(home):
        second = verb(home, "serve")
        _, err = second.communicate(timeout=30)
        assert second.returncode == 1
        assert f"process {os.getpid()}" in err and "STUDIO_HOME" in err
    third = verb(home, "serve")
    assert "Serving" in third.stdout.readline(), "free again"
    third.kill()
    third.communicate()
    with Server(home):
        pass  # a killed server leaves nothing that has to be cleaned up


@fault(18, "The clock jumps back and forth", "Durations stay true; nothing is negative")
def test_a_jumping_clock_changes_no_duration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([2e9, 1e9, 3e9, 5e8] * 3)
    monkeypatch.setattr("engine.attempts.time.time", lambda: next(clock))
    job = create_job(tmp_path / "train-1", "train", {})
    attempt = job.start_attempt()
    me = this_process()
    attempt.write(Launched(me.pid, me.started, me.boot_id, 0))
    attempt.write(Started(10, 1, 1, 1))
    for step in range(1, 4):
        attempt.write(Stepped(step, 1.0, 0.1, 1.0, 10, 0.01))
    status = job.status()
    assert status.state == "running" and 0 <= status.silent_seconds < 60
    assert not status.is_silent and status.done_ratio == 0.3


@fault(20, "An upload is killed half way", "No half upload is ever seen; the next one cleans up")
@pytest.mark.parametrize("event", range(0, 12, 2))
def test_a_killed_upload_is_whole_or_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, event: int
) -> None:
    home = Home(tmp_path / "home")
    table = write_table(tmp_path / "table.csv", rows_per_label=400)
    killer = (
        "import os, signal, sys\n"
        "from studio.verbs import app\n"
        "left = int(sys.argv[1])\n"
        "def count(event, arguments):\n"
        "    global left\n"
        "    if event in ('open', 'os.rename', 'os.mkdir') and sys.argv[3] in str(arguments):\n"
        "        left -= 1\n"
        "        if left < 0: os.kill(os.getpid(), signal.SIGKILL)\n"
        "sys.addaudithook(count)\n"
        "app(['upload', sys.argv[2]])\n"
    )
    environment = {**os.environ, "STUDIO_HOME": str(home.root)}
    subprocess.run(
        [sys.executable, "-c", killer, str(event), str(table), str(home.root)],
        cwd=ROOT, env=environment, capture_output=True, check=False,
    )  # fmt: skip
    monkeypatch.setenv("STUDIO_HOME", str(home.root))
    for folder in home.all("upload"):  # whatever is seen can be used
        with working_here():
            result = CliRunner().invoke(app, ["prepare", folder.name, "--preview", "0", "--json"])
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout)["splits"]
    for leftover in home.place("upload").glob(".*.tmp"):
        os.utime(leftover, (1, 1))  # as if it had been killed long ago
    again = verb(home, "upload", table)
    again.communicate(timeout=60)
    assert again.returncode == 0 and len(home.all("upload")) in (1, 2)
    assert not list(home.place("upload").glob(".*")), "what was half written is gone"


@fault(22, "The base's files change between plan and train", "Failed before the first step")
@fault(22, "The prepared data changes between plan and train", "Refused before it waits in line")
def test_what_changed_since_the_plan_is_refused(home: Home, tmp_path: Path) -> None:
    plan = plan_of(home)
    base = tmp_path / "base"
    shutil.copytree(plan.base.id, base)
    moved = plan.model_copy(update={"base": plan.base.model_copy(update={"id": str(base)})})
    with (base / "config.json").open("a") as file:
        file.write(" ")
    queue = Queue(home, launch=work_here)
    job = queue.submit(TrainRequest(plan=moved))
    queue.advance()
    status = job.status()
    assert status.state == "failed" and "files changed since this plan" in status.what
    shutil.rmtree(base)
    queue.retry(job)
    queue.advance()
    status = job.status()
    assert status.state == "failed" and "no base model" in status.what
    assert not job.checkpoints.exists()
    split = home.find("dataset", plan.dataset_id) / "train.jsonl"
    split.write_text(split.read_text() + "\n")
    result = CliRunner().invoke(app, ["train"])
    assert result.exit_code == 1 and "changed since it was prepared" in result.stderr
    job = start(home, plan)  # past the verb, the worker still looks
    assert "changed since it was prepared" in wait_until_over(home, job).what


@fault(25, "A run made by the previous version", "Listed, and resumed to the same bits")
def test_a_run_of_the_previous_version_is_resumed(home: Home) -> None:
    queue = Queue(home, launch=work_here)
    whole = queue.submit(TrainRequest(plan=plan_of(home)))
    job = queue.submit(TrainRequest(plan=plan_of(home)), until_step=7)
    while queue.waiting():
        queue.advance()
    assert (queue.state(whole), queue.state(job)) == ("finished", "stopped")
    make_old(job)
    assert queue.state(job) == "interrupted"
    queue.resume(job)
    queue.advance()
    assert queue.state(job) == "finished"
    assert learned_of(job) == learned_of(whole)


def make_old(job: Job) -> None:
    """Rewrite a paused run as version 1 wrote it: no Launched, no second clock, no last word."""
    request = json.loads((job.folder / "request.json").read_text())
    old = {"version": 1, "kind": "train", "request": {"plan": request["request"]["plan"]}}
    (job.folder / "request.json").write_text(json.dumps(old))
    path = job.attempt_events()[1]
    lines = []
    for line in path.read_text().splitlines():
        content = json.loads(line)
        if content["event"] in ("Started", "Stepped", "Evaluated", "Saved"):
            lines.append(json.dumps({k: v for k, v in content.items() if k != "monotonic_seconds"}))
    path.write_text("\n".join(lines) + "\n")
    for folder in job.checkpoints.glob("step-*"):
        manifest = json.loads((folder / "manifest.json").read_text())
        (folder / "manifest.json").write_text(json.dumps({**manifest, "version": 1}))


@fault(25, "A run made by a newer version", "Refused, and it says that the studio is to be updated")
def test_a_run_of_a_newer_version_is_refused(home: Home) -> None:
    folder = home.new("train")
    create_job(folder, "train", {})
    content = json.loads((folder / "request.json").read_text())
    (folder / "request.json").write_text(json.dumps({**content, "version": 99}))
    result = CliRunner().invoke(app, ["jobs", "resume", folder.name])
    assert result.exit_code == 1 and "newer studio" in result.stderr
    listed = CliRunner().invoke(app, ["jobs", "list"])
    assert listed.exit_code == 0 and folder.name in listed.stdout


@pytest.mark.slow
@fault(10, "50 jobs from 4 command lines at once", "Each runs once, in the order they came")
def test_fifty_jobs_from_four_command_lines(home: Home) -> None:
    """Each fails at once, for want of a run: the line is what is tested here."""
    script = (
        "import json, sys\n"
        "from studio.home import Home\n"
        "from studio.jobs.queue import Queue\n"
        "from studio.jobs.requests import CompareRequest\n"
        "queue = Queue(Home())\n"
        "for number in range(int(sys.argv[1])):\n"
        "    print(queue.submit(CompareRequest(run_id='train-none')).id)\n"
        "    queue.advance()\n"
    )
    clients = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(count)], cwd=ROOT, text=True,
            env={**os.environ, "STUDIO_HOME": str(home.root)}, stdout=subprocess.PIPE,
        )
        for count in (13, 13, 12, 12)
    ]  # fmt: skip
    with ThreadPoolExecutor(4) as threads:
        outputs = list(threads.map(lambda client: client.communicate(timeout=300)[0], clients))
    submitted = [out.split() for out in outputs]
    names = [name for own in submitted for name in own]
    assert len(set(names)) == 50
    jobs = {name: Job(home.place("compare") / name) for name in names}
    deadline = time.monotonic() + 280
    while any(Queue(home).state(job) in ("queued", "running") for job in jobs.values()):
        Queue(home).advance()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    began = {name: first_event_at(job) for name, job in jobs.items()}
    for own in submitted:
        assert sorted(own, key=began.__getitem__) == own, "each client's jobs ran in its order"
    for job in jobs.values():
        assert len(job.attempt_events()) == 1
        assert isinstance(job.events()[-1], Failed) and "no run" in job.status().what


def first_event_at(job: Job) -> float:
    first, *_ = job.attempt_events()[1].read_text().splitlines()
    return float(json.loads(first)["monotonic_seconds"])


@fault(1, "SIGKILL of the command line while its run trains", "The run goes on without it")
def test_a_killed_verb_leaves_its_run_running(home: Home) -> None:
    client = verb(home, "train")
    deadline = time.monotonic() + 60
    while not home.all("train"):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    job = Job(home.all("train")[-1])
    wait_for(job, has(Launched))
    client.kill()
    client.communicate()
    assert wait_until_over(home, job, advance=False).state == "finished"
    assert isinstance(job.events()[-1], Finished)


def test_two_processes_cannot_work_on_one_job(home: Home) -> None:
    job = start(home, long_plan(home))
    wait_for(job, has(Launched))
    second = subprocess.run(
        [sys.executable, "-m", "studio.jobs.worker", job.id], cwd=ROOT, text=True, input="{}\n",
        env={**os.environ, "STUDIO_HOME": str(home.root)}, capture_output=True, check=False,
    )  # fmt: skip
    assert second.returncode != 0 and "Another process is working on this job" in second.stderr
    assert len(job.attempt_events()) == 1
    ask_to_stop(job.status().process, force=True)


def test_a_state_needs_no_more_than_events_and_liveness(tmp_path: Path) -> None:
    """The ends of a long story give the same state as the whole of it."""
    job = create_job(tmp_path / "train-1", "train", {})
    attempt = job.start_attempt()
    attempt.write(Launched(1, 1, boot_id(), memory_kills()))
    attempt.write(Started(5000, 1, 1, 1))
    for step in range(1, 1500):
        attempt.write(Stepped(step, 1.0 / step, 0.1, 1.0, 10, 0.01))
        if step % 499 == 0:
            story = [from_json(line) for line in attempt.path.read_text().splitlines()]
            for alive in (True, False):
                whole = fold(story, 1, alive=lambda _, alive=alive: alive)
                ends = job.status(alive=lambda _, alive=alive: alive)
                assert ends.state == whole.state and ends.step == whole.step == step
                assert ends.total_steps == 5000 and ends.what == whole.what


def test_a_server_survives_what_it_cannot_do(home: Home) -> None:
    with Server(home) as server:
        (home.root / "locks" / "queue.lock").unlink(missing_ok=True)
        (home.root / "locks" / "queue.lock").mkdir()
        deadline = time.monotonic() + 10
        while not server.trouble:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert "place to write" in server.trouble
        (home.root / "locks" / "queue.lock").rmdir()
        while server.trouble:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    with pytest.raises(RunError, match="no job"):
        home.find_job("nonsense-1")
