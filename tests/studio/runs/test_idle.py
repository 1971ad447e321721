import pytest

from engine.jobs import Job
from studio.home import Home
from studio.jobs.queue import Queue
from studio.runs.idle import idle
from templates.errors import RunError
from tests.studio.runs.conftest import running


def test_a_job_that_is_held_cannot_be_taken(home: Home, paused: Job) -> None:
    with (
        idle(home, paused),
        pytest.raises(RunError, match="Another process is working on this job"),
        paused.lock(),
    ):
        pass
    with paused.lock():
        pass


def test_one_that_waits_is_refused(home: Home, paused: Job) -> None:
    Queue(home).resume(paused)
    with pytest.raises(RunError) as caught, idle(home, paused):
        pass
    fix = f"Stop it first: python app.py jobs stop {paused.id}"
    assert str(caught.value) == f"The job waits for its turn ({paused.id}). {fix}."


def test_one_that_runs_is_refused(home: Home, paused: Job) -> None:
    running(paused)
    with pytest.raises(RunError) as caught, idle(home, paused):
        pass
    assert caught.value.what == "The job is running"


def test_one_whose_worker_has_only_the_lock_yet_is_refused(home: Home, paused: Job) -> None:
    with (
        paused.lock(),
        pytest.raises(RunError, match="Another process is working on this job"),
        idle(home, paused),
    ):
        pass
