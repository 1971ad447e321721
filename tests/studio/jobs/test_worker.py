"""Real workers, and what is done to them."""

import os
import random
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from engine.events import (
    Evaluated,
    Failed,
    Finished,
    Launched,
    Progressed,
    Saved,
    Started,
    Stepped,
    Stopped,
)
from engine.jobs import Job
from engine.liveness import find_process
from engine.planning.hardware import exact_matmul_precision
from studio.home import Home
from studio.jobs import launcher
from studio.jobs.launcher import ask_to_stop
from studio.jobs.queue import Queue
from studio.jobs.requests import (
    TABLE,
    CompareRequest,
    PredictRequest,
    PublishRequest,
    TrainRequest,
)
from studio.jobs.stopping import StopWork
from templates.errors import ModelError
from tests.faults import fault
from tests.studio.jobs.running import (
    has,
    learned_of,
    long_plan,
    plan_of,
    start,
    wait_for,
    wait_until_over,
    with_started_workers,
    work_here,
    working_here,
)


def pid_of(job: Job) -> int:
    process = job.status().process
    assert process is not None, job.status()
    return process.pid


@pytest.fixture(scope="module")
def whole(prepared: Home) -> Job:
    """The plan of the home, run without any fault."""
    job = start(prepared, plan_of(prepared))
    assert wait_until_over(prepared, job).state == "finished"
    return job


def test_a_worker_tells_the_whole_story(prepared: Home, whole: Job) -> None:
    events = whole.events()
    assert isinstance(events[0], Launched) and isinstance(events[-1], Finished)
    assert has(Progressed, Started, Stepped, Evaluated, Saved)(events)
    assert whole.status().done_ratio == 1.0
    worker = events[0]
    assert os.getsid(0) != worker.pid, "it had a session of its own"
    assert (whole.folder / "metrics.csv").read_text().count("\n") > 10
    assert "Traceback" not in (whole.folder / "worker.log").read_text()


