"""A job is a folder; its state is a fold over what its attempts wrote, and liveness. Free of torch.

jobs/<id>/request.json                 kind and frozen request, written once
          about.json                   name, tags and note, which people may change
          attempts/<n>/events.jsonl    append-only, written by that attempt's worker alone
                       worker.log      what libraries printed
                       found_dead.json what the first to find the worker gone saw
          checkpoints/                 training only
          …                            what the job delivers

Nobody writes "interrupted": it is what a reader sees where an attempt has no last word and its
process is gone.
"""

import fcntl
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from engine.attempts import EVENTS, LAST_WORDS, Attempt, read_ends, read_events
from engine.events import (
    Delivered,
    Evaluated,
    Event,
    Failed,
    Finished,
    Sampled,
    Saved,
    Started,
    Stepped,
    Stopped,
)
from engine.job_status import FoundDead, JobStatus, fold
from engine.liveness import Process, boot_id, is_alive, memory_kills
from templates.errors import RunError
from templates.files import canonical_json, disk_errors, sync_folder, write_atomically

JobKind = Literal["prepare", "train", "compare", "predict", "publish", "fetch", "download"]
JOB_KINDS: tuple[JobKind, ...] = get_args(JobKind)
REQUEST = "request.json"
_VERSION = 2
_FOUND_DEAD = "found_dead.json"


@dataclass(frozen=True)
class Job:
    """One job folder."""

    folder: Path

    @property
    def id(self) -> str:
        """The folder's name."""
        return self.folder.name

    @property
    def kind(self) -> JobKind:
        """What is done, as the request says."""
        kind: JobKind = self._content()["kind"]
        return kind

    @property
    def checkpoints(self) -> Path:
        """Where training saves."""
        return self.folder / "checkpoints"

    def request(self, kind: JobKind) -> dict[str, Any]:
        """Read what was asked for.

        Args:
            kind: the kind of job expected, such as "train".

        Returns:
            The request.

        Raises:
            RunError: there is no such job, it is of another kind, or of a newer studio.
        """
        content = self._content()
        if content["kind"] != kind:
            raise RunError(
                f"This is a {content['kind']} job, not a {kind} job",
                where=self.id,
                fix=f"Give the id of a {kind} job",
            )
        request: dict[str, Any] = content["request"]
        return request

    def start_attempt(self) -> Attempt:
        """Open the next attempt.

        Returns:
            A writer of its events.
        """
        attempts = self.folder / "attempts"
        with disk_errors("the run folder"):
            attempts.mkdir(exist_ok=True)
            # A kill may have left a folder without events: count folders, not files.
            names = [path.name for path in attempts.iterdir() if path.name.isdecimal()]
            newest = max(map(int, names), default=0)
            folder = attempts / str(newest + 1)
            folder.mkdir()
        return Attempt(folder)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from working on the same job; let go when this one ends, however.

        Yields:
            Nothing.

        Raises:
            RunError: another process works on it.
        """
        with disk_errors("the run folder"):
            file = (self.folder / "lock").open("w")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunError(
                    "Another process is working on this job",
                    where=self.id,
                    fix="Wait until it ends, or stop it first",
                ) from None
            yield

    def events(self) -> list[Event]:
        """Read all attempts as one story.

        Steps that a later attempt took again, because they came after the checkpoint it
        restored, are dropped; so are lines torn by a kill or a full disk.

        Returns:
            The events in order.
        """
        story: list[Event] = []
        for folder in self._attempts():
            events = [stamped.event for stamped in read_events(folder / EVENTS)]
            first = next((event.first_step for event in events if isinstance(event, Started)), None)
            if first is not None:
                story = [event for event in story if _is_before(event, first)]
            story += events
        return story

    def attempt_events(self) -> dict[int, Path]:
        """Find the event files, for readers that query them as tables.

        Returns:
            Attempt number -> file, the newest last.
        """
        return {int(folder.name): folder / EVENTS for folder in self._attempts()}

    def status(self, *, alive: Callable[[Process], bool] = is_alive) -> JobStatus:
        """Read where the job stands: the ends of the newest attempt's events, however long.

        Args:
            alive: tells whether a process still runs.

        Returns:
            The state and what a person wants to know with it.
        """
        attempts = self._attempts()
        for folder in reversed(attempts):
            events = read_ends(folder / EVENTS)
            if not events:
                continue  # killed before its first word
            number = int(folder.name)
            status = fold(events, number, alive=alive, found_dead=_found_dead(folder))
            if status.state != "finished" and _finished_before(attempts, folder):
                return JobStatus("finished", number, 1.0)
            return status
        return JobStatus("finished", done_ratio=1.0) if self._is_done_without_events() else (
            JobStatus("new")
        )  # fmt: skip

    def num_memory_kills(self) -> int:
        """Count the attempts that the system ended because memory ran out while they trained.

        Returns:
            How often, over all attempts but those that still run.
        """
        num_kills = 0
        for folder in self._attempts():
            if events := read_ends(folder / EVENTS):
                found_dead = _found_dead(folder)
                status = fold(events, int(folder.name), alive=is_alive, found_dead=found_dead)
                num_kills += status.was_killed_for_memory and status.total_steps > 0
        return num_kills

    def record_death(self, *, on_request: bool = False) -> None:
        """Keep what can be seen of a worker found gone without a last word, once.

        Later readers then give the same reason, whatever else the machine goes through.

        Args:
            on_request: whether a person had it ended at once.
        """
        folder = next(iter(reversed(self._attempts())), None)
        if folder is None or (folder / _FOUND_DEAD).exists():
            return
        if any(isinstance(stamped.event, LAST_WORDS) for stamped in read_ends(folder / EVENTS)):
            return
        seen = FoundDead(boot_id(), memory_kills(), on_request)
        content = {"at": time.time(), **seen._asdict()}
        write_atomically(folder / _FOUND_DEAD, canonical_json(content))

    def _content(self) -> dict[str, Any]:
        try:
            content = json.loads((self.folder / REQUEST).read_text(encoding="utf-8"))
            version, kind, _ = content["version"], content["kind"], content["request"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            raise RunError("There is no such run", where=self.id, fix="List them first") from None
        if version not in (1, _VERSION) or kind not in JOB_KINDS:
            raise RunError(
                f"This {kind} job was made by a newer studio (version {version} of its folder)",
                where=self.id,
                fix="Update the studio, and open it then",
            )
        found: dict[str, Any] = content
        return found

    def _attempts(self) -> list[Path]:
        folders = [path.parent for path in (self.folder / "attempts").glob("*/" + EVENTS)]
        numbered = [folder for folder in folders if folder.name.isdecimal()]
        return sorted(numbered, key=lambda folder: int(folder.name))

    def _is_done_without_events(self) -> bool:
        """Comparisons of version 1 ran in the verb's own process and wrote no events."""
        return (self.folder / "comparison.json").is_file()


