"""The prepare step in a real browser: columns, wording, cleaning, the job, and what it made."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from data_prep.upload import read_upload
from studio.home import Home
from studio.projects import Project, Projects
from templates.dataset import read_dataset
from tests.studio.pages.browsing import Seen, Studio, open_studio, visit
from tests.studio.tables import write_table

pytestmark = [pytest.mark.slow, pytest.mark.step]
_LONG = 120_000
NAUGHTY = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Home, Project, Studio]]:
    folder = tmp_path_factory.mktemp("prepare")
    home, table = Home(folder / "home"), write_table(folder / "table.csv")
    head, first, *rest = table.read_text(encoding="utf-8").splitlines()
    lines = [f"{head},{NAUGHTY}", f"  {NAUGHTY} {first},{NAUGHTY}"]
    lines += [f"{line},note {number}" for number, line in enumerate(rest)]
    lines += [lines[2], ",billing,x"]  # a duplicate, and a row without text
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    upload = home.new("upload")
    read_upload(table, upload, name="table.csv")
    projects = Projects(home)
    project = projects.change(projects.new("Tickets").id, upload=upload.name)
    with open_studio(home.root) as studio:
        yield home, project, studio


@pytest.fixture(scope="module")
def step(browser: Browser, made: tuple[Home, Project, Studio]) -> Iterator[tuple[Page, Seen]]:
    """One visit for all tests: each begins where the one before ended."""
    _, project, studio = made
    expect.set_options(timeout=30_000)  # machines of tests are busy
    with visit(browser, studio.address) as (page, seen):
        page.goto(f"{studio.origin}/?project={project.id}&step=prepare")
        yield page, seen


def recipe_of(made: tuple[Home, Project, Studio]) -> dict[str, object]:
    home, project, _ = made
    return dict(Projects(home).read(project.id).recipe or {})


def card(page: Page, title: str) -> Locator:
    return page.locator(".ts-step-card", has_text=title)


def test_the_table_is_understood_and_tried(step: tuple[Page, Seen]) -> None:
    page, seen = step
    expect(page.get_by_text("Your table looks like: text and label")).to_be_visible()
    expect(page.get_by_text("Chosen because the column is called 'text'")).to_be_visible()
    expect(card(page, "Drop empty rows")).to_contain_text("1 row dropped")
    expect(card(page, "Drop exact duplicates")).to_contain_text("1 row dropped")
    expect(card(page, "Trim spaces")).to_contain_text("1 row changed")
    expect(page.get_by_text("train: 42 (70 %)")).to_be_visible()
    expect(page.get_by_text("There are only 60 rows")).to_be_visible()
    expect(page.get_by_text("Textbox", exact=True).locator("visible=true")).to_have_count(0)
    seen.must_be_clean()


def test_steps_go_off_move_and_come_back(
    made: tuple[Home, Project, Studio], step: tuple[Page, Seen]
) -> None:
    page, seen = step
    switch = page.get_by_role("checkbox", name="Drop exact duplicates")
    switch.click()  # not `uncheck`: the row moves to the end of the list
    expect(page.get_by_text("train: 43")).to_be_visible()
    page.get_by_role("button", name="Undo the last change").click()
    expect(switch).to_be_checked()
    expect(page.get_by_text("train: 42")).to_be_visible()
    page.get_by_role("button", name="Move up: Trim spaces").press("Enter")
    expect(page.locator(".ts-step-card").first).to_contain_text("Trim spaces")
    steps = recipe_of(made)["steps"]
    assert [one["name"] for one in steps][:2] == ["trim", "empty"]  # type: ignore[attr-defined]
    page.get_by_role("button", name="Reset to the recommended steps").click()
    expect(page.locator(".ts-step-card").first).to_contain_text("Drop empty rows")
    seen.must_be_clean()


def test_columns_are_clicked_and_faults_stand_beside_the_field(step: tuple[Page, Seen]) -> None:
    page, seen = step
    page.get_by_role("button", name="Use the column team as text").click()
    expect(page.get_by_text("This is the answer too")).to_be_visible()
    expect(page.get_by_text("is both the input text and the answer")).to_be_visible()
    page.get_by_role("button", name="Use the column text as text").click()
    expect(page.get_by_text("This is the answer too")).to_have_count(0)
    expect(page.get_by_text("train: 42")).to_be_visible()
    seen.must_be_clean()


def test_the_wording_is_seen_as_it_is_typed(
    made: tuple[Home, Project, Studio], step: tuple[Page, Seen]
) -> None:
    page, seen = step
    page.get_by_role("button", name="Change the wording").click()
    wording = page.get_by_role("textbox", name=re.compile(r"^\s*Wording"))
    wording.fill("Ticket without a slot")
    expect(page.get_by_text("needs at least one slot")).to_be_visible()
    wording.fill("Ticket: {text}")
    expect(page.get_by_text("Ticket: parcel number").first).to_be_visible()
    stop = page.get_by_role("textbox", name=re.compile(r"^\s*Stop sequence"))
    stop.fill(r" DONE\n")
    expect(page.get_by_text("billing DONE").first).to_be_visible()
    word = page.get_by_role("textbox", name="Word for the label billing")
    word.fill("money")
    word.press("Tab")
    expect(page.get_by_text("money DONE").first).to_be_visible()
    template = recipe_of(made)["template"]
    assert template["stop"] == " DONE\n"  # type: ignore[index]
    assert template["verbalizer"] == {"billing": "money"}  # type: ignore[index]
    seen.must_be_clean()


def test_preparing_makes_the_data_that_are_shown(
    made: tuple[Home, Project, Studio], step: tuple[Page, Seen]
) -> None:
    home, project, studio = made
    page, seen = step
    page.get_by_role("button", name="Prepare", exact=True).dblclick()
    expect(page.get_by_text("Your examples are ready")).to_be_visible(timeout=_LONG)
    [job] = home.all("prepare")  # two clicks are one wish
    after = Projects(home).read(project.id)
    assert after.prepare_job == job.name
    dataset = read_dataset(home.place("dataset") / after.dataset)
    assert {split: file.rows for split, file in dataset.splits.items()} == {
        "train": 42, "validation": 9, "test": 9,
    }  # fmt: skip
    expect(page.locator("#to-plan")).to_be_enabled()
    expect(page.locator("#prepared .ts-tokens mark").first).to_be_visible()
    # A reload finds the same.
    page.goto(f"{studio.origin}/?project={project.id}&step=prepare")
    expect(page.get_by_text("Your examples are ready")).to_be_visible()
    expect(page.locator("#prepared .ts-tokens")).to_contain_text("Ticket: ")
    expect(page.get_by_text("Textbox", exact=True).locator("visible=true")).to_have_count(0)
    seen.must_be_clean()


def test_the_cut_off_is_kept_for_the_plan(
    made: tuple[Home, Project, Studio], step: tuple[Page, Seen]
) -> None:
    home, project, _ = made
    page, seen = step
    expect(page.get_by_text("Every training example fits")).to_be_visible()
    limit = page.get_by_role("spinbutton", name="Longest example")
    longest = int(limit.input_value())
    limit.fill(str(longest - 2))
    limit.press("Enter")
    expect(page.get_by_text(f"longer than {longest - 2} tokens")).to_be_visible()
    limits = Projects(home).read(project.id).choices.limits
    assert limits == {"max_length_tokens": longest - 2}
    seen.must_be_clean()


def test_rows_and_recipe_can_be_taken_along(
    made: tuple[Home, Project, Studio], step: tuple[Page, Seen], tmp_path: Path
) -> None:
    page, seen = step
    with page.expect_download() as download:
        page.get_by_role("button", name="Prompts and answers (JSONL)").click()
    lines = Path(download.value.path()).read_text(encoding="utf-8").splitlines()
    assert len(lines) == 42
    assert all(json.loads(line)["completion"].endswith(" DONE\n") for line in lines)
    with page.expect_download() as download:
        page.get_by_role("button", name="Recipe (JSON)").click()
    recipe = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    assert recipe == recipe_of(made)
    other = tmp_path / "recipe.json"
    other.write_text(json.dumps({**recipe, "seed": 9}), encoding="utf-8")
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Use a recipe file").click()
    chooser.value.set_files(other)
    expect(page.get_by_text("Changed since you prepared")).to_be_visible()
    expect(page.get_by_text("The seed.")).to_be_visible()
    expect(page.locator("#to-prepare")).to_have_class(re.compile("ts-stale"))
    page.get_by_role("button", name="Go back to what was prepared").click()
    expect(page.get_by_text("Your examples are ready")).to_be_visible()
    assert recipe_of(made) == recipe
    page.get_by_role("button", name="Next: plan").click()
    expect(page).to_have_url(re.compile("step=plan"))
    seen.must_be_clean()


def test_a_columns_name_is_no_link_and_hidden_fields_stay_hidden(
    browser: Browser, made: tuple[Home, Project, Studio]
) -> None:
    home, project, studio = made
    projects = Projects(home)
    recipe = json.loads(json.dumps(recipe_of(made)))
    name = "[Reload](https://evil.example) www.evil.example **now**"
    recipe["mapping"]["fields"]["text"] = name
    other = projects.change(projects.new("Links").id, upload=project.upload, recipe=recipe)
    with visit(browser, studio.address) as (page, seen):
        page.goto(f"{studio.origin}/?project={other.id}&step=prepare")
        told = page.get_by_text("The table has no column '[Reload]").filter(has_text="any more")
        expect(told).to_be_visible()
        expect(told.locator("a, strong, em")).to_have_count(0)
        expect(page.locator("#prepare-task")).to_have_count(1)
        for step in ("upload", "prepare"):  # what a person returns to
            page.locator(f"#to-{step}").click()
            expect(page).to_have_url(re.compile(f"step={step}"))
        expect(told).to_be_visible()
        assert page.locator("a[href*=evil]").count() == 0
        hidden = page.locator(".ts-hidden")
        assert hidden.count() >= 8
        expect(hidden.locator("visible=true")).to_have_count(0)
        for label in ("Textbox", "Number"):
            expect(page.get_by_text(label, exact=True).locator("visible=true")).to_have_count(0)
        seen.must_be_clean()
