"""A plan, run; the trainer's events go to the job's folder and to the trackers."""

from contextlib import closing

from engine.events import Noticed
from engine.planning.hardware import prepare_process
from engine.prompt_sources import copied_sources
from engine.runs import assemble
from engine.sampling import Sampler, open_sampler
from engine.trainer import Training, train
from studio.jobs.context import Context
from studio.jobs.requests import TrainRequest
from studio.jobs.trackers import open_trackers
from templates.errors import StudioError


def run(request: TrainRequest, context: Context) -> None:
    """Train, or go on from the newest sound checkpoint.

    Args:
        request: the plan and its trackers.
        context: where to work; stops after the step, saved.
    """
    prepare_process()
    plan, job = request.plan, context.job
    trackers = open_trackers(job.folder, context.home.root, request.trackers, run_id=job.id)
    with closing(trackers):
        context.progress(0.0, "loading the base")
        dataset = context.home.find("dataset", plan.dataset_id)
        sources = copied_sources(job.folder)
        training = assemble(plan, dataset, job.checkpoints, sources)
        training = training.with_less_at_once(job.num_memory_kills())
        sampler = _sampler(request, training, context)
        num_noticed = 0
        with context.stop.deferred():
            for event in train(
                training,
                should_stop=context.stop.asked,
                pause_at_step=context.until_step,
                sampler=sampler,
            ):
                trackers.write(event)
                for notice in trackers.notices()[num_noticed:]:
                    context.attempt.write(Noticed(notice))
                    num_noticed += 1
                context.attempt.write(event)


def _sampler(request: TrainRequest, training: Training, context: Context) -> Sampler | None:
    """Prepare what is only shown: where that cannot be, the training goes on without."""
    folder = context.home.find("dataset", request.plan.dataset_id)
    try:
        return open_sampler(training.language_model, folder, request.num_samples)
    except StudioError as error:
        context.attempt.write(Noticed(f"No answers are shown during training: {error}"))
        return None
