"""The wish to train a plan, made the same way by the page, the verb and sweeps."""

from collections.abc import Sequence
from pathlib import Path

from engine.jobs import Job
from engine.plan import TrainPlan, check_dataset
from engine.prompt_sources import source_files
from studio.home import Home
from studio.jobs.requests import Request, Tracker, TrainRequest
from studio.records import kept_estimate
from templates.dataset import read_dataset


def request_to_train(
    home: Home, plan: TrainPlan, *, trackers: Sequence[Tracker] = ()
) -> TrainRequest:
    """Ask for a run of a plan, beside what it was said to cost.

    Args:
        home: where data and estimates are kept.
        plan: what to train.
        trackers: where metrics go too.

    Returns:
        The request, to be put into the line.

    Raises:
        RunError: the data is gone.
        PlanError: the data is not what the plan was made for.
    """
    check_dataset(plan, read_dataset(home.find("dataset", plan.dataset_id)))
    estimate = kept_estimate(home, plan)
    return TrainRequest(
        plan=plan,
        estimated_peak_bytes=estimate.peak_memory_bytes if estimate else 0,
        memory_available_bytes=estimate.memory_available_bytes if estimate else 0,
        trackers=tuple(trackers),
    )


def files_from_runs(home: Home, request: Request) -> dict[str, Path]:
    """Find what a job is to bring along from runs that are done.

    Args:
        home: where jobs are kept.
        request: of any kind.

    Returns:
        Name in the job's folder -> where the file is now; for most jobs nothing.

    Raises:
        PlanError: the plan starts from another run, and none fits.
    """
    if not isinstance(request, TrainRequest):
        return {}
    return source_files(request.plan, [Job(folder) for folder in home.all("train")])
