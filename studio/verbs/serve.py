"""serve: keep the line of jobs moving until told to end."""

import signal
import threading
from types import FrameType

from studio.home import Home
from studio.screen import say


def serve() -> None:
    """Run queued jobs as their turn comes, until Ctrl-C; jobs that run then go on."""
    from studio.server import Server  # noqa: PLC0415

    over = threading.Event()

    def hear(number: int, frame: FrameType | None) -> None:
        over.set()

    with Server(Home()) as server:
        for which in (signal.SIGINT, signal.SIGTERM):
            signal.signal(which, hear)
        say(f"Serving {server.home.root}. Ctrl-C ends this; running jobs go on.")
        shown = ""
        while not over.wait(0.2):
            if server.trouble != shown:
                shown = server.trouble
                say(shown or "The line moves again.")
    say("Ended. See what runs: python app.py jobs list")
