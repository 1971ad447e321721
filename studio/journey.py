"""Where a project stands: which of the six steps are open, at work, done, or made stale.

Derived from the files each time and never stored, so that every tab, a reload and the next server
see the same. A step is stale when what it was made from is no longer what is chosen.
"""

from collections.abc import Iterator
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

from data_prep.prepare import RECIPE
from data_prep.recipe import PrepRecipe
from engine.jobs import Job
from engine.plan import TrainPlan, read_plan
from studio.home import Home
from studio.jobs.queue import Queue
from studio.projects import Project
from studio.records import COMPARISON, PUBLICATION, planned, run_id_of
from templates.dataset import Dataset, read_manifest
from templates.errors import DataError, StudioError
from templates.files import sha256_of_bytes
from templates.values import Value, parse

_AT_WORK = ("queued", "running")


class Step(StrEnum):
    """The six steps, in order."""

    UPLOAD = "upload"
    PREPARE = "prepare"
    PLAN = "plan"
    TRAIN = "train"
    COMPARE = "compare"
    PUBLISH = "publish"


STEPS = tuple(Step)


class StepState(StrEnum):
    """What can be said of a step."""

    LOCKED = "locked"
    OPEN = "open"
    WORKING = "working"
    DONE = "done"
    STALE = "stale"


class Journey(Value):
    """The state of each step."""

    upload: StepState
    prepare: StepState
    plan: StepState
    train: StepState
    compare: StepState
    publish: StepState

    def of(self, step: Step) -> StepState:
        """Look a step up.

        Args:
            step: which.

        Returns:
            Its state.
        """
        state: StepState = getattr(self, step.value)
        return state

    @property
    def next_step(self) -> Step:
        """Where to go on: the first step that is not done, or else the last."""
        waiting = (step for step in STEPS if self.of(step) is not StepState.DONE)
        return next(waiting, Step.PUBLISH)


def journey(home: Home, queue: Queue, project: Project) -> Journey:
    """Find out where a project stands.

    Args:
        home: the folder behind all steps.
        queue: the line of jobs.
        project: whose ids are looked up; one whose folder is gone counts as not there.

    Returns:
        The states. Everything behind a stale step is stale too, where it is there at all.
    """
    states = dict(zip(STEPS, _states(home, queue, project), strict=True))
    is_stale = False
    for step in STEPS:
        is_stale = is_stale or states[step] is StepState.STALE
        if is_stale and states[step] is StepState.DONE:
            states[step] = StepState.STALE
    return Journey(**{step.value: state for step, state in states.items()})


def _states(home: Home, queue: Queue, project: Project) -> Iterator[StepState]:
    upload = bool(project.upload) and (home.place("upload") / project.upload).is_dir()
    yield StepState.DONE if upload else StepState.OPEN
    dataset = dataset_of(home, project)
    is_fresh = dataset is not None and _is_dataset_of(home, dataset, project)
    yield _state(
        upload, _is_at_work(home, queue, project.prepare_job), dataset is not None, is_fresh
    )
    plan = plan_of(home, project)
    is_fresh = dataset is not None and plan is not None and plan.dataset_id == dataset.id
    is_fresh = is_fresh and project.planned in ({}, project.to_plan)
    yield _state(dataset is not None, False, plan is not None, is_fresh)
    run = home.existing_job(project.run)
    finished = run is not None and queue.state(run) == "finished"
    at_work = any(_is_at_work(home, queue, name) for name in project.runs)
    is_fresh = run is not None and plan is not None and _is_of_plan(run, plan)
    yield _state(plan is not None, at_work, finished, is_fresh)
    for name, record in ((project.compare_job, COMPARISON), (project.publish_job, PUBLICATION)):
        job = home.existing_job(name)
        is_there = job is not None and (job.folder / record).is_file()
        is_fresh = is_there and job is not None and run_id_of(job) == project.run
        yield _state(finished, _is_at_work(home, queue, name), is_there, is_fresh)


def _state(is_open: bool, at_work: bool, is_there: bool, is_fresh: bool) -> StepState:
    if at_work:
        return StepState.WORKING
    if is_there:
        return StepState.DONE if is_fresh else StepState.STALE
    return StepState.OPEN if is_open else StepState.LOCKED


def dataset_of(home: Home, project: Project) -> Dataset | None:
    """Read what a project prepared last.

    Args:
        home: the folder behind all steps.
        project: names it.

    Returns:
        The manifest; None where nothing is prepared or it is gone.
    """
    if not project.dataset:
        return None
    with suppress(StudioError):
        return read_manifest(home.place("dataset") / project.dataset)
    return None


def plan_of(home: Home, project: Project) -> TrainPlan | None:
    """Read what a project is to train.

    Args:
        home: the folder behind all steps.
        project: names it.

    Returns:
        The plan; None where there is none or it is gone.
    """
    if not project.plan:
        return None
    with suppress(StudioError):
        return read_plan(plan_path(home, project))
    return None


def plan_path(home: Home, project: Project) -> Path:
    """Name the file of a project's plan.

    Args:
        home: the folder behind all steps.
        project: has a plan.

    Returns:
        Its path.
    """
    return home.place("plan") / f"{project.plan}.yaml"


def _is_dataset_of(home: Home, dataset: Dataset, project: Project) -> bool:
    """Say whether preparing again would give the same."""
    if dataset.upload_id != project.upload:
        return False
    if project.recipe is None:
        return True
    from_file = home.place("dataset") / dataset.id / RECIPE
    with suppress(OSError, StudioError):  # a recipe of another version is not this one
        return sha256_of_bytes(from_file.read_bytes()) == _recipe_sha256(project)
    return False


def _recipe_sha256(project: Project) -> str:
    recipe = parse(PrepRecipe, dict(project.recipe or {}), where="recipe", error=DataError)
    return sha256_of_bytes(recipe.to_json().encode())


def _is_at_work(home: Home, queue: Queue, name: str) -> bool:
    job = home.existing_job(name)
    return job is not None and queue.state(job) in _AT_WORK


def _is_of_plan(run: Job, plan: TrainPlan) -> bool:
    with suppress(StudioError):
        return planned(run) == plan
    return False
