"""What was written and sent, read from files; and the step in a real browser with a real Hub."""

import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from engine.jobs import Job
from engine.publishing.publication import RECORD
from studio.home import Home
from studio.jobs.requests import PublishRequest
from studio.jobs.stopping import StopRequest
from studio.jobs.worker import work_on
from studio.pages.publish_subject import Subject, choose, made_forms, read_subject
from studio.projects import Project, Projects
from studio.publishing_check import published_folder
from studio.server import Server
from templates.errors import StudioError
from tests.hub_server import WRITE_TOKEN, Hub, serve_publish_hub
from tests.studio.jobs.running import end_workers
from tests.studio.pages.browsing import Studio, open_studio, visit
from tests.studio.pages.compared import NAUGHTY, compared, trained_project

pytestmark = [pytest.mark.slow, pytest.mark.step]
NAME = "alice/support-tickets"
WRONG_TOKEN = "hf_a_token_of_nobody_at_all"
WAIT = 60_000


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Home, Project]]:
    home, project = trained_project(tmp_path_factory.mktemp("publish-page"))
    yield home, project
    end_workers(home)


@pytest.fixture
def fresh(trained: tuple[Home, Project]) -> Iterator[tuple[Server, Project]]:
    """A project on the trained run, without publications."""
    home, project = trained
    yield Server(home), Projects(home).change(project.id, publish_job="", publishing={})
    for kind in ("publish", "compare"):
        for folder in home.all(kind):
            shutil.rmtree(folder)


def written(server: Server, project: Project, **changes: object) -> Job:
    """A publish job, done in this very process."""
    request = PublishRequest(**{"run_id": project.run, "name": project.name, **changes})
    job = server.queue.submit(request)
    server.queue.stop(job)  # out of the line
    with StopRequest() as stop:
        work_on(server.home, job, stop)
    return job


def written_id(subject: Subject) -> str:
    return subject.written.job.id if subject.written else ""


def test_each_form_is_found_again_and_the_newest_counts(fresh: tuple[Server, Project]) -> None:
    server, project = fresh
    assert read_subject(server, project).written is None
    adapter = written(server, project, form="adapter")
    merged = written(server, project, form="merged")
    again = written(server, project, form="adapter", name="Another title")

    assert written_id(read_subject(server, project, "merged")) == merged.id
    subject = read_subject(server, project, "adapter")
    assert subject.written and subject.written.job.id == again.id != adapter.id
    assert subject.written.title == "Another title"
    assert set(made_forms(server.home, project.run)) == {"adapter", "merged"}
    shutil.rmtree(again.folder / "model")  # gone: the one before is still there
    assert written_id(read_subject(server, project, "adapter")) == adapter.id
    (adapter.folder / "model" / RECORD).write_text("{}")
    assert read_subject(server, project, "adapter").written is None


def test_other_runs_and_folders_elsewhere_are_not_ours(
    fresh: tuple[Server, Project], tmp_path: Path
) -> None:
    server, project = fresh
    elsewhere = written(server, project, to=str(tmp_path / "my-model"))
    assert published_folder(elsewhere).is_dir()
    queued = server.queue.submit(PublishRequest(run_id="train-other", name="x"))
    server.queue.stop(queued)

    subject = read_subject(server, project)
    assert (subject.written, subject.writing) == (None, None)


def test_a_comparison_made_later_is_noticed(fresh: tuple[Server, Project]) -> None:
    server, project = fresh
    written(server, project)
    assert not read_subject(server, project).is_old
    compared(server.home, project.run)
    assert read_subject(server, project).is_old
    written(server, project)
    assert not read_subject(server, project).is_old


def test_without_a_finished_run_there_is_a_sentence(fresh: tuple[Server, Project]) -> None:
    server, project = fresh
    for run in ("", "train-gone", "../../etc"):
        subject = read_subject(server, project.model_copy(update={"run": run}))
        assert subject.trouble and subject == Subject(trouble=subject.trouble)


def test_choices_are_kept_one_by_one(fresh: tuple[Server, Project]) -> None:
    server, project = fresh
    choose(server, project, repo_id=NAME)
    choose(server, project, form="merged")
    kept = server.projects.read(project.id).publishing
    assert (kept.repo_id, kept.form) == (NAME, "merged")
    with pytest.raises(StudioError):
        choose(server, project, form="pickle")
    with pytest.raises(StudioError):
        choose(server, project, token=WRITE_TOKEN)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve_publish_hub() as hub:
        yield hub


@pytest.fixture
def studio(
    fresh: tuple[Server, Project], hub: Hub, tmp_path: Path
) -> Iterator[tuple[Studio, Project]]:
    """A studio whose Hub is the test's, on a machine with a login."""
    server, project = fresh
    (tmp_path / "token").write_text(WRITE_TOKEN)
    variables = {"HF_ENDPOINT": hub.url, "HF_TOKEN_PATH": str(tmp_path / "token"), "HF_TOKEN": ""}
    with open_studio(server.home.root, variables=variables) as studio:
        yield studio, project


