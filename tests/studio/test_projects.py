import threading
from pathlib import Path

import pytest

from studio.home import Home
from studio.projects import Projects
from templates.errors import RunError


@pytest.fixture
def projects(tmp_path: Path) -> Projects:
    return Projects(Home(tmp_path))


def test_a_project_is_there_for_the_next_process(projects: Projects, tmp_path: Path) -> None:
    project = projects.new("  Tickets\nto teams ")

    assert project.name == "Tickets to teams"
    assert Projects(Home(tmp_path)).read(project.id) == project
    assert Projects(Home(tmp_path)).all() == [project]


@pytest.mark.parametrize("name", ["", "   ", "x" * 101, "\u202e"])
def test_a_name_that_cannot_be_shown_is_refused(projects: Projects, name: str) -> None:
    with pytest.raises(RunError, match="name"):
        projects.new(name)


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "project-1", "latest'", "project-*"])
def test_an_id_is_no_path(projects: Projects, name: str) -> None:
    projects.new("one")
    with pytest.raises(RunError, match="no project"):
        projects.read(name)


def test_two_tabs_change_different_things_at_once(projects: Projects) -> None:
    project = projects.new("one")

    def add(run: str) -> None:
        for _ in range(20):
            projects.edit(project.id, lambda now: {"runs": (*now.runs, run)})

    tabs = [threading.Thread(target=add, args=(tab,)) for tab in ("left", "right")]
    for tab in tabs:
        tab.start()
    for tab in tabs:
        tab.join()
    assert len(projects.read(project.id).runs) == 40


def test_undo_goes_back_through_the_recipes(projects: Projects) -> None:
    project = projects.new("one")
    for seed in range(40):
        projects.choose_recipe(project.id, {"seed": seed})
    projects.choose_recipe(project.id, {"seed": 39})  # no change, nothing to undo

    assert projects.undo_recipe(project.id).recipe == {"seed": 38}
    for _ in range(40):
        projects.undo_recipe(project.id)
    assert projects.read(project.id).recipe == {"seed": 9}  # thirty steps back
    assert projects.read(project.id).earlier_recipes == ()


def test_an_unknown_field_or_a_wrong_value_changes_nothing(projects: Projects) -> None:
    project = projects.new("one")
    with pytest.raises(RunError):
        projects.change(project.id, runs="run-1")
    with pytest.raises(RunError):
        projects.change(project.id, colour="red")
    assert projects.read(project.id) == project


def test_a_damaged_project_is_passed_over_and_said(projects: Projects, tmp_path: Path) -> None:
    damaged, sound = projects.new("one"), projects.new("two")
    (tmp_path / "projects" / f"{damaged.id}.json").write_text('{"id": ')

    assert projects.all() == [sound]
    with pytest.raises(RunError, match="cannot be read"):
        projects.read(damaged.id)


def test_a_removed_project_is_gone(projects: Projects) -> None:
    project = projects.new("one")
    projects.remove(project.id)

    assert projects.all() == []
    with pytest.raises(RunError):
        projects.remove(project.id)
