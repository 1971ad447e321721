"""Runs a job for a verb: submits it, shows how it goes, and turns its end into a result."""

from collections.abc import Mapping
from pathlib import Path

import typer

from engine.events import Degraded, Evaluated, Noticed, Progressed, Stamped, Started, Stepped
from engine.job_status import JobStatus
from engine.jobs import Job
from studio.home import Home
from studio.jobs.follow import follow
from studio.jobs.launcher import LOG
from studio.jobs.queue import Queue
from studio.jobs.requests import FetchRequest, Request, kind_of
from studio.screen import Tick, err, progress, say
from studio.settings import hub_token
from templates.errors import RunError

_TITLES = {
    "prepare": "Preparing",
    "train": "Training",
    "compare": "Comparing",
    "predict": "Predicting",
    "publish": "Publishing",
    "fetch": "Fetching",
    "download": "Downloading",
}


def do(
    home: Home,
    request: Request,
    *,
    key: str = "",
    files: Mapping[str, Path] | None = None,
    token: str = "",
) -> Job:
    """Submit a job and wait for its happy end.

    Args:
        home: the folder behind all steps.
        request: what to do.
        key: a second submission with the same key gives the same job.
        files: copied into the job's folder.
        token: for the Hub.

    Returns:
        The finished job.

    Raises:
        RunError: it failed or was killed.
        Exit: it was stopped.
    """
    queue = Queue(home)
    job = queue.submit(request, key=key, files=files, token=token)
    status = watch(queue, job, title=_TITLES[kind_of(request)])
    if status.state != "finished":
        err.print(f"Stopped. Start again with: python app.py jobs resume {job.id}")
        raise typer.Exit(130)
    return job


def fetched(home: Home, base: str, revision: str = "") -> str:
    """Bring a base from the Hub, if it is there: workers do not reach the network.

    Args:
        home: the folder behind all steps.
        base: "starter", a folder, or a Hub id.
        revision: Hub branch, tag or commit.

    Returns:
        How later steps find it wherever they run: a folder by its whole path.
    """
    if base == "starter":
        return base
    folder = Path(base).expanduser()
    if folder.is_dir():
        return str(folder.absolute())
    do(home, FetchRequest(base=base, revision=revision), token=hub_token())
    return base


def watch(queue: Queue, job: Job, *, title: str, quiet: bool = False) -> JobStatus:
    """Show a job until it ends.

    Args:
        queue: where it waits.
        job: the job.
        title: before the bar.
        quiet: whether to say nothing beside the bar.

    Returns:
        Its status: finished or stopped.

    Raises:
        RunError: it failed, or its process was killed.
    """
    with progress(title) as tick:
        bar = _Bar(tick, quiet)
        status = follow(queue, job, show=bar.show, show_place=bar.show_place)
    if status.state in ("failed", "interrupted"):
        raise RunError(status.what, where=status.where or job.id, fix=status.fix)
    if status.state == "new" and (job.folder / LOG).exists():  # launched, and never heard of
        raise RunError("The work could not begin", where=job.id, fix=f"Look into {LOG} there")
    return status


class _Bar:
    """Puts events on a progress bar."""

    def __init__(self, tick: Tick, quiet: bool) -> None:
        self._tick, self._quiet = tick, quiet
        self._total_steps, self._validation = 1, ""

    def show_place(self, place: int) -> None:
        self._tick(0.0, f"waiting, place {place} in the line")

    def show(self, stamped: Stamped) -> None:
        event = stamped.event
        if isinstance(event, Progressed):
            self._tick(event.done_ratio, event.words)
        elif isinstance(event, Started):
            self._total_steps = event.total_steps
            for notice in event.notices:
                self._note(notice)
        elif isinstance(event, Noticed):
            self._note(event.words)
        elif isinstance(event, Degraded):
            self._note(f"{event.num_lost} events were not written: {event.reason}.")
        elif isinstance(event, Evaluated):
            self._validation = f"  validation {event.loss:.3f}"
        elif isinstance(event, Stepped):
            words = f"step {event.step}/{self._total_steps}  loss {event.loss:.3f}"
            self._tick(event.step / self._total_steps, words + self._validation)

    def _note(self, text: str) -> None:
        if not self._quiet:
            say(f"Note: {text}")
