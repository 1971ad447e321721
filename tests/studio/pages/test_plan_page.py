"""The plan step in a real browser: methods side by side, settings, a download, a kept plan."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from data_prep.prepare import prepare
from data_prep.recipe import propose_recipe
from data_prep.upload import read_upload
from engine.methods import all_methods
from engine.plan import read_plan
from studio.home import Home
from studio.projects import Project, Projects
from tests.engine.tiny import save_tiny
from tests.studio.hub import COMMIT, TOKEN, serve_hub
from tests.studio.pages.browsing import Seen, Studio, open_studio, visit
from tests.studio.tables import write_table

pytestmark = [pytest.mark.slow, pytest.mark.step]

FAR = "google/gemma-3-270m"  # gated, and among the recommended
WAIT = 60_000.0


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home with a prepared table; no verb, no worker."""
    folder = tmp_path_factory.mktemp("plan")
    home = Home(folder / "home")
    upload_folder = home.new("upload")
    upload = read_upload(write_table(folder / "table.csv", 12), upload_folder)
    prepare(upload_folder, propose_recipe(upload), home.place("dataset"))
    return home


@pytest.fixture(scope="module")
def studio(home: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    folder = tmp_path_factory.mktemp("hub")
    base = save_tiny(folder / "tiny", "llama")
    with serve_hub({FAR: base}) as (address, _):
        variables = {
            "HF_ENDPOINT": address, "HF_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "0",
            "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        with open_studio(home.root, variables=variables) as studio:
            yield studio


@pytest.fixture
def project(home: Home) -> Project:
    projects = Projects(home)
    project = projects.new("Tickets")
    upload, dataset = home.all("upload")[-1].name, home.all("dataset")[-1].name
    return projects.change(project.id, upload=upload, dataset=dataset)


@pytest.fixture
def opened(browser: Browser, studio: Studio, project: Project) -> Iterator[tuple[Page, Seen]]:
    with visit(browser, f"{studio.address}&project={project.id}&step=plan") as (page, seen):
        page.set_default_timeout(WAIT)
        expect.set_options(timeout=WAIT)
        expect(page.get_by_text("is recommended")).to_be_visible()
        expect(page.get_by_text("Peak memory", exact=True)).to_be_visible()
        yield page, seen


def test_choices_become_a_plan(
    opened: tuple[Page, Seen], home: Home, project: Project, tmp_path: Path
) -> None:
    page, seen = opened
    projects = Projects(home)
    table = page.get_by_role("region", name="All methods side by side")
    expect(table.get_by_role("row")).to_have_count(1 + len(all_methods()))

    page.get_by_label("Prompt tuning", exact=True).check()
    expect(page.get_by_label("Prompt tokens")).to_have_value("20")
    page.get_by_label("LoRA", exact=True).check()
    rank = page.get_by_label("Rank", exact=True)
    rank.fill("2000")
    expect(page.get_by_text("Rank cannot be 2000.")).to_be_visible()
    page.get_by_role("button", name="Next: train").click()
    expect(page.get_by_text("Reference ").first).to_be_visible()
    rank.fill("4")
    command = page.get_by_role("group", name="the same plan from a terminal")
    expect(command).to_contain_text("--option rank=4")

    with page.expect_download() as download:
        page.get_by_role("button", name="Download the plan").click()
    kept_file = tmp_path / "kept.yaml"
    download.value.save_as(kept_file)
    assert read_plan(kept_file).method.options["rank"] == 4

    page.get_by_role("button", name="Next: train").click()
    page.wait_for_url(re.compile("step=train"))
    made = projects.read(project.id)
    plan = read_plan(home.find("plan", made.plan))
    assert (plan.method.name, plan.method.options["rank"]) == ("lora", 4)
    assert plan == read_plan(kept_file)

    page.goto(page.url.replace("step=train", "step=plan"))
    expect(page.get_by_label("Rank", exact=True)).to_have_value("4")
    expect(page.get_by_text("This is the plan you have made")).to_be_visible()
    page.get_by_text("Show all settings").click()
    page.get_by_label("Seed", exact=True).fill("11")
    expect(page.get_by_text("You have changed something")).to_be_visible()
    expect(page.locator("#to-plan")).to_have_class(re.compile("ts-stale"))
    assert projects.read(project.id).choices.seed == 11

    page.locator("input[type=file]").last.set_input_files(kept_file)
    expect(page.get_by_text("This is the plan you have made")).to_be_visible()
    expect(page.get_by_label("Seed", exact=True)).to_have_value("0")
    page.get_by_role("button", name="Reset to the method's defaults").click()
    expect(page.get_by_label("Rank", exact=True)).to_have_value("8")
    assert projects.read(project.id).choices.options == {}
    seen.must_be_clean()


def test_a_base_comes_from_the_hub_and_its_token_stays_nowhere(
    opened: tuple[Page, Seen], home: Home, project: Project
) -> None:
    page, seen = opened
    page.get_by_label("Search the Hugging Face Hub").fill("tiny")
    page.get_by_role("button", name="Search the Hub").click()
    expect(page.get_by_text("The Hub did not answer the search")).to_be_visible()

    page.get_by_text("Recommended to download (").click()
    page.get_by_label(FAR, exact=True).check()
    expect(page.get_by_text(f"{FAR} has to be downloaded first")).to_be_visible()
    expect(page.get_by_text("No estimate yet")).to_be_visible()
    page.get_by_label("Hub token").fill(TOKEN)
    page.get_by_role("button", name="Download", exact=True).click()
    expect(page.get_by_text("is on this machine now")).to_be_visible()
    expect(page.get_by_text("is recommended")).to_be_visible()
    expect(page.get_by_text("Peak memory", exact=True)).to_be_visible()
    now = Projects(home).read(project.id)
    assert (now.base, now.revision) == (FAR, COMMIT)

    page.get_by_role("button", name="Next: train").click()
    page.wait_for_url(re.compile("step=train"))
    plan = read_plan(home.find("plan", Projects(home).read(project.id).plan))
    assert (plan.base.id, plan.base.revision) == (FAR, COMMIT)
    for path in home.root.rglob("*"):
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes(), path
    seen.must_be_clean()
