"""What becomes of other processes and threads."""

import threading
import time
from collections.abc import Callable
from typing import Any

from engine.liveness import find_process
from templates.errors import RunError


def is_gone(pid: int, within_seconds: float) -> bool:
    until = time.monotonic() + within_seconds
    while find_process(pid) and time.monotonic() < until:
        time.sleep(0.05)
    return find_process(pid) is None


def in_background(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """Begin; the list gets what comes of it."""
    found: list[Any] = []

    def keep() -> None:
        try:
            found.append(work())
        except RunError as error:
            found.append(error)

    thread = threading.Thread(target=keep)
    thread.start()
    return thread, found
