"""Real homes with a tiny base, and real workers on them."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engine.events import Event
from engine.job_status import JobStatus
from engine.jobs import Job
from engine.plan import TrainPlan, read_plan
from studio.home import Home
from studio.jobs import launcher
from studio.jobs.fork_server import ForkServer
from studio.jobs.launcher import FORK_SERVER, ask_to_stop
from studio.jobs.queue import Queue
from studio.jobs.requests import TrainRequest
from studio.jobs.stopping import StopRequest
from studio.jobs.worker import work_on
from studio.settings import HOME_VARIABLE
from studio.verbs import app
from tests.engine.tiny import save_tiny
from tests.studio.tables import write_table

DEADLINE_SECONDS = 120


def work_here(home: Path, job: Job, *, until_step: int = 0, token: str = "") -> None:
    """Launch no process, which loads its libraries for seconds: one attempt in this one."""
    with StopRequest() as stop:
        work_on(Home(home), job, stop, until_step=until_step, token=token)


@contextmanager
def working_here() -> Iterator[None]:
    """Whatever starts a job does it here: for what a test needs and is not about."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(Queue.__init__.__kwdefaults__, "launch", work_here)
        yield


@cache
def _fork_server() -> tuple[ForkServer, tempfile.TemporaryDirectory[str]]:
    """One for all homes of this test process, with which it ends."""
    place = tempfile.TemporaryDirectory(prefix="fork-server-")
    server = ForkServer(Home(Path(place.name)))
    server.start()
    until(lambda: server.is_ready)
    return server, place


def with_workers_at_once(home: Home) -> Home:
    """Fork a home's workers from loaded libraries, wherever the variables are the usual ones.

    They do the same as workers that are started, as `test_fork_server.py` shows, but begin at
    once and not after five seconds: nearly all that a small job takes.
    """
    _, place = _fork_server()
    home.root.mkdir(parents=True, exist_ok=True)
    (home.root / FORK_SERVER).symlink_to(Path(place.name) / FORK_SERVER)
    return home


def with_started_workers(home: Home) -> Home:
    """Start a home's workers as interpreters of their own, which load for seconds."""
    (home.root / FORK_SERVER).unlink()
    return home


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def prepare_home(folder: Path) -> Home:
    """A home with a tiny base, a dataset and a plan of 20 steps, made by the verbs."""
    home = Home(folder / "home")
    plan_for_table(home, write_table(folder / "table.csv"), save_tiny(folder / "base", "llama"))
    return home


def plan_for_table(home: Home, table: Path, base: Path) -> None:
    """Make a table's dataset and plan the latest ones of a home."""
    with pytest.MonkeyPatch.context() as patch, working_here():
        patch.setenv(HOME_VARIABLE, str(home.root))
        for arguments in (
            ("upload", table),
            ("prepare", "--base", base),
            ("plan", "--base", base, "-o", "rank=4", "-o", "batch_size=4", "-o", "epochs=2"),
        ):
            result = CliRunner().invoke(app, [str(argument) for argument in arguments])
            assert result.exit_code == 0, result.stderr


def copy_home(home: Home, folder: Path) -> Home:
    shutil.copytree(
        home.root, folder / "home", ignore=shutil.ignore_patterns("jobs", "fork-server")
    )
    return Home(folder / "home")


def plan_of(home: Home, **schedule: object) -> TrainPlan:
    plan = read_plan(home.find("plan", "latest"))
    return plan.model_copy(update={"schedule": plan.schedule.model_copy(update=schedule)})


def long_plan(home: Home) -> TrainPlan:
    """A run that does not end by itself while a test looks at it."""
    return plan_of(
        home,
        epochs=1000,
        patience=1000,
        batch_size=1,
        micro_batch_tokens=1,
        evaluations_per_epoch=1,
    )


def start(home: Home, plan: TrainPlan, **changes: object) -> Job:
    queue = Queue(home)
    job = queue.submit(TrainRequest(plan=plan, **changes))
    queue.advance()
    return job


def wait_for(job: Job, condition: Callable[[list[Event]], bool]) -> list[Event]:
    """Look at a job's events until the condition holds."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        events = job.events()
        if condition(events):
            return events
        time.sleep(0.01)
    raise AssertionError(f"{job.status()}\n{(job.folder / 'worker.log').read_text()[-2000:]}")


def has(*kinds: type) -> Callable[[list[Event]], bool]:
    return lambda events: all(any(isinstance(event, kind) for event in events) for kind in kinds)


def wait_until_over(home: Home, job: Job, *, advance: bool = True) -> JobStatus:
    """Wait for the end, moving the line on."""
    queue = Queue(home)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        if advance:
            queue.advance()
        if queue.state(job) not in ("queued", "running"):
            return replace(job.status(), process=None)
        time.sleep(0.02)
    raise AssertionError(f"{job.status()}\n{(job.folder / 'worker.log').read_text()[-2000:]}")


def learned_of(job: Job) -> dict[str, bytes]:
    return {
        folder.name: (folder / "learned.safetensors").read_bytes()
        for folder in sorted(job.checkpoints.glob("step-*"))
    }


def end_workers(home: Home) -> None:
    """Leave nothing running, whatever became of the test."""
    (home.root / "queue.json").unlink(missing_ok=True)
    for job in home.jobs():
        process = job.status().process
        if process is not None and process.pid != os.getpid():
            ask_to_stop(process, force=True)
    launcher.reap()
