"""Starts a worker as a process of its own: own session, minimal environment."""

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
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
FORK_SERVER = "fork-server"  # a socket in the studio's folder, see `fork_server.py`
FORKED, REFUSED = b"+", b"-"
SERVER_SECONDS = 5.0
LARGEST_REQUEST_BYTES = 65_536
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
    orders = json.dumps({"until_step": until_step, "token": token}).encode() + b"\n"
    worker = None
    try:
        with disk_errors("the worker's log"), (job.folder / LOG).open("ab") as log:
            descriptors = log.fileno(), writing
            if not _forked(home, job, environment, orders, descriptors):
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
    if worker is not None:
        _children.append(worker)
        assert worker.stdin is not None
        with contextlib.suppress(BrokenPipeError), worker.stdin:
            worker.stdin.write(orders)
    if not _said_hello(reading):
        code = f" (exit {worker.wait()})" if worker is not None else ""
        write_failure(job, f"The worker could not start{code}")


@contextlib.contextmanager
def connected(home: Path) -> Iterator[socket.socket]:
    """Connect to the fork server of a home.

    Args:
        home: the folder; the path of a socket must be short, so it is named by a descriptor.

    Yields:
        The connection.
    """
    folder = os.open(home, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(SERVER_SECONDS)
            connection.connect(f"/proc/self/fd/{folder}/{FORK_SERVER}")
            yield connection
    finally:
        os.close(folder)


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


def _forked(
    home: Path, job: Job, environment: Mapping[str, str], orders: bytes, descriptors: Sequence[int]
) -> bool:
    """Ask the fork server for a worker; False where it has to be started in another way.

    The descriptors are those of log and hello. A token among the orders gets into no file.
    """
    request = {"job": job.id, "environment": dict(environment), "orders": orders.decode()}
    content = json.dumps(request).encode()
    if len(content) > LARGEST_REQUEST_BYTES:
        return False
    with contextlib.suppress(OSError), connected(home) as connection:
        socket.send_fds(connection, [content], descriptors)
        return connection.recv(1) == FORKED
    return False


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
