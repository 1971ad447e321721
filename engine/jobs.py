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

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from engine.events import (
    Degraded,
    Delivered,
    Evaluated,
    Event,
    Failed,
    Finished,
    Launched,
    Progressed,
    Saved,
    Stamped,
    Started,
    Stepped,
    Stopped,
    from_json,
    to_json,
)
from engine.liveness import Process, boot_id, is_alive, memory_kills, why_it_ended
from templates.errors import RunError
from templates.files import canonical_json, disk_errors, sync_folder, write_atomically

JobKind = Literal["prepare", "train", "compare", "predict", "publish", "fetch"]
JOB_KINDS: tuple[JobKind, ...] = get_args(JobKind)
JobState = Literal["new", "running", "finished", "stopped", "failed", "interrupted"]
SILENT_SECONDS = 600.0  # loading a large base is the longest time without an event
REQUEST = "request.json"
_VERSION = 2
_EVENTS = "events.jsonl"
_FOUND_DEAD = "found_dead.json"
# The state needs the first lines of an attempt and the last: reading stays quick after any time.
_HEAD_BYTES, _TAIL_BYTES, _END_LINES = 4 << 10, 16 << 10, 24
# Every step of a short run is kept; of a long one as many as a chart can show.
_STEPS_KEPT_WHOLE, _SECONDS_BETWEEN_STEPS = 2000, 0.25
_RESERVE, _RESERVE_BYTES = ".reserve", 64 << 10
_LAST_WORDS = (Finished, Delivered, Stopped, Failed)


@dataclass(frozen=True)
class JobStatus:
    """Where a job stands.

    Attributes:
        state: see `fold`; "new" where no worker has begun.
        attempt: the newest attempt with events; 0 before the first.
        done_ratio: share of the work, 0 to 1.
        words: what is being done.
        step: optimizer steps taken; 0 for other kinds.
        total_steps: steps of the whole run; 0 until it is known.
        loss: of the last step.
        best_loss: the best validation loss of a run that finished or paused.
        what: why it failed or was interrupted; empty otherwise.
        fix: what to do then.
        where: the place, where one is known.
        started_at: UTC seconds of the attempt's first event.
        updated_at: UTC seconds of its last.
        silent_seconds: time since the last sign of life; 0 unless running.
        process: the worker, where the attempt said.
    """

    state: JobState
    attempt: int = 0
    done_ratio: float = 0.0
    words: str = ""
    step: int = 0
    total_steps: int = 0
    loss: float | None = None
    best_loss: float | None = None
    what: str = ""
    fix: str = ""
    where: str = ""
    started_at: float = 0.0
    updated_at: float = 0.0
    silent_seconds: float = 0.0
    process: Process | None = None

    @property
    def is_silent(self) -> bool:
        """Whether it runs without a sign of life for so long that somebody should look."""
        return self.silent_seconds > SILENT_SECONDS


class FoundDead(NamedTuple):
    """What was seen when a worker was first found gone without a last word."""

    boot_id: str
    memory_kills: int
    on_request: bool = False


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

    def start_attempt(self) -> "Attempt":
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
            events = [stamped.event for stamped in _read(folder / _EVENTS)]
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
        return {int(folder.name): folder / _EVENTS for folder in self._attempts()}

    def status(self, *, alive: Callable[[Process], bool] = is_alive) -> JobStatus:
        """Read where the job stands: the ends of the newest attempt's events, however long.

        Args:
            alive: tells whether a process still runs.

        Returns:
            The state and what a person wants to know with it.
        """
        attempts = self._attempts()
        for folder in reversed(attempts):
            events = _read_ends(folder / _EVENTS)
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

    def record_death(self, *, on_request: bool = False) -> None:
        """Keep what can be seen of a worker found gone without a last word, once.

        Later readers then give the same reason, whatever else the machine goes through.

        Args:
            on_request: whether a person had it ended at once.
        """
        folder = next(iter(reversed(self._attempts())), None)
        if folder is None or (folder / _FOUND_DEAD).exists():
            return
        if any(isinstance(stamped.event, _LAST_WORDS) for stamped in _read_ends(folder / _EVENTS)):
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
        folders = [path.parent for path in (self.folder / "attempts").glob("*/" + _EVENTS)]
        numbered = [folder for folder in folders if folder.name.isdecimal()]
        return sorted(numbered, key=lambda folder: int(folder.name))

    def _is_done_without_events(self) -> bool:
        """Comparisons of version 1 ran in the verb's own process and wrote no events."""
        return (self.folder / "comparison.json").is_file()


