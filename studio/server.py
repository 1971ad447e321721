"""The process behind the page: keeps the line moving and holds the engine process.

Everything true is in files, so it may be killed at any instant: workers train on, and the next
server, or any verb, reads the same folders.
"""

import fcntl
import logging
import os
import threading
from contextlib import suppress
from types import TracebackType

from studio.data_service import DataService
from studio.engine_service import EngineService
from studio.home import Home
from studio.jobs.fork_server import ForkServer
from studio.jobs.queue import Queue
from studio.projects import Projects
from studio.readings import Readings
from templates.errors import RunError, StudioError
from templates.files import disk_errors

_LOOK_SECONDS = 0.5
_log = logging.getLogger(__name__)


class Server:
    """One per home; a second one is refused. Use as a context."""

    def __init__(self, home: Home) -> None:
        """Prepare; nothing runs yet.

        Args:
            home: the folder to serve.
        """
        self.home = home
        self.queue = Queue(home)
        self.projects = Projects(home)
        self.engine = EngineService(log=home.root / "engine.log")
        self.data = DataService(log=home.root / "data.log")
        self.fork_server = ForkServer(home)
        self.readings = Readings(home, self.projects, self.queue)
        self.downloads = home.root / "downloads"  # the only folder whose files a page hands out
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._move_on, name="queue", daemon=True)
        self._trouble = ""

    @property
    def trouble(self) -> str:
        """Why the line does not move just now, such as a full disk; empty: it does."""
        return self._trouble

    def __enter__(self) -> "Server":
        """Take the home and begin.

        Returns:
            The server.

        Raises:
            RunError: another server has it.
        """
        with disk_errors("the studio's folder"):
            # Not "w": the file says who holds it, also to those who come too late.
            self._lock = self.home.lock("server").open("a+", encoding="ascii")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.seek(0)
            holder = self._lock.read().strip()
            self._lock.close()
            raise RunError(
                f"Another studio is already open on this folder (process {holder or 'unknown'})",
                where=str(self.home.root),
                fix="Use that one, end it first, or point STUDIO_HOME at another folder",
            ) from None
        self._lock.truncate(0)
        self._lock.write(str(os.getpid()))
        self._lock.flush()
        self.home.remove_leftovers()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the engine and let go; jobs that run are left to run."""
        self._over.set()
        self._thread.join()
        self.engine.close()
        self.data.close()
        self.fork_server.close()
        self.readings.close()
        self._lock.close()

    def warm_up(self) -> None:
        """Load libraries in the background, so that neither questions nor jobs wait for them."""

        def ping() -> None:
            with suppress(StudioError):  # whoever asks next is told
                self.engine.call("ping")

        if self.engine.pid is None:
            threading.Thread(target=ping, name="warm-up", daemon=True).start()
        with suppress(StudioError):  # without it, jobs begin later
            self.fork_server.start()

    def _move_on(self) -> None:
        while not self._over.wait(_LOOK_SECONDS):
            try:
                self.queue.advance()
                self._trouble = ""
            except StudioError as error:  # a full disk now may have room later
                self._trouble = str(error)
            except Exception as error:  # one bad folder must not end the line for all others
                self._trouble = f"The line stands still ({type(error).__name__})."
                _log.exception("the queue could not be moved on")
