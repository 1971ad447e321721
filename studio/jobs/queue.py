"""One line of jobs for the page and the command line, kept in a file that anybody may move on.

There is no daemon. Whoever submits, waits, serves the page, or has just finished a job takes the
queue's lock for a moment and starts what can start: in each lane the first that waits, when nothing
runs there. So the queue goes on whatever is killed, as soon as anybody looks at it.
"""

import contextlib
import fcntl
import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from engine.job_status import JobState, JobStatus
from engine.jobs import Job, create_job
from engine.liveness import Process, is_alive, this_process
from studio.home import Home
from studio.jobs.launcher import Launcher, ask_to_stop, launch_process, reap, write_failure
from studio.jobs.requests import REQUESTS, Request, kind_of, lane_of, read_request
from studio.jobs.sweep import next_entries, pause_step, sweep_of
from studio.jobs.training import files_from_runs
from templates.errors import RunError, StudioError
from templates.files import canonical_json, disk_errors, sha256_of_bytes, write_atomically
from templates.values import Value, parse

_LOCK_SECONDS = 60.0  # starting a worker takes one
_RETRY_SECONDS = 0.02
_END_SECONDS = 2.0

QueueState = Literal["queued", "running", "finished", "stopped", "failed", "interrupted"]


class Holder(Value):
    """The process that has the token a job needs."""

    pid: int
    started: int
    boot_id: str


class Entry(Value):
    """A job that waits."""

    job: str
    until_step: int = 0
    token_holder: Holder | None = None


class Line(Value):
    """What the queue's file holds.

    Attributes:
        waiting: who will start, in order.
        running: who was started.
        sweeps: those with members among them, which go on when all of these are at rest.
        held: members of sweeps that a person stopped; they do not go on by themselves.
    """

    waiting: tuple[Entry, ...] = ()
    running: tuple[str, ...] = ()
    sweeps: tuple[str, ...] = ()
    held: tuple[str, ...] = ()


