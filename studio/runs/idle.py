"""A job that nobody works on, held so that it stays so while its folder is handled."""

from collections.abc import Iterator
from contextlib import contextmanager

from engine.jobs import Job
from studio.home import Home
from studio.jobs.queue import Queue
from templates.errors import RunError


@contextmanager
def idle(home: Home, job: Job) -> Iterator[None]:
    """Hold a job's lock, so that no worker begins meanwhile.

    Args:
        home: where it may wait in the line.
        job: any job.

    Yields:
        Nothing.

    Raises:
        RunError: it runs or waits.
    """
    state = Queue(home).state(job)
    if state in ("queued", "running"):
        raise RunError(
            "The job is running" if state == "running" else "The job waits for its turn",
            where=job.id,
            fix=f"Stop it first: python app.py jobs stop {job.id}",
        )
    with job.lock():
        yield
