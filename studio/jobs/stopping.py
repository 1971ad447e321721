"""How a worker hears that it should stop, and stops at a safe place within ten seconds."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

# Leaves two of the ten seconds to let go of what was begun.
_PATIENCE_SECONDS = 8.0
_AGAIN_SECONDS = 2.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)


class StopWork(BaseException):
    """Raised where work may be dropped at any line; no `except Exception` may swallow it."""


class StopRequest:
    """Remembers SIGTERM; inside `droppable` it ends the work there and then."""

    def __init__(self) -> None:
        """Hear nothing yet; use as a context."""
        self._asked = self._droppable = self._late = self._raised = False
        self._before: dict[int, Any] = {}

    def asked(self) -> bool:
        """Say whether somebody asked to stop.

        Returns:
            True from the first signal on.
        """
        return self._asked

    def raised(self) -> bool:
        """Say whether `StopWork` was raised at some line, wherever it went from there.

        Returns:
            True also where a library swallowed it, or turned it into an error of its own.
        """
        return self._raised

    def __enter__(self) -> "StopRequest":
        """Listen."""
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *exception: object) -> None:
        """Leave the signals as they were."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def droppable(self) -> Iterator[None]:
        """Let a signal raise `StopWork` at any line inside.

        Yields:
            Nothing.

        Raises:
            StopWork: a signal came, perhaps before.
        """
        self._droppable = True
        try:
            if self._asked:
                raise StopWork
            yield
        finally:
            self._droppable = False
            signal.setitimer(signal.ITIMER_REAL, 0)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Within `droppable`, let work that looks at `asked` end in its own way.

        It has a few seconds; then `StopWork` is raised after all.

        Yields:
            Nothing.
        """
        self._droppable = False
        if self._asked:  # came just before
            raise StopWork
        self._late = True
        try:
            yield
        finally:
            self._late = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            self._droppable = True

    def _ask(self, number: int, frame: FrameType | None) -> None:
        first, self._asked = not self._asked, True
        if self._droppable or (self._late and number == signal.SIGALRM):
            self._raised = True
            # Once more, should it be swallowed where no exception can leave.
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_SECONDS)
            raise StopWork
        if self._late and first:
            signal.setitimer(signal.ITIMER_REAL, _PATIENCE_SECONDS)