class Queue:
    """The jobs of one home: who waits, in which order, and who runs."""

    def __init__(self, home: Home, *, launch: Launcher = launch_process) -> None:
        """Open the queue of a home.

        Args:
            home: the folder behind all steps.
            launch: starts work on a job.
        """
        self._home, self._launch = home, launch
        self._path = home.root / "queue.json"
        self._tokens: dict[str, str] = {}

    def submit(
        self,
        request: Request,
        *,
        key: str = "",
        files: Mapping[str, Path] | None = None,
        until_step: int = 0,
        token: str = "",
    ) -> Job:
        """Put a new job at the end of the line.

        Args:
            request: what to do.
            key: names this wish: a second submission with the same key gives the same job.
            files: copied into the job's folder: name there -> where they are now.
            until_step: pause training there; 0: go on to the end.
            token: for the Hub; kept in memory, for a job that this very queue starts.

        Returns:
            The job; it starts at the next `advance`.

        Raises:
            RunError: the disk refuses.
            PlanError: a plan starts from another run, and none fits.
        """
        kind = kind_of(request)
        content = request.model_dump(mode="json")
        parse(REQUESTS[kind], content, where=kind, error=RunError)  # a copy may hold anything
        with self._locked() as line:
            known = self._known(key)
            if known:
                if known.id not in _names(line) and known.status().state == "new":
                    # Killed between the key and the line, whoever asked first never put it there.
                    self._append(line, self._entry(known, until_step, token))
                return known
            brought = {**(files or {}), **files_from_runs(self._home, request)}
            folder = self._home.new(kind)
            job = create_job(folder, kind, content, key=key, files=brought)
            # Then the key: a kill in between leaves a job that nobody waits for, not a lost one.
            if key:
                write_atomically(self._key_file(key), job.id)
            self._append(line, self._entry(job, until_step, token))
        return job

    def advance(self) -> None:
        """Start what can start, and look after what has ended without a word.

        Raises:
            RunError: the disk takes no more; nothing is started then.
        """
        with self._locked() as line:
            reap()
            # Also those that wait: who started them may have been killed before it could say so.
            names = _names(line)
            states = {name: _state(self._job(name)) for name in names}
            running = [name for name in names if states[name] == "running"]
            lanes = {_lane(self._job(name)) for name in running}
            for name in line.running:
                if states[name] in ("failed", "interrupted"):
                    self._job(name).record_death()
            line = self._with_promotions(line, running)
            going = {*running, *(entry.job for entry in line.waiting)}
            num_running = len(running)
            waiting, sweeps, held = [], set(line.sweeps), set(line.held)
            for entry in line.waiting:
                job = self._job(entry.job)
                lane = _lane(job)
                if lane is None or states.get(job.id) in ("running", "finished"):
                    continue  # deleted, or already on its way
                if lane in lanes or self._waits_for_token(entry):
                    waiting.append(entry)
                    continue
                lanes.add(lane)
                if len(running) == num_running:  # a full disk must not see one start after another
                    self._save(line)
                token = self._tokens.pop(job.id, "")
                until_step, sweep = entry.until_step, sweep_of(self._home, job)
                if sweep:
                    sweeps.add(sweep.id)
                    held.discard(job.id)
                    until_step = until_step or pause_step(
                        self._home, sweep, job, going=going, held=held
                    )
                try:
                    self._launch(self._home.root, job, until_step=until_step, token=token)
                except (StudioError, OSError) as error:  # the others shall not wait for it
                    write_failure(job, f"The worker could not start: {error}")
                    lanes.discard(lane)
                else:
                    running.append(job.id)
            after = Line(
                waiting=tuple(waiting),
                running=tuple(running),
                sweeps=tuple(sorted(sweeps)),
                held=tuple(sorted(held)),
            )
            if after != line:
                self._save(after)
            for name in self._tokens.keys() - {entry.job for entry in waiting}:
                del self._tokens[name]  # another process took it out of the line

    def line(self) -> Line:
        """Read the whole line.

        Returns:
            Who waits and runs, as of the last `advance`.
        """
        return self._read()

    def edit(self, change: Callable[[Line], Line]) -> None:
        """Change the line in one piece.

        Args:
            change: from the line as it is to the line as it shall be; called under the lock.
        """
        with self._locked() as line:
            self._save(change(line))

    def waiting(self) -> list[str]:
        """List who waits.

        Returns:
            Job ids in the order in which they will start.
        """
        return [entry.job for entry in self._read().waiting]

    def state(self, job: Job) -> QueueState:
        """Say where a job stands, the line included.

        Args:
            job: any job.

        Returns:
            "stopped" also where it was taken out of the line before it began.
        """
        waiting = self.waiting()  # first: who leaves the line between the two reads has begun
        return standing(job, job.status(), waiting)

    def move(self, job: Job, position: int) -> None:
        """Change the order.

        Args:
            job: one that waits.
            position: its new place in the line, 1 for the next to start.

        Raises:
            RunError: it does not wait.
        """
        with self._locked() as line:
            entry = next((entry for entry in line.waiting if entry.job == job.id), None)
            if entry is None:
                raise RunError(
                    "Only a waiting job can change its place", where=job.id, fix="List the jobs"
                )
            others = [other for other in line.waiting if other != entry]
            others.insert(max(0, position - 1), entry)
            self._save(line.model_copy(update={"waiting": tuple(others)}))

    def stop(self, job: Job, *, force: bool = False) -> None:
        """Take a waiting job out of the line, or ask a running one to save and stop.

        Args:
            job: one that waits or runs; any other is left as it is.
            force: end a running one at once, as for one that hangs.
        """
        is_member = sweep_of(self._home, job) is not None
        with self._locked() as line:
            others = tuple(entry for entry in line.waiting if entry.job != job.id)
            held = {*line.held, job.id} if is_member else line.held
            after = line.model_copy(update={"waiting": others, "held": tuple(sorted(held))})
            if after != line:
                self._save(after)
            self._tokens.pop(job.id, None)
        process = job.status().process
        if process is None:
            return
        ask_to_stop(process, force=force)
        if force:
            deadline = time.monotonic() + _END_SECONDS
            while is_alive(process) and time.monotonic() < deadline:
                reap()
                time.sleep(_RETRY_SECONDS)
            job.record_death(on_request=True)

    def resume(self, job: Job, *, until_step: int = 0) -> None:
        """Put a job back into the line: training goes on from its newest sound checkpoint.

        Args:
            job: one that was stopped, interrupted, or failed.
            until_step: pause training there; 0: go on to the end.

        Raises:
            RunError: it waits, runs, or is done.
        """
        read_request(job)  # an old or damaged folder is refused here, not in the worker
        with self._locked() as line:
            state = self.state(job)
            if state in ("queued", "running", "finished"):
                raise RunError(
                    f"The job is already {state}",
                    where=job.id,
                    fix="Duplicate it to run it once more"
                    if state == "finished"
                    else "Wait until it ends",
                )
            with job.lock():  # nobody archives or deletes it just now
                self._append(line, Entry(job=job.id, until_step=until_step))

    def retry(self, job: Job) -> None:
        """Try again what failed or was interrupted.

        Args:
            job: one that has no happy end.

        Raises:
            RunError: it did not fail.
        """
        state = self.state(job)
        if state not in ("failed", "interrupted"):
            raise RunError(
                f"Only a job that failed can be tried again; this one is {state}",
                where=job.id,
                fix="Resume it" if state == "stopped" else "Duplicate it to run it once more",
            )
        self.resume(job)

    def _with_promotions(self, line: Line, running: list[str]) -> Line:
        """Let sweeps go on whose members are all at rest; saved before anything is started."""
        going = {*running, *(entry.job for entry in line.waiting)}
        waiting, sweeps = list(line.waiting), []
        for sweep in line.sweeps:
            entries = next_entries(self._home, sweep, going=going, held=line.held)
            if entries is not None:
                sweeps.append(sweep)
                waiting += [Entry(job=job, until_step=step) for job, step in entries]
        after = line.model_copy(update={"waiting": tuple(waiting), "sweeps": tuple(sweeps)})
        if after != line:
            self._save(after)
        return after

    def _entry(self, job: Job, until_step: int, token: str) -> Entry:
        """Make a job's place in the line, and remember its token."""
        holder = None
        if token:
            self._tokens[job.id] = token
            holder = Holder(**vars(this_process()))
        return Entry(job=job.id, until_step=until_step, token_holder=holder)

    def _append(self, line: Line, entry: Entry) -> None:
        self._save(line.model_copy(update={"waiting": (*line.waiting, entry)}))

    def _waits_for_token(self, entry: Entry) -> bool:
        """Say whether another living process has to start it; a dead one's token is lost."""
        holder = entry.token_holder
        if holder is None or entry.job in self._tokens:
            return False
        return is_alive(Process(holder.pid, holder.started, holder.boot_id))

    def _job(self, name: str) -> Job:
        return self._home.job(name)

    def _key_file(self, key: str) -> Path:
        folder = self._home.root / "keys"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / sha256_of_bytes(key.encode())

    def _known(self, key: str) -> Job | None:
        if not key:
            return None
        with contextlib.suppress(OSError):
            job = self._job(self._key_file(key).read_text(encoding="utf-8"))
            return job if job.folder.is_dir() else None
        return None

    @contextmanager
    def _locked(self) -> Iterator[Line]:
        """Hold the queue's lock; the one thing all processes wait for, and never for long."""
        deadline = time.monotonic() + _LOCK_SECONDS
        with disk_errors(f"the queue in {self._home.root}"):
            file = self._home.lock("queue").open("w")
        with file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise RunError(
                            "Another process has held the queue for a minute",
                            where=str(self._home.root),
                            fix="End the process that hangs, and try again",
                        ) from None
                    time.sleep(_RETRY_SECONDS)
            yield self._read()

    def _read(self) -> Line:
        try:
            content = json.loads(self._path.read_text(encoding="utf-8"))
            return parse(Line, content, where=self._path.name, error=RunError)
        except FileNotFoundError:
            return Line()
        except OSError as error:
            raise RunError(
                f"The line of jobs cannot be read ({error.strerror})",
                where=str(self._path),
                fix="Make the file readable, or delete it: the line is then made anew",
            ) from None
        except (ValueError, RecursionError, StudioError):
            return self._rebuilt()

    def _rebuilt(self) -> Line:
        """Make the line anew where its file is damaged: who never began waits, by age."""
        waiting, running = [], []
        for job in self._home.jobs():
            state = _state(job)
            if state == "new":
                waiting.append(Entry(job=job.id))
            elif state == "running":
                running.append(job.id)
        sweeps = tuple(path.stem for path in self._home.all("sweep"))
        return Line(waiting=tuple(waiting), running=tuple(running), sweeps=sweeps)

    def _save(self, line: Line) -> None:
        write_atomically(self._path, canonical_json(line.model_dump(mode="json")))


def standing(job: Job, status: JobStatus, waiting: Collection[str]) -> QueueState:
    """Say where a job stands, from what was read of folder and line.

    Args:
        job: any job.
        status: what its folder says, read after the line.
        waiting: who waits.

    Returns:
        Its state for people.
    """
    if status.state not in ("running", "finished") and job.id in waiting:
        return "queued"
    return "stopped" if status.state == "new" else status.state


def _names(line: Line) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*line.running, *(entry.job for entry in line.waiting))))


def _state(job: Job) -> JobState | None:
    return job.status().state if job.folder.is_dir() else None


def _lane(job: Job) -> str | None:
    """Name the lane of a job; None where its folder cannot be read."""
    try:
        return lane_of(read_request(job))
    except StudioError:
        return None