class Attempt:
    """The append-only events of one attempt, and its log."""

    def __init__(self, folder: Path) -> None:
        """Open for writing.

        Args:
            folder: the attempt's own new folder.
        """
        self.folder = folder
        self.path = folder / _EVENTS
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

        Of a long run's steps some are left out. Where the disk refuses, steps and progress are
        counted as lost and the work goes on; anything else is worth an error.

        Args:
            event: what happened.

        Raises:
            RunError: the disk refused an event that matters.
        """
        now = time.monotonic()
        if isinstance(event, Stepped) and not self._is_kept(now):
            return
        self.has_ended = self.has_ended or isinstance(event, _LAST_WORDS)
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
            if not isinstance(event, Stepped | Progressed):
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


def fold(
    events: Sequence[Stamped],
    attempt: int,
    *,
    alive: Callable[[Process], bool],
    found_dead: "FoundDead | None" = None,
) -> JobStatus:
    """Fold an attempt's events and liveness into a state. Pure, but for the clock of a living one.

    A last word decides: "finished", "stopped" or "failed". Without one, an attempt whose process
    lives is "running", and any other was "interrupted", or "failed" where memory ran out.

    Args:
        events: of one attempt, in order; those in the middle may be left out.
        attempt: its number.
        alive: tells whether a process still runs.
        found_dead: what was seen when the process was first found gone.

    Returns:
        The status.
    """
    ends = (place for place, s in enumerate(events, 1) if isinstance(s.event, _LAST_WORDS))
    events = events[: next(ends, None)]  # what is said after the last word does not count
    status = _progress_of(events, attempt)
    last_word = events[-1].event if isinstance(events[-1].event, _LAST_WORDS) else None
    launched = next((s.event for s in events if isinstance(s.event, Launched)), None)
    if isinstance(last_word, Failed):
        return _with(
            status, state="failed", what=last_word.what, fix=last_word.fix,
            where=last_word.where,
        )  # fmt: skip
    if isinstance(last_word, Stopped):
        return _with(status, state="stopped")
    if last_word is not None:
        return _with(status, state="finished", done_ratio=1.0)
    if launched is None:  # written before workers said who they are
        return _with(status, state="interrupted", what="It did not end", fix="Resume it")
    process = Process(launched.pid, launched.process_started, launched.boot_id)
    if alive(process):
        silent = max(0.0, time.monotonic() - events[-1].monotonic_seconds)
        return _with(status, state="running", process=process, silent_seconds=silent)
    seen = found_dead or FoundDead(boot_id(), memory_kills())
    reason = why_it_ended(launched, seen.boot_id, seen.memory_kills, on_request=seen.on_request)
    ran_out = seen.boot_id == launched.boot_id and seen.memory_kills > launched.memory_kills
    ran_out = ran_out and not seen.on_request
    state: JobState = "failed" if ran_out else "interrupted"
    return _with(status, state=state, what=reason.what, fix=reason.fix)


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


def _with(status: JobStatus, **changes: Any) -> JobStatus:
    return JobStatus(**{**status.__dict__, **changes})


def _progress_of(events: Sequence[Stamped], attempt: int) -> JobStatus:
    found: dict[str, Any] = {}
    for stamped in events:
        event = stamped.event
        if isinstance(event, Progressed):
            found |= {"done_ratio": event.done_ratio, "words": event.words}
        elif isinstance(event, Started):
            found |= {"total_steps": event.total_steps, "step": event.first_step - 1}
        elif isinstance(event, Stepped):
            found |= {"step": event.step, "loss": event.loss}
        elif isinstance(event, Finished | Stopped):
            found |= {"step": event.step, "best_loss": event.best_loss}
    if found.get("total_steps"):
        total = found["total_steps"]
        found |= {"done_ratio": found["step"] / total, "words": f"step {found['step']}/{total}"}
    return JobStatus("new", attempt, started_at=events[0].at, updated_at=events[-1].at, **found)


def _read(path: Path) -> Iterator[Stamped]:
    for line in path.read_bytes().split(b"\n"):
        with contextlib.suppress(ValueError):  # torn
            yield from_json(line)


def _read_ends(path: Path) -> list[Stamped]:
    """Read the first and the last events; of short files all."""
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
        events = _read_ends(folder / _EVENTS)
        if any(isinstance(stamped.event, Finished | Delivered) for stamped in events[-1:]):
            return True
    return False


def _is_before(event: Event, first_step: int) -> bool:
    if isinstance(event, Stepped | Evaluated | Saved):
        return event.step < first_step
    return not isinstance(event, Stopped | Failed)
