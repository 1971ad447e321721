"""What the compare step shows, from nothing to a stale comparison."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.jobs import Job
from studio.home import Home
from studio.jobs.requests import CompareRequest
from studio.pages.compare_predict import missing_columns, needed_columns
from studio.pages.compare_subject import (
    compare_jobs,
    finished_runs,
    looks_at,
    read_subject,
    sample_examples,
)
from studio.projects import Project
from studio.records import COMPARISON
from studio.server import Server
from templates.builtin import TEMPLATES
from templates.dataset import read_manifest
from tests.studio.pages.compared import TIMES, compared, trained_project

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, Project, Job]:
    home, project = trained_project(tmp_path_factory.mktemp("compared"))
    return home, project, compared(home, project.run)


@pytest.fixture
def server(made: tuple[Home, Project, Job], tmp_path: Path) -> Iterator[Server]:
    shutil.copytree(made[0].root, tmp_path / "home")
    yield Server(Home(tmp_path / "home"))


@pytest.fixture
def project(made: tuple[Home, Project, Job]) -> Project:
    return made[1]


def changed(project: Project, **changes: object) -> Project:
    return project.model_copy(update=changes)


def test_without_a_finished_run_it_says_why(server: Server, project: Project) -> None:
    assert "No run" in read_subject(server, changed(project, run="")).trouble
    assert "No run" in read_subject(server, changed(project, run="train-gone")).trouble
    waiting = server.queue.submit(CompareRequest(run_id=project.run))
    assert "queued" in read_subject(server, changed(project, run=waiting.id)).trouble


def test_data_that_is_gone_is_said(server: Server, project: Project) -> None:
    shutil.rmtree(server.home.place("dataset") / project.dataset)
    subject = read_subject(server, project)
    assert "data" in subject.trouble and subject.run is None


def test_a_comparison_made_elsewhere_is_found(server: Server, project: Project) -> None:
    subject = read_subject(server, project)
    assert subject.comparison and subject.comparison.run_id == project.run
    assert subject.job is None and not subject.is_stale and not subject.is_at_work


def test_one_of_another_run_is_shown_as_stale(
    server: Server, project: Project, made: tuple[Home, Project, Job]
) -> None:
    other = server.home.job("train-20990101-000000-0000000")
    shutil.copytree(server.home.job(project.run).folder, other.folder)
    newer = changed(project, run=other.id, runs=(project.run, other.id), compare_job=made[2].id)
    subject = read_subject(server, newer)
    assert subject.is_stale and subject.comparison
    assert finished_runs(server, newer) == [other.id, project.run]
    assert list(compare_jobs(server.home, other.id)) == []
    assert [job.id for job in compare_jobs(server.home, project.run)] == [made[2].id]


def test_while_a_new_one_is_made_the_last_one_is_there(server: Server, project: Project) -> None:
    job = server.queue.submit(CompareRequest(run_id=project.run))
    subject = read_subject(server, changed(project, compare_job=job.id))
    assert subject.is_at_work and subject.comparison and subject.shown != subject.job
    server.queue.stop(job)
    subject = read_subject(server, changed(project, compare_job=job.id))
    assert subject.may_go_on and subject.comparison


def test_a_damaged_comparison_is_as_none(
    server: Server, project: Project, made: tuple[Home, Project, Job]
) -> None:
    (server.home.job(made[2].id).folder / COMPARISON).write_text("{")
    subject = read_subject(server, changed(project, compare_job=made[2].id))
    assert subject.comparison is None and subject.run is not None and not subject.trouble


def test_looks_are_counted_and_a_missing_split_is_none(server: Server, project: Project) -> None:
    dataset = read_manifest(server.home.place("dataset") / project.dataset)
    assert looks_at(server.home, dataset) == 1
    other = dataset.model_copy(update={"upload_sha256": "1" * 64})
    assert looks_at(server.home, other) == 0
    assert looks_at(server.home, dataset.model_copy(update={"id": "ds-gone"})) == 0


def test_examples_to_try_have_different_labels(server: Server, project: Project) -> None:
    dataset = read_manifest(server.home.place("dataset") / project.dataset)
    found = sample_examples(server.home, dataset)
    assert {example.label for example in found} == {"billing", "shipping", "returns"}
    assert dataset.splits["test"].rows == 8 * TIMES
    assert sample_examples(server.home, dataset.model_copy(update={"id": "ds-gone"})) == []


def test_a_new_table_needs_the_inputs_only(server: Server, project: Project) -> None:
    dataset = read_manifest(server.home.place("dataset") / project.dataset)
    assert needed_columns(dataset) == ["text"]
    assert missing_columns(dataset, ["team", "Text"]) == ["text"]
    assert missing_columns(dataset, ["other", "text"]) == []
    chat = {"template": TEMPLATES["chat"], "columns": {"turns": "messages"}}
    assert needed_columns(dataset.model_copy(update=chat)) == ["messages"]