def create_job(
    folder: Path,
    kind: JobKind,
    request: dict[str, Any],
    *,
    key: str = "",
    files: Mapping[str, Path] | None = None,
) -> Job:
    """Make a job folder.

    Args:
        folder: a new folder; its name is the job's id.
        kind: what is to be done.
        request: JSON-ready.
        key: what the submitter calls this wish, so that asking twice gives one job.
        files: copied into the folder: name there -> where they are now.

    Returns:
        The job.
    """
    temporary = folder.with_name(f".{folder.name}.tmp")
    content = {"version": _VERSION, "kind": kind, "request": request, "key": key, "at": time.time()}
    assert not folder.exists(), "ids are new"
    with disk_errors("the run folder"):
        temporary.mkdir(parents=True)
        for name, source in (files or {}).items():
            shutil.copyfile(source, temporary / name)
        write_atomically(temporary / REQUEST, canonical_json(content, indent=2))
        temporary.rename(folder)  # a folder without a request is never seen
        sync_folder(folder.parent)
    return Job(folder)


def _found_dead(folder: Path) -> FoundDead | None:
    try:
        seen = json.loads((folder / _FOUND_DEAD).read_text(encoding="utf-8"))
        on_request = bool(seen.get("on_request"))
        return FoundDead(str(seen["boot_id"]), int(seen["memory_kills"]), on_request)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _finished_before(attempts: Sequence[Path], newest: Path) -> bool:
    """Say whether an earlier attempt reached the end: a needless one after it changes nothing."""
    for folder in attempts[: attempts.index(newest)]:
        events = read_ends(folder / EVENTS)
        if any(isinstance(stamped.event, Finished | Delivered) for stamped in events[-1:]):
            return True
    return False


def _is_before(event: Event, first_step: int) -> bool:
    if isinstance(event, Stepped | Evaluated | Sampled | Saved):
        return event.step < first_step
    return not isinstance(event, Stopped | Failed)
