"""What the publish step is about, from files: the run, what was written of it, what was sent."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from engine.comparing.comparison import Comparison
from engine.jobs import Job
from engine.plan import TrainPlan
from engine.publishing.publication import RECORD, Form, HubCommit, Publication, RunRecord
from studio.home import Home
from studio.jobs.progress import RunProgress, read_progress
from studio.jobs.requests import PublishRequest, read_request
from studio.projects import Project
from studio.publishing_check import (
    Outgoing,
    published_folder,
    read_publication,
    what_will_be_uploaded,
)
from studio.records import newest_comparison, planned
from studio.server import Server
from studio.web.job_view import AT_WORK
from templates.errors import RunError, StudioError

_BAD_ENDS = ("failed", "interrupted", "stopped")


@dataclass(frozen=True)
class Attempt:
    """A publish job and how it goes.

    Attributes:
        job: its folder.
        request: what it was asked to do.
        progress: where it stands.
    """

    job: Job
    request: PublishRequest
    progress: RunProgress

    @property
    def is_at_work(self) -> bool:
        """Whether it waits or runs."""
        return self.progress.state in AT_WORK

    @property
    def has_bad_end(self) -> bool:
        """Whether it was stopped or failed."""
        return self.progress.state in _BAD_ENDS


@dataclass(frozen=True)
class Written:
    """A published folder that lies on this machine.

    Attributes:
        job: who wrote it.
        title: that was asked for.
        folder: where it is.
        publication: its files, and the proof that they compute what was measured.
        record: what is published, as data.
        outgoing: what a person looks at before it leaves.
    """

    job: Job
    title: str
    folder: Path
    publication: Publication
    record: RunRecord
    outgoing: Outgoing


@dataclass(frozen=True)
class Subject:
    """The state of the step.

    Attributes:
        run: the train job that is published.
        plan: of the run.
        comparison: the newest one of the run.
        writing: the newest attempt at writing the chosen form, whatever became of it.
        written: the newest folder of the chosen form.
        sending: the newest attempt at sending that folder to the Hub.
        sent: where that folder is on the Hub.
        trouble: why there is nothing to publish; empty: there is.
    """

    run: Job | None = None
    plan: TrainPlan | None = None
    comparison: Comparison | None = None
    writing: Attempt | None = None
    written: Written | None = None
    sending: Attempt | None = None
    sent: HubCommit | None = None
    trouble: str = ""

    @property
    def is_writing(self) -> bool:
        """Whether a folder of the chosen form is being written."""
        return self.writing is not None and self.writing.is_at_work

    @property
    def is_sending(self) -> bool:
        """Whether the folder is on its way to the Hub."""
        return self.sending is not None and self.sending.is_at_work

    @property
    def is_old(self) -> bool:
        """Whether a comparison was made that the written card does not tell of."""
        return (
            self.written is not None
            and self.comparison is not None
            and not _is_told(self.comparison, self.written.record.comparison)
        )


def read_subject(server: Server, project: Project, form: Form | None = None) -> Subject:
    """Read what the step is about.

    Args:
        server: home and line of jobs.
        project: names the run.
        form: which is looked at; None: whichever was written last.

    Returns:
        The state; what is gone or damaged is left out.
    """
    home = server.home
    run = home.existing_job(project.run)
    if run is None:
        return Subject(trouble="No run has been trained yet.")
    state = server.queue.state(run)
    if state != "finished":
        return Subject(trouble=f"The run is {state}. It can be published once it has finished.")
    try:
        plan = planned(run)
    except StudioError as error:
        return Subject(trouble=f"{error.what}.")
    comparison = None
    with suppress(StudioError, OSError):
        comparison = newest_comparison(home, run.id)
    jobs = list(publish_jobs(home, run.id))
    writers = [
        (job, request) for job, request in jobs
        if not request.publication_id and form in (None, _form_of(job, request))
    ]  # fmt: skip
    written = next(filter(None, (_written(job, request) for job, request in writers)), None)
    senders = [
        (job, request) for job, request in jobs
        if written and request.repo_id and written.job.id in (job.id, request.publication_id)
    ]  # fmt: skip
    return Subject(
        run=run,
        plan=plan,
        comparison=comparison,
        writing=_newest(server, writers),
        written=written,
        sending=_newest(server, senders),
        sent=next(filter(None, (_hub_commit(job) for job, _ in senders)), None),
    )


def publish_jobs(home: Home, run_id: str) -> Iterator[tuple[Job, PublishRequest]]:
    """Find the publish jobs of a run that keep what they write in their own folder.

    Args:
        home: the folder behind all steps.
        run_id: a train job.

    Yields:
        Jobs and what they were asked to do, the newest first.
    """
    for folder in reversed(home.all("publish")):
        with suppress(StudioError):
            request = _request(folder)
            if request.run_id == run_id and not request.to:
                yield Job(folder), request


def made_forms(home: Home, run_id: str) -> dict[Form, Publication]:
    """Find which forms of a run were written.

    Args:
        home: the folder behind all steps.
        run_id: a train job.

    Returns:
        The newest publication of each form, of those whose folder is still there.
    """
    made: dict[Form, Publication] = {}
    for job, request in publish_jobs(home, run_id):
        publication = None if request.publication_id else _publication(job)
        if publication is not None and published_folder(job).is_dir():
            made.setdefault(publication.form, publication)
    return made


def choose(server: Server, project: Project, **changes: Any) -> Project:
    """Keep what is chosen on the page.

    Args:
        server: keeps the projects.
        project: whose choices.
        **changes: fields of `PublishChoices`.

    Returns:
        The project as it is now.
    """
    return server.projects.edit(
        project.id,
        lambda now: {"publishing": {**now.publishing.model_dump(mode="json"), **changes}},
    )


def _newest(server: Server, jobs: list[tuple[Job, PublishRequest]]) -> Attempt | None:
    for job, request in jobs:
        with suppress(StudioError):
            return Attempt(job, request, read_progress(server.queue, job))
    return None


@lru_cache(maxsize=512)
def _request(folder: Path) -> PublishRequest:
    """Read what a publish job was asked to do; a request is written once."""
    request = read_request(Job(folder))
    if not isinstance(request, PublishRequest):
        raise RunError("This is no publication", where=folder.name, fix="Publish the run again")
    return request


def _form_of(job: Job, request: PublishRequest) -> Form | None:
    publication = _publication(job)
    return publication.form if publication else request.form


def _publication(job: Job) -> Publication | None:
    with suppress(StudioError, OSError, ValueError):
        return read_publication(job)
    return None


def _hub_commit(job: Job) -> HubCommit | None:
    publication = _publication(job)
    return publication.hub if publication else None


def _written(job: Job, request: PublishRequest) -> Written | None:
    publication = _publication(job)
    if publication is None:
        return None
    with suppress(StudioError, OSError, ValueError, RecursionError):
        folder = published_folder(job)
        stamps = tuple((folder / file.name).stat().st_mtime_ns for file in publication.files)
        record, outgoing = _looked_through(folder, publication, stamps)
        return Written(job, request.name, folder, publication, record, outgoing)
    return None


@lru_cache(maxsize=32)
def _looked_through(
    folder: Path, publication: Publication, stamps: tuple[int, ...]
) -> tuple[RunRecord, Outgoing]:
    """Look through the texts of a folder; again only where a file was changed."""
    record = RunRecord.model_validate_json((folder / RECORD).read_bytes())
    return record, what_will_be_uploaded(folder, publication.files)


def _is_told(comparison: Comparison, told: Comparison | None) -> bool:
    return told is not None and told.primary == comparison.primary and told.arms == comparison.arms
