"""A tuned model as a folder others can load, with what was measured."""

import shutil
from pathlib import Path

from engine.planning.hardware import prepare_process
from engine.publishing import publish as publishing
from studio.jobs.context import Context
from studio.jobs.requests import PublishRequest
from studio.records import PUBLICATION, newest_comparison
from studio.work.tuned_run import open_tuned_run
from templates.files import write_atomically

_OWN_FOLDER = "model"


def run(request: PublishRequest, context: Context) -> tuple[str, ...]:
    """Write adapter or merged model, card and measurements, and check what was written.

    Args:
        request: which run, and where to.
        context: where to work.

    Returns:
        The record, and the model where it lies in the job's own folder.
    """
    prepare_process()
    context.progress(0.0, "writing and checking the model")
    finished = open_tuned_run(context.home, request.run_id)
    folder = context.job.folder
    comparison = newest_comparison(context.home, finished.job.id)
    target = Path(request.to) if request.to else folder / _OWN_FOLDER
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
    write_atomically(folder / PUBLICATION, publication.model_dump_json(indent=2))
    return (PUBLICATION,) if request.to else (PUBLICATION, _OWN_FOLDER)
