"""One attempt at a job: its events, appended by one worker, read by anybody. Free of torch."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from engine.events import (
    Degraded,
    Delivered,
    Event,
    Failed,
    Finished,
    Progressed,
    Sampled,
    Stamped,
    Stepped,
    Stopped,
    from_json,
    to_json,
)
from templates.errors import RunError
from templates.files import disk_errors

EVENTS = "events.jsonl"
LAST_WORDS = (Finished, Delivered, Stopped, Failed)
# The state needs the first lines of an attempt and the last: reading stays quick after any time.
_HEAD_BYTES, _TAIL_BYTES, _END_LINES = 4 << 10, 16 << 10, 24
# Every step of a short run is kept; of a long one as many as a chart can show.
_STEPS_KEPT_WHOLE, _SECONDS_BETWEEN_STEPS = 2000, 0.25
_RESERVE, _RESERVE_BYTES = ".reserve", 64 << 10


class Attempt:
    """The append-only events of one attempt, and its log."""

    def __init__(self, folder: Path) -> None:
        """Open for writing.

        Args:
            folder: the attempt's own new folder.
        """
        self.folder = folder
        self.path = folder / EVENTS
        self._descriptor = -1
        self._num_steps = self._num_lost = 0
        self._reason = ""
        self._next_step_at = 0.0
        self.has_ended = False
        # Set free when the disk is full, so that the reason can still be written down.
        with contextlib.suppress(OSError):  # else the first event will say what is wrong
            (folder / _RESERVE).write_bytes(b"\0" * _RESERVE_BYTES)

    @property
    def number(self) -> int:
        """1 for the first."""
        return int(self.folder.name)

    def write(self, event: Event) -> None:
        """Append one event, at once visible to readers.

        Of a long run's steps some are left out. Where the disk refuses, steps, samples and progress
        are counted as lost and the work goes on; anything else is worth an error.

        Args:
            event: what happened.

        Raises:
            RunError: the disk refused an event that matters.
        """
        now = time.monotonic()
        if isinstance(event, Stepped) and not self._is_kept(now):
            return
        self.has_ended = self.has_ended or isinstance(event, LAST_WORDS)
        line = to_json(Stamped(event, time.time(), now)) + "\n"
        if self._num_lost:
            # The line that did not fit may have left a beginning: this ends it.
            lost = Degraded(self._num_lost, self._reason)
            line = "\n" + to_json(Stamped(lost, time.time(), now)) + "\n" + line
        try:
            self._append(line.encode(errors="replace"))
            self._num_lost = 0
        except RunError as error:
            self._num_lost, self._reason = self._num_lost + 1, error.what
            if not isinstance(event, Stepped | Progressed | Sampled):
                self._append_last(line)

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        (self.folder / _RESERVE).unlink(missing_ok=True)

    def _is_kept(self, now: float) -> bool:
        self._num_steps += 1
        if self._num_steps > _STEPS_KEPT_WHOLE and now < self._next_step_at:
            return False
        self._next_step_at = now + _SECONDS_BETWEEN_STEPS
        return True

    def _append(self, content: bytes) -> None:
        with disk_errors("the run's events"):
            if self._descriptor < 0:
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
                self._descriptor = os.open(self.path, flags, 0o644)
            while content:  # one call, unless the disk is nearly full
                content = content[os.write(self._descriptor, content) :]

    def _append_last(self, line: str) -> None:
        (self.folder / _RESERVE).unlink(missing_ok=True)
        self._append(b"\n" + line.encode(errors="replace"))
        self._num_lost = 0


def read_events(path: Path) -> Iterator[Stamped]:
    """Read all events of an attempt; torn lines are left out.

    Args:
        path: its file.

    Yields:
        Events in order.
    """
    with path.open("rb") as file:
        for line in file:
            with contextlib.suppress(ValueError):
                yield from_json(line)


def read_ends(path: Path) -> list[Stamped]:
    """Read the first and the last events of an attempt; of short files all.

    Args:
        path: its file.

    Returns:
        Events in order.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(_HEAD_BYTES)
        if size > _HEAD_BYTES + _TAIL_BYTES:
            file.seek(size - _TAIL_BYTES)
            content += b"\n"  # the line at the cut is torn on both sides
        content += file.read()
    lines = content.split(b"\n")
    found = []
    for line in lines if len(lines) <= 2 * _END_LINES else lines[:_END_LINES] + lines[-_END_LINES:]:
        with contextlib.suppress(ValueError):
            found.append(from_json(line))
    return found
