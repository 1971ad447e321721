"""A tuned model as a folder others can load, with what was measured, and perhaps on the Hub."""

import shutil
from pathlib import Path

from engine.events import Noticed
from engine.jobs import Job
from engine.planning.hardware import prepare_process
from engine.publishing import publish as publishing
from engine.publishing.hub_upload import check_repo_id, check_token, upload
from engine.publishing.publication import HubCommit, Publication
from engine.publishing.published_files import list_files
from studio.jobs.context import Context
from studio.jobs.requests import PublishRequest
from studio.publishing_check import (
    published_folder,
    read_publication,
    require_acknowledged,
    what_will_be_uploaded,
)
from studio.records import PUBLICATION, newest_comparison
from studio.work.tuned_run import open_tuned_run
from templates.errors import RunError
from templates.files import write_atomically

_WRITING_RATIO = 0.5  # of the progress, where sending comes after it


def run(request: PublishRequest, context: Context) -> tuple[str, ...]:
    """Write adapter or merged model, card and measurements, check them, and send them on.

    What an earlier attempt has written is used again, and nothing is sent twice.

    Args:
        request: which run, and where to.
        context: where to work, and the token for the Hub.

    Returns:
        The record, and the model where it lies in the job's own folder.
    """
    if request.repo_id:  # before anything slow
        check_repo_id(request.repo_id)
        check_token(context.token)
    job = context.job
    source = Job(context.home.find("publish", request.publication_id or job.id))
    target = published_folder(source)
    publication = _written_before(source)
    if publication is None and request.publication_id:
        raise RunError(
            "The published folder is not there any more as it was written",
            where=source.id,
            fix="Publish the run again",
        )
    if publication is None:
        publication = _write(request, context)
    if request.repo_id:
        hub = _send(request, context, target)
        publication = publication.model_copy(update={"hub": hub})
    write_atomically(job.folder / PUBLICATION, publication.model_dump_json(indent=2))
    return (PUBLICATION, target.name) if target.parent == job.folder else (PUBLICATION,)


def _written_before(job: Job) -> Publication | None:
    """What a publish job has written, if every file is still as it was."""
    publication = read_publication(job)
    folder = published_folder(job)
    if publication is None or not folder.is_dir() or list_files(folder) != publication.files:
        return None
    return publication.model_copy(update={"hub": None})


def _write(request: PublishRequest, context: Context) -> Publication:
    prepare_process()
    context.progress(0.0, "writing and checking the model")
    finished = open_tuned_run(context.home, request.run_id)
    comparison = newest_comparison(context.home, finished.job.id)
    target = published_folder(context.job)
    if not request.to:  # a second attempt begins anew
        shutil.rmtree(target, ignore_errors=True)
    publication = publishing.publish(
        publishing.FinishedRun(
            finished.plan, finished.job.checkpoints, finished.dataset_folder, comparison
        ),
        target,
        form=request.form,
        name=request.name,
        zipped=request.zipped,
    )
    write_atomically(context.job.folder / PUBLICATION, publication.model_dump_json(indent=2))
    return publication


def _send(request: PublishRequest, context: Context, folder: Path) -> HubCommit:
    before = 0.0 if request.publication_id else _WRITING_RATIO
    context.progress(before, "looking for what should stay private")
    require_acknowledged(what_will_be_uploaded(folder), request.acknowledged)
    return upload(
        folder,
        request.repo_id,
        token=context.token,
        private=request.private,
        message=f"Publish {request.name}",
        progress=lambda ratio, words: context.progress(before + (1 - before) * ratio, words),
        notice=lambda words: context.attempt.write(Noticed(words)),
    )
