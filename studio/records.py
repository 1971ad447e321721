"""What steps leave for later ones: read here, free of torch, so that pages and verbs may."""

from contextlib import suppress
from pathlib import Path

from pydantic import Field

from engine.comparing.comparison import Comparison, read_comparison
from engine.events import Finished
from engine.jobs import Job
from engine.plan import TrainPlan
from engine.planning.estimate import CostEstimate
from engine.planning.shown import LengthReport, PreviewItem
from studio.home import Home
from templates.dataset import Dataset
from templates.errors import PlanError, RunError, StudioError
from templates.files import disk_errors, write_atomically
from templates.values import Value, parse

COMPARISON = "comparison.json"
PREDICTIONS = "predictions.jsonl"
PUBLICATION = "publication.json"
PREDICTED = "predicted.json"
PREPARED = "prepared.json"
FETCHED = "fetched.json"
DOWNLOADED = "downloaded.json"


class Prepared(Value):
    """What a prepare job delivers beside the dataset itself."""

    dataset_id: str
    lengths: LengthReport
    preview: tuple[PreviewItem, ...] = Field(description="First training examples as read.")


class Downloaded(Value):
    """Which table of the Hub a download job brought."""

    name: str = Field(description="What to call it; its ending tells the format.")
    data_set: str
    configuration: str
    split: str
    revision: str


class Predicted(Value):
    """What was answered."""

    rows: int
    cut: int = Field(description="Rows whose start was cut to fit the context.")
    file: str


def planned(job: Job) -> TrainPlan:
    """Read the plan of a train job.

    Args:
        job: its folder.

    Returns:
        The plan.
    """
    return parse(TrainPlan, job.request("train")["plan"], where=job.id, error=PlanError)


def run_id_of(job: Job) -> str:
    """Say which run a job is about.

    Args:
        job: that compares, predicts or publishes.

    Returns:
        The id of the train job; empty where that cannot be read.
    """
    with suppress(StudioError):
        return str(job.request(job.kind).get("run_id", ""))
    return ""


def require_finished(job: Job) -> None:
    """Refuse a run whose weights may still change.

    Args:
        job: a train job.

    Raises:
        RunError: it has not finished.
    """
    state = job.status().state
    if state == "finished":
        return
    resume = f"Finish it first: python app.py train --resume {job.id}"
    what, fix = {
        "new": ("The run has not begun", "Wait for its turn, or name another run"),
        "running": ("The run is not done", "Wait until it ends, or name another run"),
        "failed": ("The run failed", f"See why: python app.py jobs show {job.id}; or name another"),
    }.get(state, (f"The run was {state} before its end", resume))
    raise RunError(what, where=job.id, fix=fix)


def test_looks_path(home: Home, dataset: Dataset) -> Path:
    """Name the file that remembers who looked at which test rows, for `templates.dataset`.

    Args:
        home: where it is kept.
        dataset: whose rows; all datasets of one upload share the file.

    Returns:
        Its path, whether it exists or not.
    """
    return home.root / "test_looks" / f"{dataset.upload_sha256}.jsonl"


def newest_comparison(home: Home, run_id: str) -> Comparison | None:
    """Find the newest finished comparison of a run.

    Args:
        home: where jobs are kept.
        run_id: the train job.

    Returns:
        The comparison, or None.
    """
    for folder in reversed(home.all("compare")):
        if not (folder / COMPARISON).is_file():
            continue  # never finished
        comparison = read_comparison(folder / COMPARISON)
        if comparison.run_id == run_id:
            return comparison
    return None


def read_prepared(job: Job) -> Prepared:
    """Read what a finished prepare job delivered.

    Args:
        job: its folder.

    Returns:
        Which dataset, and the preview.
    """
    return Prepared.model_validate_json((job.folder / PREPARED).read_text(encoding="utf-8"))


def keep_estimate(home: Home, plan: TrainPlan, estimate: CostEstimate) -> None:
    """Remember what a plan was said to cost, so that the run can be held against it.

    Args:
        home: where plans are kept.
        plan: names the estimate by its digest, wherever its file goes.
        estimate: what was said.
    """
    folder = home.place("plan") / "estimates"
    with disk_errors("the estimate"):
        folder.mkdir(exist_ok=True)
    write_atomically(folder / f"{plan.digest}.json", estimate.model_dump_json(indent=2))


def kept_estimate(home: Home, plan: TrainPlan) -> CostEstimate | None:
    """Look up what a plan was said to cost.

    Args:
        home: where plans are kept.
        plan: the plan.

    Returns:
        The estimate; None where nobody made one in this home.
    """
    path = home.place("plan") / "estimates" / f"{plan.digest}.json"
    try:
        return CostEstimate.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def finished_sentence(job: Job) -> str:
    """Say how a run ended.

    Args:
        job: a finished train job.

    Returns:
        Steps, time, memory and loss.
    """
    last = next(event for event in reversed(job.events()) if isinstance(event, Finished))
    return (
        f"{last.reason.capitalize()}: {last.step} steps in {last.seconds:.0f} s, peak memory "
        f"{last.peak_memory_bytes / 2**20:.0f} MiB, best validation loss "
        f"{last.best_loss:.4f} at step {last.best_step}."
    )
