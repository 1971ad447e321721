"""How far a project is, read from real uploads, datasets, plans and runs."""

from collections.abc import Iterator
from json import loads
from pathlib import Path

import pytest

from engine.plan import write_plan
from studio.home import Home
from studio.jobs.queue import Queue
from studio.jobs.requests import TrainRequest
from studio.journey import STEPS, Step, journey
from studio.projects import Project, Projects
from tests.studio.jobs.running import (
    copy_home,
    end_workers,
    plan_of,
    prepare_home,
    start,
    working_here,
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    home = prepare_home(tmp_path_factory.mktemp("prepared"))
    yield home
    end_workers(home)


@pytest.fixture
def home(prepared: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    copy = copy_home(prepared, tmp_path)
    monkeypatch.setenv("STUDIO_HOME", str(copy.root))
    return copy


def states(home: Home, project: Project) -> str:
    """One letter a step."""
    found = journey(home, Queue(home), project)
    return "".join(found.of(step).value[0] for step in STEPS)


def test_steps_open_one_after_the_other(home: Home) -> None:
    projects = Projects(home)
    project = projects.new("tickets")
    assert states(home, project) == "olllll"

    upload = home.find("upload", "latest").name
    project = projects.change(project.id, upload=upload)
    assert states(home, project) == "dollll"

    dataset = home.find("dataset", "latest").name
    project = projects.change(project.id, dataset=dataset)
    assert states(home, project) == "ddolll"

    project = projects.change(project.id, plan=home.find("plan", "latest").stem)
    assert states(home, project) == "dddoll"
    assert journey(home, Queue(home), project).next_step is Step.TRAIN

    job = Queue(home).submit(TrainRequest(plan=plan_of(home)))
    project = projects.change(project.id, runs=[job.id], run=job.id)
    assert states(home, project) == "dddwll"


def test_another_recipe_makes_what_was_prepared_stale(home: Home) -> None:
    projects = Projects(home)
    dataset = home.find("dataset", "latest")
    recipe = (dataset / "recipe.json").read_text()
    project = projects.new("tickets")
    projects.change(
        project.id, upload=home.find("upload", "latest").name, dataset=dataset.name,
        plan=home.find("plan", "latest").stem,
    )  # fmt: skip
    project = projects.choose_recipe(project.id, loads(recipe))
    assert states(home, project) == "dddoll"
    project = projects.choose_recipe(project.id, {**loads(recipe), "seed": 7})
    assert states(home, project) == "dssoll"
    assert states(home, projects.undo_recipe(project.id)) == "dddoll"


def test_another_table_or_a_plan_of_other_data_is_stale(home: Home) -> None:
    projects = Projects(home)
    project = projects.new("tickets")
    upload = home.find("upload", "latest")
    other = upload.with_name("up-20260101-000000-000aaaa")
    upload.rename(other)
    project = projects.change(
        project.id, upload=other.name, dataset=home.find("dataset", "latest").name
    )
    assert states(home, project)[:2] == "ds"


def test_what_is_gone_is_as_if_it_never_was(home: Home) -> None:
    project = Projects(home).new("tickets")
    gone = project.model_copy(
        update={
            "upload": "up-1", "dataset": "ds-1", "plan": "plan-1", "runs": ("train-1",),
            "run": "train-1", "compare_job": "compare-1", "publish_job": "publish-1",
            "prepare_job": "prepare-1",
        }
    )  # fmt: skip
    assert states(home, gone) == "olllll"


def test_a_finished_run_opens_compare_and_another_plan_makes_it_stale(home: Home) -> None:
    projects = Projects(home)
    plan = plan_of(home, epochs=0.2)
    path = home.place("plan") / "plan-20260101-000000-000aaaa.yaml"
    path.write_text(write_plan(plan))
    with working_here():
        job = start(home, plan)
    project = projects.change(
        projects.new("tickets").id, upload=home.find("upload", "latest").name,
        dataset=home.find("dataset", "latest").name, plan=path.stem, runs=[job.id], run=job.id,
    )  # fmt: skip
    assert states(home, project) == "ddddoo"

    path.write_text(write_plan(plan_of(home, epochs=2)))
    assert states(home, project) == "dddsoo"
    (job.folder / "request.json").unlink()
    assert states(home, project)[:3] == "ddd"  # a damaged run is no reason to show nothing