@fault(1, "SIGKILL of the trainer at some step", "Interrupted; resumed, it ends with the same bits")
@pytest.mark.parametrize("after", ["Launched", "Started", "Saved", "some step"])
def test_killed_at_any_time_it_ends_with_the_same_bits(home: Home, whole: Job, after: str) -> None:
    if after == "Launched":  # while libraries are loaded
        with_started_workers(home)
    job = start(home, plan_of(home))
    if after == "some step":  # in the first half: the kill is sure to come before the end
        victim = random.Random().randint(1, whole.status().step // 2)
        wait_for(job, lambda events: job.status().step >= victim)
    else:
        wait_for(job, lambda events: any(type(event).__name__ == after for event in events))
    ask_to_stop(job.status().process, force=True)
    status = wait_until_over(home, job)
    assert status.state == "interrupted" and "ended from outside" in status.what
    saved = max((event.step for event in job.events() if isinstance(event, Saved)), default=0)
    Queue(home).resume(job)
    with working_here():
        assert wait_until_over(home, job).state == "finished"
    started = [event for event in job.events() if isinstance(event, Started)]
    assert started[-1].first_step >= saved + 1, "what was shown as saved is not done again"
    assert learned_of(job) == learned_of(whole)


def precision_after_work(queue: Queue) -> str:
    """Let the line's job be done in this process; how products are made then."""
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")  # which is never chosen
        queue.advance()
        return torch.get_float32_matmul_precision()
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("kind", ["compare", "predict", "publish"])
def test_what_answers_sets_its_process_up_before_it_computes(
    prepared: Home, whole: Job, tmp_path: Path, kind: str
) -> None:
    request = {
        "compare": CompareRequest(run_id=whole.id),
        "predict": PredictRequest(run_id=whole.id, table_name="rows.csv"),
        "publish": PublishRequest(run_id=whole.id, name="Mine"),
    }[kind]
    table = tmp_path / "rows.csv"
    table.write_text("text,label\nwhere is it,\n")
    queue = Queue(prepared, launch=work_here)
    job = queue.submit(request, files={TABLE: table} if kind == "predict" else {})
    found = precision_after_work(queue)
    assert job.status().state == "finished", job.status()
    assert found == exact_matmul_precision()


def test_a_training_worker_sets_its_process_up_before_it_computes(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LRU_CACHE_CAPACITY", raising=False)
    queue = Queue(home, launch=work_here)
    job = queue.submit(TrainRequest(plan=plan_of(home)), until_step=1)
    found = precision_after_work(queue)
    assert job.status().state == "stopped", job.status()
    assert found == exact_matmul_precision()
    assert int(os.environ["LRU_CACHE_CAPACITY"]) < 100, "else memory grows with every new shape"


@fault(26, "SIGTERM, as when a container is stopped", "Saved and Stopped within 10 seconds")
@fault(11, "Stop while loading, at a step, at an evaluation", "Stopped within 10 seconds")
@pytest.mark.parametrize("after", [Launched, Started, Stepped, Evaluated])
def test_told_to_stop_it_saves_within_ten_seconds(home: Home, whole: Job, after: type) -> None:
    if after is Launched:
        with_started_workers(home)
    job = start(home, plan_of(home) if after is Launched else long_plan(home))
    wait_for(job, has(after))
    pid = pid_of(job)
    most = 30 if after is Launched else 10  # a busy machine loads libraries slowly
    before = time.monotonic()
    os.kill(pid, signal.SIGTERM)
    status = wait_until_over(home, job)
    assert time.monotonic() - before < most
    assert status.state == "stopped", status
    last = job.events()[-1]
    assert isinstance(last, Stopped)
    folders = sorted(path.name for path in job.checkpoints.glob("step-*"))
    assert not last.step or folders[-1] == f"step-{last.step:08d}", "what it says is saved is there"
    assert not list(job.checkpoints.glob(".*")), "nothing half written is left"
    while find_process(pid) is not None:
        assert time.monotonic() - before < most
        time.sleep(0.01)


def test_a_stop_that_became_an_error_of_a_library_is_still_a_stop(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def initialise(*_: object) -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        except StopWork:
            raise ModelError("The base cannot be opened: initialization failed") from None

    monkeypatch.setattr("studio.work.train.assemble", initialise)
    queue = Queue(home, launch=work_here)
    job = queue.submit(TrainRequest(plan=plan_of(home)))
    queue.advance()
    assert job.status().state == "stopped", job.status()


def test_a_comparison_is_stopped_too_and_can_go_on(home: Home, whole: Job, prepared: Home) -> None:
    queue = Queue(prepared)
    job = queue.submit(CompareRequest(run_id=whole.id))
    queue.advance()
    wait_for(job, has(Launched))
    queue.stop(job)
    assert wait_until_over(prepared, job).state == "stopped"
    queue.resume(job)
    with working_here():
        assert wait_until_over(prepared, job).state == "finished"
    assert (job.folder / "comparison.json").is_file()


def test_a_paused_run_goes_on_to_the_same_bits(home: Home, whole: Job) -> None:
    queue = Queue(home)
    job = queue.submit(TrainRequest(plan=plan_of(home)), until_step=7)
    status = wait_until_over(home, job)
    assert status.state == "stopped" and status.step == 7
    queue.resume(job)
    assert wait_until_over(home, job).state == "finished"
    assert learned_of(job) == learned_of(whole)


@fault(3, "A file may not grow any more in the middle of a checkpoint", "Failed with a sentence")
def test_a_full_disk_fails_with_a_sentence_and_keeps_what_is_saved(home: Home) -> None:
    job = start(home, long_plan(home))
    wait_for(job, has(Saved))
    size = next(job.checkpoints.glob("step-*/learned.safetensors")).stat().st_size
    resource.prlimit(pid_of(job), resource.RLIMIT_FSIZE, (size - 1, resource.RLIM_INFINITY))
    status = wait_until_over(home, job)
    if status.state == "failed":
        assert "disk is full" in status.what and "space" in status.fix
    else:  # the events were larger than a checkpoint, and could not take the last word either
        assert status.state == "interrupted"
    assert not list(job.checkpoints.glob(".*")), "nothing half written is left"
    saved = max(event.step for event in job.events() if isinstance(event, Saved))
    newest = sorted(job.checkpoints.glob("step-*"))[-1]
    assert newest.name == f"step-{saved:08d}"
    Queue(home).resume(job, until_step=saved + 1)
    with working_here():
        status = wait_until_over(home, job)
    assert status.state == "stopped" and status.step == saved + 1
    assert sum(isinstance(event, Started) for event in job.events()) == 2


@fault(13, "Memory runs out in the middle of the work", "Failed, with what to lower")
def test_memory_that_runs_out_is_a_sentence(prepared: Home, whole: Job, tmp_path: Path) -> None:
    table = tmp_path / "table"
    table.write_text("text\n" + "the parcel has not arrived at my house yet\n" * 1_000_000)
    queue = Queue(prepared)
    request = PredictRequest(run_id=whole.id, table_name="many.csv")
    job = queue.submit(request, files={TABLE: table})
    queue.advance()
    wait_for(job, lambda events: isinstance(events[-1], Progressed) and "model" in events[-1].words)
    limit = psutil.Process(pid_of(job)).memory_info().vms + 200_000_000
    resource.prlimit(pid_of(job), resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    status = wait_until_over(prepared, job)
    assert status.state == "failed", (status, (job.folder / "worker.log").read_text()[-500:])
    assert "memory of this machine is used up" in status.what and "smaller base" in status.fix


@fault(15, "A worker that hangs", "Flagged after a while without a sign of life; can be ended")
def test_a_hung_worker_is_flagged_and_can_be_ended(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = start(home, long_plan(home))
    process = job.status().process
    os.kill(process.pid, signal.SIGSTOP)
    monkeypatch.setattr("engine.job_status.SILENT_SECONDS", 0.5)
    time.sleep(0.7)
    status = job.status()
    assert status.state == "running" and status.is_silent
    queue = Queue(home)
    queue.stop(job)
    time.sleep(0.2)
    assert job.status().state == "running", "it cannot hear"
    queue.stop(job, force=True)
    assert wait_until_over(home, job).state == "interrupted"


@fault(6, "SIGKILL of the server while a run trains", "It trains on; the next server sees it run")
def test_a_killed_server_leaves_its_run_running(home: Home) -> None:
    def serve() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "app.py", "serve"], cwd=Path(__file__).parents[3],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    server = serve()
    job = Queue(home).submit(TrainRequest(plan=long_plan(home)))  # the server starts it
    wait_for(job, has(Stepped))
    server.kill()
    server.communicate()
    before = job.status().step
    wait_for(job, lambda events: job.status().step > before)
    server = serve()
    assert "Serving" in server.stdout.readline()
    assert Queue(home).state(job) == "running"
    behind = Queue(home).submit(TrainRequest(plan=plan_of(home)))
    Queue(home).stop(job)
    assert wait_until_over(home, job, advance=False).state == "stopped"
    wait_for(behind, has(Started))
    Queue(home).stop(behind)
    wait_until_over(home, behind, advance=False)
    server.send_signal(signal.SIGTERM)
    out, err = server.communicate(timeout=20)
    assert server.returncode == 0 and "Ended" in out, err


@fault(24, "All jobs and the server end", "No process is left, and no zombie")
def test_no_process_is_left(home: Home, whole: Job) -> None:
    with_started_workers(home)  # their variables tell whose they are
    job = start(home, long_plan(home))
    wait_for(job, has(Stepped))
    [pid] = processes_of(home)
    Queue(home).stop(job)
    wait_until_over(home, job)
    deadline = time.monotonic() + 10
    # A process whose last thread still gives back memory has no variables any more, and cannot be
    # reaped yet.
    while psutil.pid_exists(pid) and time.monotonic() < deadline:
        launcher.reap()
        time.sleep(0.05)
    assert processes_of(home) == []
    assert zombies() == []


def zombies() -> list[psutil.Process]:
    """Children that ended and that nobody has asked about."""
    children = psutil.Process().children()
    return [child for child in children if child.status() == psutil.STATUS_ZOMBIE]


def processes_of(home: Home) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except psutil.Error:
            continue
        if environment.get("STUDIO_HOME") == str(home.root) and process.pid != os.getpid():
            found.append(process.pid)
    return found


@fault(7, "The machine is restarted while a run trains", "Interrupted, and the reason is said")
@fault(8, "Another process has the worker's id by now", "Not taken for the worker, never signalled")
def test_a_process_of_another_time_is_not_the_worker(home: Home) -> None:
    job = start(home, long_plan(home))
    [launched, *_] = wait_for(job, has(Launched))
    ask_to_stop(job.status().process, force=True)
    wait_until_over(home, job)
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        known = find_process(stranger.pid)
        for other, words in (
            (replace(launched, pid=stranger.pid), "ended from outside"),
            (replace(launched, pid=stranger.pid, process_started=known.started, boot_id="other"),
             "machine was restarted"),
        ):  # fmt: skip
            attempt = job.start_attempt()
            attempt.write(other)
            attempt.close()
            status = job.status()
            assert status.state == "interrupted" and words in status.what, status
            Queue(home).stop(job, force=True)
        assert stranger.poll() is None, "nobody signalled it"
    finally:
        stranger.kill()
        stranger.wait()


@fault(12, "The system ends a worker because memory ran out", "Failed, with the estimate")
def test_the_system_ending_a_worker_for_memory_is_told_apart(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = tmp_path / "memory.events"
    counter.write_text("low 0\noom 1\noom_kill 999999\n")
    job = start(home, long_plan(home), estimated_peak_bytes=10**9, memory_available_bytes=10**9)
    wait_for(job, has(Launched))
    monkeypatch.setattr("engine.liveness._KILL_COUNTERS", ((counter,),))
    ask_to_stop(job.status().process, force=True)
    status = wait_until_over(home, job)
    assert status.state == "failed" and "estimated to need 1.0 GB" in status.what
    assert "micro_batch_tokens" in status.fix
    Queue(home).advance()
    monkeypatch.undo()
    assert job.status().what == status.what, "found once, it stays the reason"


def test_a_run_killed_for_memory_goes_on_with_half_as_much_at_once(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = tmp_path / "memory.events"
    counter.write_text("oom_kill 999999\n")
    plan = long_plan(home)
    schedule = plan.schedule.model_copy(update={"micro_batch_tokens": 64})
    job = start(home, plan.model_copy(update={"schedule": schedule}))
    for tokens in (32, 16):
        wait_for(job, lambda events: isinstance(events[-1], Stepped))
        monkeypatch.setattr("engine.liveness._KILL_COUNTERS", ((counter,),))
        ask_to_stop(job.status().process, force=True)
        assert "half as many tokens" in wait_until_over(home, job).fix
        monkeypatch.undo()
        queue = Queue(home)
        queue.resume(job)
        queue.advance()
        events = wait_for(job, lambda events: isinstance(events[-1], Stepped))
        started = [event for event in events if isinstance(event, Started)][-1]
        assert any(f" {tokens} tokens" in notice for notice in started.notices), started
    assert job.num_memory_kills() == 2
    Queue(home).stop(job)
    wait_until_over(home, job)
    Queue(home).resume(job)
    Queue(home).advance()
    wait_for(job, lambda events: isinstance(events[-1], Stepped))
    assert job.num_memory_kills() == 2, "a person's stop is none"


@fault(19, "The page is closed, reloaded, opened twice", "Every reader sees the same, from files")
def test_every_reader_sees_the_same(home: Home, whole: Job, prepared: Home) -> None:
    environment = {**os.environ, "STUDIO_HOME": str(prepared.root)}
    answers = {
        subprocess.run(
            [sys.executable, "app.py", "jobs", "show", whole.id, "--json"],
            cwd=Path(__file__).parents[3], env=environment, capture_output=True, check=True,
        ).stdout
        for _ in range(2)
    }  # fmt: skip
    assert len(answers) == 1 and b'"finished"' in answers.pop()


def test_a_worker_that_cannot_start_says_so(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher.sys, "executable", "/bin/false")
    with_started_workers(home)
    job = start(home, plan_of(home))
    status = job.status()
    assert status.state == "failed" and "could not start" in status.what
    assert isinstance(job.events()[-1], Failed)
