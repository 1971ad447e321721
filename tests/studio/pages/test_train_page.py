"""Starting, watching, stopping and choosing runs: at the desk behind the page, and on it."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from engine.jobs import Job
from engine.plan import TrainPlan, write_plan
from studio.home import Home
from studio.jobs.queue import Queue
from studio.jobs.requests import CompareRequest
from studio.pages.train_desk import Desk
from studio.pages.train_runs import line_view, num_in_front, run_to_show, runs_of, runs_table
from studio.projects import Project, Projects
from studio.server import Server
from templates.errors import PlanError, RunError
from tests.studio.jobs.running import end_workers, long_plan, prepare_home
from tests.studio.jobs.running import plan_of as small_plan
from tests.studio.pages.browsing import open_studio, visit

pytestmark = [pytest.mark.slow, pytest.mark.step]
_NAUGHTY = "<img src=x onerror=alert(1)> first"
expect.set_options(timeout=20_000)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    home = prepare_home(tmp_path_factory.mktemp("train-page"))
    yield home
    end_workers(home)


def new_project(home: Home, plan: TrainPlan | None) -> Project:
    projects = Projects(home)
    project = projects.new("Tickets")
    dataset = home.find("dataset", "latest").name
    projects.change(project.id, upload=home.find("upload", "latest").name, dataset=dataset)
    return choose(home, project, plan) if plan else projects.read(project.id)


def choose(home: Home, project: Project, plan: TrainPlan) -> Project:
    path = home.new("plan")
    (home.place("plan") / f"{path.name}.yaml").write_text(write_plan(plan), encoding="utf-8")
    return Projects(home).change(project.id, plan=path.name)


@pytest.fixture
def desk(home: Home) -> Iterator[Desk]:
    yield Desk(Server(home))
    (home.root / "queue.json").unlink(missing_ok=True)


def test_starting_in_many_tabs_at_once_gives_one_run(home: Home, desk: Desk) -> None:
    project = new_project(home, small_plan(home))
    found: list[str] = []
    tabs = [
        threading.Thread(target=lambda: found.append(desk.start(project))) for _ in range(5)
    ]  # fmt: skip
    for tab in tabs:
        tab.start()
    for tab in tabs:
        tab.join()

    assert len(set(found)) == 1
    now = desk.server.projects.read(project.id)
    assert (now.runs, now.run) == ((found[0],), found[0])
    assert desk.server.queue.waiting() == [found[0]]


def test_once_more_is_a_new_run_only_when_none_is_at_work(home: Home, desk: Desk) -> None:
    project = new_project(home, small_plan(home))
    first = desk.start(project)
    run = desk.look(desk.server.projects.read(project.id)).runs[0]

    assert desk.start_again(desk.server.projects.read(project.id), run) == first
    desk.stop(run)  # out of the line
    assert desk.look(desk.server.projects.read(project.id)).runs[0].state == "stopped"
    second = desk.start_again(desk.server.projects.read(project.id), run)
    assert second != first
    assert desk.server.projects.read(project.id).runs == (first, second)


def test_what_cannot_be_trained_is_a_sentence(home: Home, desk: Desk) -> None:
    with pytest.raises(PlanError, match="no plan yet"):
        desk.start(new_project(home, None))
    plan = small_plan(home)
    changed = plan.model_copy(update={"dataset_sha256": "0" * 64})
    with pytest.raises(PlanError, match="data changed"):
        desk.start(new_project(home, changed))
    gone = plan.model_copy(update={"dataset_id": "ds-gone"})
    with pytest.raises(RunError, match="ds-gone"):
        desk.start(new_project(home, gone))
    assert desk.server.queue.waiting() == []


def test_runs_that_are_gone_are_left_out_and_a_strange_choice_is_ignored(
    home: Home, desk: Desk
) -> None:
    project = new_project(home, small_plan(home))
    run = desk.start(project)
    project = desk.server.projects.change(project.id, runs=("train-gone", run, "../../etc"))

    runs = runs_of(home, desk.server.queue, project)
    assert [(other.id, other.number) for other in runs] == [(run, 2)]
    shown = run_to_show(runs, project, "train-of-another-project")
    assert shown is not None
    assert shown.id == run
    assert run_to_show([], project, run) is None
    assert "Run 2" in runs_table(runs, {}, run)


def test_the_line_shows_who_is_in_front(home: Home, desk: Desk) -> None:
    other = desk.server.queue.submit(CompareRequest(run_id="train-x"))
    assert num_in_front(home, desk.server.queue) == 1
    assert line_view(home, desk.server.queue, ()) == ""  # nobody waits for another
    run = desk.start(new_project(home, small_plan(home)))

    view = line_view(home, desk.server.queue, (run,))
    assert view.index("Comparing") < view.index("Training: lora, rank 4")
    assert view.index("another one") < view.index("this project")
    desk.server.queue.stop(other)
    assert num_in_front(home, desk.server.queue) == 1


@pytest.fixture(scope="module")
def address(home: Home) -> Iterator[str]:
    (home.root / "queue.json").unlink(missing_ok=True)
    with open_studio(home.root) as studio:
        yield studio.address


def open_step(page: Page, address: str, project: Project) -> None:
    page.goto(f"{address.partition('/?')[0]}/?project={project.id}&step=train")


def test_a_run_is_started_watched_stopped_and_chosen(
    home: Home, browser: Browser, address: str
) -> None:
    project = new_project(home, small_plan(home))
    others = {path.name for path in home.all("train")}
    with visit(browser, address) as (page, seen):
        open_step(page, address, project)
        expect(page.get_by_text("Nothing has been trained yet")).to_be_visible()
        page.get_by_role("button", name="Start training").dblclick()
        expect(page.get_by_text("is trained. Next: compare")).to_be_visible(timeout=60_000)
        expect(page.get_by_role("button", name="Next: compare")).to_be_visible()
        expect(page.get_by_role("img", name="Loss. Training")).to_be_visible()
        expect(page.get_by_text("Before training").first).to_be_visible()
        expect(page.get_by_role("log")).to_contain_text("Checked on validation rows")
        assert not page.title().startswith("…")
        (first,) = {path.name for path in home.all("train")} - others
        assert Projects(home).read(project.id).runs == (first,)
        assert home.job(first).status().state == "finished"

        page.get_by_text("Name and note of this run").click()
        page.get_by_role("textbox", name="Name").fill(_NAUGHTY)
        page.get_by_role("button", name="Save name and note").click()
        expect(page.get_by_role("rowheader", name=_NAUGHTY)).to_be_visible()
        about = json.loads((home.job(first).folder / "about.json").read_text())
        assert about["name"] == _NAUGHTY

        choose(home, project, long_plan(home))
        page.reload()
        expect(page.get_by_text("This plan is newer than your last run")).to_be_visible()
        page.get_by_role("button", name="Start training").click()
        expect(page.get_by_text("Time left")).to_be_visible(timeout=30_000)
        assert page.title().startswith("…")
        page.reload()  # nothing is lost
        expect(page.get_by_text("Time left")).to_be_visible()
        second = home.job(Projects(home).read(project.id).runs[1])
        page.get_by_role("button", name="Stop and save").click()
        expect(page.get_by_role("button", name="Go on where it stopped")).to_be_visible()
        assert second.status().state == "stopped"
        saved = second.status().step
        assert saved > 0

        page.get_by_role("button", name="Go on where it stopped").click()
        expect(page.get_by_role("log")).to_contain_text("goes on with step", timeout=30_000)
        page.get_by_role("button", name="Stop and save").click()
        expect(page.get_by_role("button", name="Go on where it stopped")).to_be_visible()
        assert steps_again(second, saved) == saved + 1

        page.get_by_role("combobox", name="Run").click()
        page.get_by_role("option", name="first").click()
        page.get_by_role("button", name="to compare").click()
        expect(page.get_by_text("goes on to compare and publish")).to_be_visible()
        assert Projects(home).read(project.id).run == first
        page.get_by_role("button", name="Next: compare").click()
        page.wait_for_url("**step=compare**")
        seen.must_be_clean()


def steps_again(job: Job, saved: int) -> int:
    """The first step of the newest attempt."""
    newest = list(job.attempt_events().values())[-1].read_text(encoding="utf-8")
    started = [json.loads(line) for line in newest.splitlines() if '"Started"' in line]
    return int(started[0]["first_step"])


def test_a_failed_run_tells_the_fix_first(home: Home, browser: Browser, address: str) -> None:
    project = new_project(home, small_plan(home))
    plan = small_plan(home).model_copy(update={"seed": 7})
    lost = plan.model_copy(
        update={"base": plan.base.model_copy(update={"id": str(Path(home.root) / "no-such-base")})}
    )
    project = choose(home, project, lost)
    with visit(browser, address, width=390, height=800, theme="dark") as (page, seen):
        open_step(page, address, project)
        page.get_by_role("button", name="Start training").click()
        expect(page.get_by_role("button", name="Try again")).to_be_visible(timeout=30_000)
        status = Queue(home).state(home.job(Projects(home).read(project.id).runs[0]))
        assert status == "failed"
        expect(page.get_by_role("alert").filter(has_text="no-such-base").first).to_be_visible()
        assert "Traceback" not in page.inner_text("body")
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 390
        seen.must_be_clean()
