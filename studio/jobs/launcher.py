"""Starts a worker as a process of its own: argument list, own session, minimal environment."""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
from pathlib import Path
from typing import Protocol

from engine.events import Failed
from engine.jobs import Job
from engine.liveness import Process, is_alive
from studio.settings import HOME_VARIABLE, child_environment
from templates.errors import StudioError
from templates.files import disk_errors

LOG = "worker.log"
HELLO = b"+"
_ONLINE = ("fetch", "download")
_ROOT = Path(__file__).parents[2]
_HELLO_SECONDS = 30.0
_children: list[subprocess.Popen[bytes]] = []


class Launcher(Protocol):
    """Starts work on a job and returns once the job's folder says so."""

    def __call__(self, home: Path, job: Job, *, until_step: int = 0, token: str = "") -> None:
        """Start.

        Args:
            home: the folder behind all steps.
            job: what to work on.
            until_step: pause training there; 0: go on to the end.
            token: for the Hub; goes through a pipe, never into a file or argument.
        """


def launch_process(home: Path, job: Job, *, until_step: int = 0, token: str = "") -> None:
    """Start a worker process that outlives this one.

    Args:
        home: the folder behind all steps.
        job: what to work on.
        until_step: pause training there; 0: go on to the end.
        token: for the Hub; goes through a pipe, never into a file or argument.
    """
    reading, writing = os.pipe()
    environment = child_environment(offline=job.kind not in _ONLINE) | {HOME_VARIABLE: str(home)}
    command = [sys.executable, "-m", "studio.jobs.worker", job.id, "--hello", str(writing)]
    try:
        with disk_errors("the worker's log"), (job.folder / LOG).open("ab") as log:
            worker = subprocess.Popen(  # noqa: S603 - our own program, our own generated id
                command,
                cwd=_ROOT,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=(writing,),
                start_new_session=True,
            )
    except Exception:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    _children.append(worker)
    assert worker.stdin is not None
    with contextlib.suppress(BrokenPipeError), worker.stdin:
        orders = {"until_step": until_step, "token": token}
        worker.stdin.write(json.dumps(orders).encode() + b"\n")
    if not _said_hello(reading):
        write_failure(job, f"The worker could not start (exit {worker.wait()})")


def reap() -> None:
    """Collect workers of this process that have ended, so that none stays as a zombie."""
    _children[:] = [child for child in _children if child.poll() is None]


def ask_to_stop(process: Process, *, force: bool = False) -> None:
    """Send a worker SIGTERM, or end its whole session.

    Args:
        process: the worker; nothing happens where it is gone, even if its id is in use again.
        force: end it at once; it can be resumed from its newest checkpoint.
    """
    if is_alive(process):
        with contextlib.suppress(ProcessLookupError):  # it ended in this very moment
            if force:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                os.kill(process.pid, signal.SIGTERM)


def _said_hello(reading: int) -> bool:
    """Wait until the worker has written its first event; False where it ended before."""
    with selectors.DefaultSelector() as selector:
        selector.register(reading, selectors.EVENT_READ)
        ready = selector.select(_HELLO_SECONDS)
        try:
            return not ready or os.read(reading, 1) == HELLO
        finally:
            os.close(reading)


def write_failure(job: Job, what: str) -> None:
    """Speak for a worker that could not: it ended before its first event, or never began.

    Args:
        job: its job.
        what: what happened.
    """
    try:
        with job.lock():
            attempt = job.start_attempt()
            attempt.write(Failed(what, f"Look into {LOG} in its folder", job.id))
            attempt.close()
    except StudioError:
        return  # another worker has the job, or the disk refuses: readers see what there is
