"""Workers that start at once: a process with all libraries loaded forks one for every job.

`python -m studio.jobs.fork_server` is started by the page and ends with it. It listens in the
studio's folder, so whoever moves the line on (page, command line, a worker that has just finished)
gets the next worker here; where nobody listens, or other variables are asked for, `launcher.py`
starts a new interpreter, which loads for seconds.

A forked process shares the memory of the libraries. It must not inherit a GPU that was touched or
a thread that holds a lock: on machines with a GPU, and beside Linux, there is no fork server.
"""

import contextlib
import gc
import importlib
import json
import os
import random
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from studio.home import Home
from studio.jobs.launcher import (
    FORK_SERVER,
    FORKED,
    LARGEST_REQUEST_BYTES,
    REFUSED,
    SERVER_SECONDS,
    connected,
)
from studio.jobs.worker import run
from studio.settings import HOME_VARIABLE, child_environment
from templates.files import disk_errors

_ROOT = Path(__file__).parents[2]
_GPU = Path("/proc/driver/nvidia")
_IDLE_SECONDS = 1800.0  # after which its memory is given back
_PRELOADED = (
    *(f"studio.work.{kind}" for kind in ("train", "prepare", "compare", "predict", "publish")),
    "transformers.models.auto.modeling_auto",
    "transformers.models.llama.modeling_llama",  # of the base that ships
)


class ForkServer:
    """The process, as its owner sees it."""

    def __init__(self, home: Home) -> None:
        """Describe it; it starts with `start`.

        Args:
            home: in whose folder it listens.
        """
        self._home = home
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_ready(self) -> bool:
        """Whether workers can be had."""
        with contextlib.suppress(OSError), connected(self._home.root):
            return True
        return False

    def start(self) -> None:
        """Start the process in the background; nothing happens where there can be none."""
        if not _is_possible() or (self._process is not None and self._process.poll() is None):
            return
        with (
            disk_errors("the studio's folder"),
            (self._home.root / "fork-server.log").open("wb") as log,
        ):
            self._process = subprocess.Popen(
                [sys.executable, "-m", "studio.jobs.fork_server"],
                cwd=_ROOT,
                env=child_environment(offline=True) | {HOME_VARIABLE: str(self._home.root)},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def close(self) -> None:
        """End it; the workers that it forked go on."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.kill()  # it may still be loading
        self._process.wait()
        self._process = None


def _is_possible() -> bool:
    return sys.platform == "linux" and not _GPU.exists()


def _serve(home: Home) -> None:
    """Load, listen, and fork until the owner is gone."""
    own = _without_home(os.environ)  # before libraries add to it
    gc.disable()
    for name in _PRELOADED:
        importlib.import_module(name)
    gc.freeze()  # what is loaded stays, and is shared: a search for garbage would copy it
    gc.enable()
    if threading.active_count() > 1:
        sys.exit("A library started a thread while it was loaded: workers are started without me")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the system collects workers that have ended
    address = home.root / FORK_SERVER
    address.unlink(missing_ok=True)
    os.chdir(home.root)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(FORK_SERVER)
        os.chmod(FORK_SERVER, 0o600)
        listener.listen()
        os.chdir(_ROOT)
        while _is_asked(listener):
            connection, _ = listener.accept()
            with connection:
                _answer(connection, listener, own)
    address.unlink(missing_ok=True)


def _is_asked(listener: socket.socket) -> bool:
    """Wait; False where nobody asks for long, or the owner is gone and our input closed."""
    ready, _, _ = select.select([listener, sys.stdin], [], [], _IDLE_SECONDS)
    return ready == [listener]


def _answer(connection: socket.socket, listener: socket.socket, own: Mapping[str, str]) -> None:
    """Fork a worker, unless other variables are wanted than those that libraries have read."""
    connection.settimeout(SERVER_SECONDS)
    try:
        content, descriptors, _, _ = socket.recv_fds(connection, LARGEST_REQUEST_BYTES, 2)
    except OSError:
        return
    try:
        if len(descriptors) != 2:  # somebody only looked whether we are here
            return
        request = json.loads(content)
        if _without_home(request["environment"]) != own:
            connection.send(REFUSED)
            return
        if os.fork() == 0:
            listener.close()
            log, hello = descriptors
            _become_worker(request, log, hello, connection)
        # The worker itself says that it was forked.
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _become_worker(
    request: Mapping[str, Any], log: int, hello: int, connection: socket.socket
) -> None:
    try:
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        with open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        os.environ[HOME_VARIABLE] = request["environment"][HOME_VARIABLE]
        random.seed()  # else all workers would draw the same
        connection.send(FORKED)
        connection.close()
        run(request["job"], hello, lambda: str(request["orders"]))
    finally:
        os._exit(1)


def _without_home(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name != HOME_VARIABLE}


if __name__ == "__main__":
    _serve(Home())
