"""A job is a folder; its state is a fold over what its attempts wrote. Free of torch.

jobs/<id>/request.json                 kind and frozen request, written once
          attempts/<n>/events.jsonl    append-only, one flushed line an event
          checkpoints/                 training only
"""

import fcntl
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from engine.events import (
    Evaluated,
    Event,
    Failed,
    Finished,
    Saved,
    Started,
    Stepped,
    Stopped,
    from_dict,
)
from engine.events import to_json as event_to_json
from templates.errors import RunError
from templates.files import canonical_json, disk_errors, sync_folder, write_atomically

JobState = Literal["new", "unfinished", "finished", "stopped", "failed"]


@dataclass(frozen=True)
class Job:
    """One job folder."""

    folder: Path

    @property
    def id(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def checkpoints(self) -> Path:
        """Where training saves."""
        return self.folder / "checkpoints"

    def request(self, kind: str) -> dict[str, Any]:
        """Read what was asked for.

        Args:
            kind: the kind of job expected, such as "train".

        Returns:
            The request.

        Raises:
            RunError: there is no such job, or it is of another kind.
        """
        try:
            content = json.loads((self.folder / "request.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise RunError("There is no such run", where=self.id, fix=f"Run {kind} first") from None
        if content.get("kind") != kind:
            raise RunError(
                f"This is a {content.get('kind')} job, not a {kind} job",
                where=self.id,
                fix=f"Give the id of a {kind} job",
            )
        request: dict[str, Any] = content["request"]
        return request

    def start_attempt(self) -> "Attempt":
        """Open the next attempt.

        Returns:
            A writer of its events.
        """
        attempts = self.folder / "attempts"
        with disk_errors("the run folder"):
            attempts.mkdir(exist_ok=True)
            # A kill may have left a folder without events: count folders, not files.
            newest = max((int(path.name) for path in attempts.iterdir()), default=0)
            folder = attempts / str(newest + 1)
            folder.mkdir()
        return Attempt(folder / "events.jsonl")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from training the same run; let go when this one ends, however.

        Yields:
            Nothing.

        Raises:
            RunError: another process trains it.
        """
        with disk_errors("the run folder"), (self.folder / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunError(
                    "Another process is training this run",
                    where=self.id,
                    fix="Wait until it ends, or stop it first",
                ) from None
            yield

    def events(self) -> list[Event]:
        """Read all attempts as one story.

        Steps that a later attempt took again, because they came after the checkpoint it
        restored, are dropped; so is a last line torn by a kill.

        Returns:
            The events in order.
        """
        story: list[Event] = []
        for path in self._attempts():
            events = list(_read_events(path))
            first = next((event.first_step for event in events if isinstance(event, Started)), None)
            if first is not None:
                story = [event for event in story if _is_before(event, first)]
            story += events
        return story

    def state(self) -> JobState:
        """Fold the events into a state.

        Returns:
            "unfinished" covers running and interrupted: telling them apart needs liveness.
        """
        story = self.events()
        if not story:
            return "new"
        if any(isinstance(event, Finished) for event in story):
            return "finished"  # also where a needless resume failed afterwards
        ends: dict[type, JobState] = {Finished: "finished", Stopped: "stopped", Failed: "failed"}
        return ends.get(type(story[-1]), "unfinished")

    def _attempts(self) -> list[Path]:
        paths = (self.folder / "attempts").glob("*/events.jsonl")
        return sorted(paths, key=lambda path: int(path.parent.name))


@dataclass(frozen=True)
class Attempt:
    """The append-only events of one attempt."""

    path: Path

    def write(self, event: Event) -> None:
        """Append one event, flushed, so that readers see it at once.

        Args:
            event: what happened.
        """
        with disk_errors("the run's events"), self.path.open("a", encoding="utf-8") as file:
            file.write(event_to_json(event, at=time.time()) + "\n")


def create_job(folder: Path, kind: str, request: dict[str, Any]) -> Job:
    """Make a job folder.

    Args:
        folder: a new folder; its name is the job's id.
        kind: "train" or "compare".
        request: JSON-ready.

    Returns:
        The job.
    """
    temporary = folder.with_name(f".{folder.name}.tmp")
    content = {"version": 1, "kind": kind, "request": request}
    assert not folder.exists(), "ids are new"
    with disk_errors("the run folder"):
        temporary.mkdir(parents=True)
        write_atomically(temporary / "request.json", canonical_json(content, indent=2))
        temporary.rename(folder)  # a folder without a request is never seen
        sync_folder(folder.parent)
    return Job(folder)


def _read_events(path: Path) -> Iterator[Event]:
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            yield from_dict(json.loads(line))
        except (ValueError, KeyError, TypeError):
            return


def _is_before(event: Event, first_step: int) -> bool:
    if isinstance(event, Stepped | Evaluated | Saved):
        return event.step < first_step
    return not isinstance(event, Stopped | Failed)
