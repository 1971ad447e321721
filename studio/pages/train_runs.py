"""The runs of a project side by side, and the line in which jobs wait."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from markupsafe import Markup

from engine.job_status import JobStatus
from engine.jobs import Job
from engine.plan import TrainPlan
from studio.home import Home
from studio.jobs.queue import Queue, QueueState, standing
from studio.jobs.requests import DEVICE, lane_of, read_request
from studio.projects import Project
from studio.records import planned
from studio.runs.about import About, read_about
from studio.web.html import badge, join, table
from studio.web.job_view import AT_WORK, TONES
from studio.web.words import duration, figure, moment
from templates.errors import StudioError

MOST_RUNS = 20
_WORK = {
    "prepare": "Preparing data", "train": "Training", "compare": "Comparing",
    "predict": "Answering a table", "publish": "Publishing", "fetch": "Fetching a base",
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """A run of a project, as of now.

    Attributes:
        job: its folder.
        number: in the project, from 1.
        plan: what it trains.
        about: what people call it.
        status: what its folder says.
        state: the line included.
    """

    job: Job
    number: int
    plan: TrainPlan
    about: About
    status: JobStatus
    state: QueueState

    @property
    def id(self) -> str:
        """The job's id."""
        return self.job.id

    @property
    def name(self) -> str:
        """What people call it, or else its number."""
        return self.about.name or f"Run {self.number}"

    @property
    def label(self) -> str:
        """Name, method and state, to choose it by."""
        return f"{self.name} · {method_words(self.plan)} · {self.state}"

    @property
    def is_at_work(self) -> bool:
        """Whether it waits or runs."""
        return self.state in AT_WORK


def runs_of(home: Home, queue: Queue, project: Project) -> list[Run]:
    """Read the runs of a project.

    Args:
        home: the folder behind all steps.
        queue: the line they may stand in.
        project: names them.

    Returns:
        The newest of them, the newest last; those that are gone or cannot be read are left out.
    """
    waiting = queue.waiting()  # before the states: who left the line by then has begun
    runs = []
    for number, name in list(enumerate(project.runs, 1))[-MOST_RUNS:]:
        job = home.job(name)
        with suppress(StudioError, OSError):
            plan, status = _planned(job.folder), job.status()
            state = standing(job, status, waiting)
            runs.append(Run(job, number, plan, read_about(job), status, state))
    return runs


def run_to_show(runs: Sequence[Run], project: Project, chosen: str) -> Run | None:
    """Choose the run that the page is about.

    Args:
        runs: of the project.
        project: knows which one goes on to the next step.
        chosen: id of the one that the person picked; may be empty or of another project.

    Returns:
        That one; else what is at work, what is compared, the newest; None where there is none.
    """
    by_id = {run.id: run for run in runs}
    at_work = (run for state in ("running", "queued") for run in runs if run.state == state)
    return by_id.get(chosen) or next(at_work, by_id.get(project.run)) or next(reversed(runs), None)


def method_words(plan: TrainPlan) -> str:
    """Name a plan's method and the first number among its options.

    Args:
        plan: the plan.

    Returns:
        Such as "lora, rank 8".
    """
    name = plan.method.name.replace("_", " ")
    numbers = (
        f"{option.replace('_', ' ')} {value:,}"
        for option, value in plan.method.options.items()
        if isinstance(value, int) and not isinstance(value, bool)
    )
    return ", ".join((name, *list(numbers)[:1]))


def runs_table(runs: Sequence[Run], best: dict[str, float], compared: str) -> Markup:
    """Show the runs.

    Args:
        runs: at least one, the newest last.
        best: the lowest validation loss of those that were checked.
        compared: id of the one that goes on to the next step.

    Returns:
        A table, the newest first.
    """
    shown = list(reversed(runs))
    rows = [
        (
            join((run.name, badge("goes to compare", "good")), " ")
            if run.id == compared and run.state == "finished"
            else run.name,
            badge(run.state, TONES[run.state]),
            method_words(run.plan),
            figure(best[run.id], 4) if run.id in best else "–",
            f"{run.status.step:,} of {run.status.total_steps:,}" if run.status.total_steps else "–",
            duration(run.status.updated_at - run.status.started_at)
            if run.status.started_at and not run.is_at_work
            else "–",
            moment(run.status.started_at) if run.status.started_at else "–",
            run.about.note,
        )
        for run in shown
    ]
    marked = [
        place for place, run in enumerate(shown) if run.id == compared and run.state == "finished"
    ]
    headings = (
        "run", "state", "method", "best validation loss", "steps", "last attempt", "begun", "note",
    )  # fmt: skip
    return table(headings, rows, caption="Runs of this project", numeric=(3, 4, 5), marked=marked)


def line_view(home: Home, queue: Queue, own: Sequence[str]) -> Markup:
    """Show who computes and who waits, of all projects.

    Args:
        home: the folder behind all steps.
        queue: the line.
        own: ids of the project's jobs.

    Returns:
        A table in the order of the line; nothing where nobody waits for another.
    """
    line = queue.line()
    running = [name for name in line.running if _is_running(home.job(name))]
    places = [("now", name) for name in running]
    places += [(str(place), entry.job) for place, entry in enumerate(line.waiting, 1)]
    if not line.waiting or len(places) < 2:
        return Markup("")
    rows = [
        (
            place,
            _work(home.job(name)),
            read_about(home.job(name)).name or "–",
            badge("this project", "busy") if name in own else "another one",
        )
        for place, name in places
    ]
    headings = ("place", "what", "name", "project")
    return table(headings, rows, caption="The line", show_caption=True)


def num_in_front(home: Home, queue: Queue) -> int:
    """Count the jobs that a new run has to wait for.

    Args:
        home: the folder behind all steps.
        queue: the line.

    Returns:
        How many compute or wait to compute just now.
    """
    line = queue.line()
    names = {*line.running, *(entry.job for entry in line.waiting)}
    return sum(_computes(home.job(name)) for name in names)


def _computes(job: Job) -> bool:
    with suppress(StudioError, OSError):
        if lane_of(read_request(job)) == DEVICE:
            return job.status().state not in ("finished", "failed", "stopped", "interrupted")
    return False


def _is_running(job: Job) -> bool:
    with suppress(StudioError, OSError):
        return job.status().state == "running"
    return False


def _work(job: Job) -> str:
    with suppress(StudioError, OSError):
        words = _WORK[job.kind]
        return f"{words}: {method_words(_planned(job.folder))}" if job.kind == "train" else words
    return "–"


@lru_cache(maxsize=256)
def _planned(folder: Path) -> TrainPlan:
    """Read a plan; a request is written once."""
    return planned(Job(folder))
