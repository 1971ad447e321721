"""A run that is done, opened for what comes after training."""

from dataclasses import dataclass
from pathlib import Path

from engine.checkpoints import Checkpoint, best_checkpoint
from engine.jobs import Job
from engine.plan import TrainPlan
from studio.home import Home
from studio.records import planned, require_finished


@dataclass(frozen=True)
class TunedRun:
    """What compare, predict and publish start from."""

    job: Job
    plan: TrainPlan
    dataset_folder: Path
    checkpoint: Checkpoint


def open_tuned_run(home: Home, run_id: str) -> TunedRun:
    """Open the weights of a run that is done; others may still change.

    Args:
        home: where jobs and datasets are.
        run_id: a train job.

    Returns:
        The run at its best checkpoint.
    """
    job = Job(home.find("train", run_id))
    require_finished(job)
    plan = planned(job)
    dataset_folder = home.find("dataset", plan.dataset_id)
    return TunedRun(job, plan, dataset_folder, best_checkpoint(job.checkpoints))
