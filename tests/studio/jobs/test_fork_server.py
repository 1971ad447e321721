"""A real fork server, and real workers from it."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from engine.events import Finished, Stepped
from engine.jobs import Job
from engine.liveness import find_process
from studio.home import Home
from studio.jobs.fork_server import ForkServer
from studio.jobs.launcher import FORK_SERVER, ask_to_stop
from studio.jobs.queue import Queue
from tests.studio.jobs.running import (
    end_workers,
    has,
    learned_of,
    long_plan,
    plan_of,
    start,
    until,
    wait_for,
    wait_until_over,
    with_started_workers,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a fork server")


@pytest.fixture(scope="module")
def server(prepared: Home) -> Iterator[ForkServer]:
    """Of the module's home; `home` of a test lies elsewhere and has none."""
    server = ForkServer(prepared)
    server.start()
    until(lambda: server.is_ready)
    yield server
    end_workers(prepared)
    server.close()


@pytest.fixture
def home(home: Home) -> Home:
    """Without the server that other tests share."""
    return with_started_workers(home)


def worker_of(job: Job) -> psutil.Process:
    process = job.status().process
    assert process is not None
    return psutil.Process(process.pid)


def test_a_forked_worker_ends_with_the_bits_of_a_started_one(
    prepared: Home, server: ForkServer, home: Home
) -> None:
    forked = start(prepared, plan_of(prepared))
    parent = worker_of(forked).parent()
    assert parent is not None and "studio.jobs.fork_server" in parent.cmdline()
    plain = start(home, plan_of(prepared))
    assert "studio.jobs.worker" in worker_of(plain).cmdline()
    for where, job in ((prepared, forked), (home, plain)):
        assert wait_until_over(where, job).state == "finished"
    assert learned_of(forked) == learned_of(plain)
    assert isinstance(forked.events()[-1], Finished)
    assert "Traceback" not in (forked.folder / "worker.log").read_text()
    assert find_process(forked.events()[0].pid) is None, "nothing is left of it"  # type: ignore[attr-defined]


def test_forked_workers_are_in_sessions_of_their_own_and_stop_when_asked(
    prepared: Home, server: ForkServer
) -> None:
    job = start(prepared, long_plan(prepared))
    worker = worker_of(job)
    assert os.getsid(worker.pid) == worker.pid
    wait_for(job, has(Stepped))
    status = job.status()
    assert status.process is not None
    ask_to_stop(status.process)
    assert wait_until_over(prepared, job).state == "stopped"
    again = start(prepared, long_plan(prepared))
    process = again.status().process
    assert process is not None
    ask_to_stop(process, force=True)
    assert wait_until_over(prepared, again).state == "interrupted"
    assert server.is_ready


def test_the_folder_is_its_owners_alone(prepared: Home, server: ForkServer) -> None:
    assert (prepared.root / FORK_SERVER).stat().st_mode & 0o077 == 0


def test_other_variables_get_a_new_interpreter(
    prepared: Home, server: ForkServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_DYNAMIC", "FALSE")
    job = start(prepared, plan_of(prepared))
    assert "studio.jobs.worker" in worker_of(job).cmdline()
    assert wait_until_over(prepared, job).state == "finished"


def test_workers_outlive_a_server_that_is_killed_and_others_begin_without_it(home: Home) -> None:
    server = ForkServer(home)
    server.start()
    until(lambda: server.is_ready)
    job = start(home, long_plan(home))
    parent = worker_of(job).parent()
    assert parent is not None
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    steps = len(job.events())
    wait_for(job, lambda events: len(events) > steps)
    assert (home.root / FORK_SERVER).exists() and not server.is_ready
    other = Queue(home)
    ask_to_stop(job.status().process)  # type: ignore[arg-type]
    assert wait_until_over(home, job).state == "stopped"
    plain = start(home, plan_of(home))
    assert "studio.jobs.worker" in worker_of(plain).cmdline()
    assert wait_until_over(home, plain).state == "finished"
    assert other.state(plain) == "finished"
    server.close()


def test_it_ends_with_its_owner(home: Home, tmp_path: Path) -> None:
    server = ForkServer(home)
    server.start()
    until(lambda: server.is_ready)
    server.start()  # once is enough
    server.close()
    until(lambda: not server.is_ready)
    server.close()