def test_from_a_run_to_the_hub(
    studio: tuple[Studio, Project], trained: tuple[Home, Project], hub: Hub, browser: Browser,
    tmp_path: Path,
) -> None:  # fmt: skip
    running, project = studio
    home = trained[0]
    address = f"{running.address}&project={project.id}&step=publish"
    with visit(browser, address) as (page, seen):
        page.set_default_timeout(WAIT)
        expect(page.get_by_role("radio", name="Adapter")).to_be_checked(timeout=WAIT)
        expect(page.get_by_text("Nobody has compared this run")).to_be_visible()
        title = page.get_by_label("Title")
        title.fill(f"Tickets {NAUGHTY} of anna@example.com")
        page.get_by_role("button", name="Make the folder").dblclick()
        expect(page.get_by_text("is written and checked")).to_be_visible(timeout=WAIT)
        (first,) = home.all("publish")
        check_folder(page, first / "model", tmp_path)

        # Something private: ticked off one by one, or mended.
        page.get_by_label("Repository").fill(NAME)
        expect(page.get_by_text("A name that the Hub takes")).to_be_visible()
        send(page, WRITE_TOKEN)
        expect(page.get_by_text("There may be something private in it")).to_be_visible()
        title.fill("Support tickets")
        page.get_by_role("button", name="Make the folder again").click()
        expect(page.get_by_text("Nothing private was found")).to_be_visible(timeout=WAIT)

        # A token that nobody knows is used once, forgotten, and told in a sentence.
        send(page, WRONG_TOKEN)
        expect(page.get_by_text("The Hub does not know this token")).to_be_visible(timeout=WAIT)
        assert page.get_by_label("Token that may write").input_value() == ""
        assert hub.repos == {}
        send(page, WRITE_TOKEN, button="Try again")
        expect(page.get_by_text("Your model is published").first).to_be_visible(timeout=WAIT)
        sent = hub.repos[NAME]
        assert sent.private and len(sent.commits) == 2
        second = sorted(home.all("publish"))[1] / "model"
        assert files_of(second).items() <= sent.head.files.items()
        expect(page.get_by_text(sent.head.oid[:10])).to_be_visible()
        expect(page.get_by_role("link", name="Open it on the Hub")).to_have_attribute(
            "href", f"{hub.url}/{NAME}"
        )
        assert not holds_token(page.content())
        publish_publicly_with_the_login(page, hub)
        page.get_by_role("button", name="Start another project").click()
        expect(page.get_by_text("Support tickets").first).to_be_visible()
        seen.must_be_clean()
    for path in home.root.rglob("*"):
        assert not path.is_file() or not holds_token(path.read_bytes().decode("latin-1")), path
    assert all(not holds_token(asked.path) for asked in hub.requests)


def test_only_the_folder_that_was_looked_at_is_sent(
    studio: tuple[Studio, Project], fresh: tuple[Server, Project], hub: Hub, browser: Browser
) -> None:
    running, project = studio
    written(fresh[0], project, name="Seen here")
    with visit(browser, f"{running.address}&project={project.id}&step=publish") as (page, seen):
        page.set_default_timeout(WAIT)
        card = page.get_by_role("region", name="Model card")
        expect(card).to_contain_text("Seen here", timeout=WAIT)
        written(fresh[0], project, name="Made in another tab")
        page.get_by_label("Repository").fill(NAME)
        expect(page.get_by_text("A name that the Hub takes")).to_be_visible()
        send(page, WRITE_TOKEN)
        expect(page.get_by_text("The folder was made again since you looked")).to_be_visible()
        assert hub.repos == {}
        expect(card).to_contain_text("Made in another tab")
        assert page.get_by_label("Token that may write").input_value() == ""
        send(page, WRITE_TOKEN)
        expect(page.get_by_text("Your model is published").first).to_be_visible(timeout=WAIT)
        assert b"Made in another tab" in hub.repos[NAME].head.files["README.md"]
        seen.must_be_clean()


def check_folder(page: Page, folder: Path, tmp_path: Path) -> None:
    """The page shows and hands out what lies there, and its card does no harm."""
    expect(page.get_by_role("cell", name="adapter_model.safetensors")).to_be_visible()
    assert page.locator(".ts-card-page img").count() == 0
    expect(page.get_by_role("region", name="Model card")).to_contain_text(NAUGHTY)
    page.get_by_role("tab", name="Ollama").click()
    expect(page.get_by_text("Ollama reads whole models")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("button", name="Download everything as a zip").click()
    download.value.save_as(tmp_path / "all.zip")
    with zipfile.ZipFile(tmp_path / "all.zip") as pack:
        assert {name: pack.read(name) for name in pack.namelist()} == {
            f"model/{name}": content for name, content in files_of(folder).items()
        }
    with page.expect_download() as download:
        page.get_by_role("button", name="Download README.md").click()
    assert download.value.suggested_filename == "README.md"
    download.value.save_as(tmp_path / "card")
    assert (tmp_path / "card").read_bytes() == (folder / "README.md").read_bytes()


def send(page: Page, token: str, *, button: str = "Publish to the Hub") -> None:
    page.get_by_label("Token that may write").fill(token)
    page.get_by_role("button", name=button).click()


def publish_publicly_with_the_login(page: Page, hub: Hub) -> None:
    """The login is read after consent alone; public takes the name once more."""
    page.get_by_role("button", name="Publish it elsewhere too").click()
    page.get_by_label("Repository").fill("alice/for-all")
    asked = len(hub.requests)
    page.get_by_label("Use the login").check()
    expect(page.get_by_text("This is the login of alice")).to_be_visible()
    assert [request.path for request in hub.requests[asked:]] == ["/api/whoami-v2"]
    page.get_by_label("Let everybody see it").check()
    confirmation = page.get_by_label("Type the whole name of the repository once more")
    confirmation.fill("alice/for-al")
    page.get_by_role("button", name="Publish to the Hub").click()
    expect(page.get_by_text("Everybody will be able to see and copy a public")).to_be_visible()
    confirmation.fill("alice/for-all")
    page.get_by_role("button", name="Publish to the Hub").click()
    expect(page.get_by_text("On the Hub: alice/for-all, public")).to_be_visible(timeout=WAIT)
    assert not hub.repos["alice/for-all"].private


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def holds_token(text: str) -> bool:
    return bool(re.search(f"{WRITE_TOKEN}|{WRONG_TOKEN}", text))
