"""What the compare step is about, read from files: the run, its data, and its comparison."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

from engine.comparing.comparison import Comparison, read_comparison
from engine.jobs import Job
from studio.home import Home
from studio.jobs.progress import RunProgress, read_progress
from studio.jobs.requests import PredictRequest, read_request
from studio.projects import Project
from studio.records import COMPARISON, planned, run_id_of, test_looks_path
from studio.server import Server
from studio.web.job_view import AT_WORK
from templates.dataset import Dataset, count_test_looks, read_manifest
from templates.errors import StudioError
from templates.example import Example, read_examples


@dataclass(frozen=True)
class Subject:
    """The state of the step.

    Attributes:
        run: the train job that is compared.
        dataset: what it was trained on.
        job: the newest compare job of the project, whatever became of it.
        progress: of that job.
        shown: the compare job whose result is shown.
        comparison: that result.
        is_stale: whether it is about another run than the chosen one.
        trouble: why there is nothing to compare; empty: there is.
    """

    run: Job | None = None
    dataset: Dataset | None = None
    job: Job | None = None
    progress: RunProgress | None = None
    shown: Job | None = None
    comparison: Comparison | None = None
    is_stale: bool = False
    trouble: str = ""

    @property
    def is_at_work(self) -> bool:
        """Whether a comparison waits or runs."""
        return self.progress is not None and self.progress.state in AT_WORK

    @property
    def may_go_on(self) -> bool:
        """Whether the newest compare job ended badly and can be tried again as it is."""
        return (
            self.job is not None
            and self.run is not None
            and self.progress is not None
            and self.progress.state in ("failed", "interrupted", "stopped")
            and run_id_of(self.job) == self.run.id
        )


def read_subject(server: Server, project: Project) -> Subject:
    """Read what the step is about.

    Args:
        server: home and line of jobs.
        project: names run and comparison.

    Returns:
        The state; what is gone or damaged is left out.
    """
    run = server.home.existing_job(project.run)
    if run is None:
        return Subject(trouble="No run has been trained yet.")
    state = server.queue.state(run)
    if state != "finished":
        return Subject(trouble=f"The run is {state}. It can be compared once it has finished.")
    dataset = None
    with suppress(StudioError):
        dataset = read_manifest(server.home.place("dataset") / planned(run).dataset_id)
    if dataset is None:
        return Subject(trouble="The data that the run was trained on is gone.")
    job = server.home.existing_job(project.compare_job)
    progress = None
    if job is not None:
        with suppress(StudioError):
            progress = read_progress(server.queue, job)
    for shown in _candidates(server.home, job, run.id):
        with suppress(StudioError):
            comparison = read_comparison(shown.folder / COMPARISON)
            is_stale = comparison.run_id != run.id
            return Subject(run, dataset, job, progress, shown, comparison, is_stale)
    return Subject(run, dataset, job, progress)


def _candidates(home: Home, job: Job | None, run_id: str) -> Iterator[Job]:
    """The project's own comparison first; while a new one is made, the last one of the run."""
    if job is not None and (job.folder / COMPARISON).is_file():
        yield job
        return
    yield from (found for found in compare_jobs(home, run_id) if _has_result(found))


def compare_jobs(home: Home, run_id: str) -> Iterator[Job]:
    """Find the compare jobs of a run.

    Args:
        home: the folder behind all steps.
        run_id: a train job.

    Yields:
        Jobs, the newest first.
    """
    for folder in reversed(home.all("compare")):
        if run_id_of(Job(folder)) == run_id:
            yield Job(folder)


def finished_runs(server: Server, project: Project) -> list[str]:
    """List the runs that can be compared.

    Args:
        server: home and line of jobs.
        project: names the runs.

    Returns:
        Ids, the newest first.
    """
    names = dict.fromkeys((*project.runs, *([project.run] if project.run else [])))
    jobs = [server.home.existing_job(name) for name in reversed(names)]
    return [job.id for job in jobs if job and server.queue.state(job) == "finished"]


def looks_at(home: Home, dataset: Dataset) -> int:
    """Count how often the test rows of a dataset were scored.

    Args:
        home: keeps the ledger.
        dataset: whose test split.

    Returns:
        The number; 0 where the split cannot be read.
    """
    with suppress(StudioError, OSError, ValueError, KeyError):
        folder = home.place("dataset") / dataset.id
        rows = _test_source_rows(folder, dataset.splits["test"].sha256)
        return count_test_looks(test_looks_path(home, dataset), rows)
    return 0


@lru_cache(maxsize=32)
def _test_source_rows(folder: Path, sha256: str) -> frozenset[int]:
    return frozenset(
        row for example in read_examples(folder / "test.jsonl") for row in example.source_rows
    )


def sample_examples(home: Home, dataset: Dataset, most: int = 3) -> list[Example]:
    """Choose test rows to try, of different labels where there are labels.

    Args:
        home: where datasets are.
        dataset: whose test split.
        most: how many.

    Returns:
        Examples; none where the split cannot be read.
    """
    found: dict[object, Example] = {}
    with suppress(StudioError, OSError):
        path = home.place("dataset") / dataset.id / "test.jsonl"
        for number, example in enumerate(islice(read_examples(path), 50)):
            found.setdefault(example.label or number, example)
            if len(found) == most:
                break
    return list(found.values())


def predict_request(job: Job) -> PredictRequest | None:
    """Read what a predict job was asked.

    Args:
        job: the job.

    Returns:
        The request; None where it cannot be read.
    """
    with suppress(StudioError):
        request = read_request(job)
        return request if isinstance(request, PredictRequest) else None
    return None


def _has_result(job: Job) -> bool:
    return (job.folder / COMPARISON).is_file()
