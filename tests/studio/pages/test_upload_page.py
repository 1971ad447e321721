"""Start screen and upload in a real browser: samples, files good and bad, a data set of a Hub."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from data_prep.upload import Upload, load_upload
from studio.home import Home
from studio.projects import Projects
from tests.data_set_hub import TOKEN, DataSet, DataSetHub, serve_data_sets
from tests.studio.pages.browsing import Studio, open_studio, visit

pytestmark = [pytest.mark.slow, pytest.mark.step]
expect.set_options(timeout=30_000)  # on a busy machine
NAUGHTY = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def hub() -> Iterator[DataSetHub]:
    lines = b'{"text": "from the hub", "label": "x"}\n' * 30
    with serve_data_sets(
        one=DataSet({"train.jsonl": lines, "test.jsonl": lines[:100], "run.py": b"boom()"}),
        hidden=DataSet({"train.csv": b"a,b\n1,2\n"}, private=True),
    ) as hub:
        yield hub


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def studio(home: Home, hub: DataSetHub) -> Iterator[Studio]:
    variables = {"HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"}
    with open_studio(home.root, variables=variables) as studio:
        yield studio


def upload_of(page: Page, home: Home) -> Upload:
    """Wait until a table is shown, and read what the page's project has now."""
    expect(page.get_by_role("heading", name="First rows")).to_be_visible(timeout=40_000)
    expect(page).to_have_url(re.compile("project="))  # written after the table is shown
    found = re.search(r"project=([^&]+)", page.url)
    assert found, page.url
    return load_upload(home.place("upload") / Projects(home).read(found[1]).upload)


def test_a_sample_is_one_click_and_a_reload_finds_it(
    studio: Studio, browser: Browser, home: Home
) -> None:
    with visit(browser, studio.address) as (page, seen):
        page.get_by_role("button", name="Start with support tickets").click()
        assert upload_of(page, home).num_rows == 710
        expect(page.locator("#upload-news")).to_contain_text("710")
        expect(page.locator("#upload-columns")).to_contain_text("categories")
        page.reload()
        upload_of(page, home)
        page.get_by_role("button", name="All projects").click()
        page.get_by_role("button", name="Start with restaurants").click()
        expect(page.locator("#upload-rows")).to_contain_text("The Third Fig")
        assert upload_of(page, home).format == "jsonl"
        seen.must_be_clean()


def test_a_file_that_cannot_be_read_is_corrected_and_then_replaced(
    studio: Studio, browser: Browser, home: Home, tmp_path: Path
) -> None:
    bad, other = tmp_path / "ragged.csv", tmp_path / "other.csv"
    bad.write_text(f"text,label\n{NAUGHTY},y\nno comma\n", encoding="utf-8")
    other.write_bytes("text;label\nGrüße;x\n".encode("cp1252") * 5)
    with visit(browser, studio.address) as (page, seen):
        page.locator("#start-file input[type=file]").set_input_files(bad)
        news, preview = page.locator("#upload-news"), page.locator("#upload-preview")
        expect(news).to_contain_text("line 3")
        expect(preview).to_contain_text("no comma")
        read = page.get_by_role("button", name="Read it like this")
        expect(read).to_be_disabled()
        page.reload()
        expect(news).to_contain_text("line 3")
        page.get_by_label("Between the cells").click()
        page.get_by_role("option", name="Pipe").click()
        expect(preview).to_contain_text("Only one column")
        expect(read).to_be_enabled()
        read.click()
        first = upload_of(page, home)
        assert [column.name for column in first.columns] == ["text,label"]
        expect(page.locator("#upload-rows")).to_contain_text(NAUGHTY)

        page.get_by_role("button", name="Read it differently").click()
        expect(preview).to_contain_text("How it would be read")
        page.get_by_role("radio", name="No", exact=True).check()
        expect(preview).to_contain_text("column 1")
        read.click()
        expect(page.locator("#upload-rows")).to_contain_text("column 1")
        assert upload_of(page, home).num_rows == first.num_rows + 1
        assert load_upload(home.place("upload") / first.id) == first

        page.get_by_role("button", name="Use another file").click()
        page.locator("#upload-file input[type=file]").set_input_files(other)
        expect(page.locator("#upload-rows")).to_contain_text("Grüße")
        assert upload_of(page, home).encoding == "cp1252"
        seen.must_be_clean()
    left = [
        path
        for path in (home.root / "page-files").rglob("*")
        if path.is_file() and path.stat().st_size
    ]
    assert left == [] and list((home.root / "incoming").glob("*")) == []


def test_what_no_correction_can_mend_is_told_and_forgotten(
    studio: Studio, browser: Browser, home: Home, tmp_path: Path
) -> None:
    picture = tmp_path / "picture.csv"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 100)
    with visit(browser, studio.address) as (page, seen):
        page.locator("#start-file input[type=file]").set_input_files(picture)
        expect(page.locator("#upload-news")).to_contain_text("image")
        page.get_by_role("button", name="Use another file").click()
        page.get_by_role("button", name="Forget this file").click()
        expect(page.locator("#upload-news")).to_contain_text("No table yet")
        page.goto(studio.origin)
        expect(page.get_by_text("picture", exact=True)).to_be_visible()
        seen.must_be_clean()
    assert list((home.root / "incoming").glob("*")) == []


def test_a_data_set_is_looked_up_and_fetched(
    studio: Studio, browser: Browser, home: Home, hub: DataSetHub
) -> None:
    with visit(browser, studio.address) as (page, seen):
        page.locator("#hub-name textarea, #hub-name input").fill("https://evil.example/org/one")
        page.get_by_role("button", name="Look it up").click()
        expect(page.locator("#hub-news")).to_contain_text("not the id of a data set")
        page.locator("#hub-name textarea, #hub-name input").fill("org/hidden")
        page.get_by_role("button", name="Look it up").click()
        expect(page.locator("#hub-news")).to_contain_text("no public data set")
        page.locator("#hub-token input").fill(TOKEN)
        page.get_by_role("button", name="Look it up").click()
        expect(page.locator("#hub-news")).to_contain_text("1 table")
        hub.slow.clear()
        page.get_by_role("button", name="Fetch this table").click()
        expect(page.locator("#upload-news")).to_contain_text("so far")
        page.wait_for_url("**step=upload")
        page.reload()
        expect(page.get_by_role("button", name="Cancel")).to_be_visible()
        hub.slow.set()
        upload = upload_of(page, home)
        assert (upload.name, upload.num_rows) == ("hidden train.csv", 1)

        page.goto(studio.origin)
        page.locator("#hub-name textarea, #hub-name input").fill("org/one")
        page.get_by_role("button", name="Look it up").click()
        expect(page.locator("#hub-news")).to_contain_text("2 tables")
        hub.slow.clear()
        page.get_by_role("button", name="Fetch this table").click()
        page.get_by_role("button", name="Cancel").click()
        expect(page.locator("#upload-news")).to_contain_text("No table yet")
        hub.slow.set()
        seen.must_be_clean()
    assert not any("run.py" in path for path in hub.paths)
    for path in home.root.rglob("*"):
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes(), path


def test_projects_are_found_renamed_and_deleted(
    studio: Studio, browser: Browser, home: Home
) -> None:
    projects = Projects(home)
    made = [projects.new(f"many {number}") for number in range(12)]
    with visit(browser, studio.address) as (page, seen):
        expect(page.get_by_text("many 11", exact=True)).to_be_visible()
        page.get_by_role("button", name="Older").click()
        expect(page.get_by_text("many 5", exact=True)).to_be_visible()
        page.get_by_label("Search by name").press_sequentially("MANY 11")
        expect(page.locator(".ts-project-name").filter(visible=True)).to_have_text(["many 11"])
        page.get_by_role("button", name="Rename").click()
        page.get_by_label("New name").fill(NAUGHTY)
        page.get_by_role("button", name="Save").click()
        expect(page.get_by_text("No project has this name")).to_be_visible()
        assert projects.read(made[11].id).name == NAUGHTY
        page.get_by_label("Search by name").fill("")
        page.get_by_label("Search by name").press_sequentially("onerror")
        expect(page.locator(".ts-project-name").filter(visible=True)).to_have_text([NAUGHTY])
        page.get_by_role("button", name="Delete", exact=True).click()
        page.get_by_role("button", name="Leave it").click()
        page.get_by_role("button", name="Delete", exact=True).click()
        page.get_by_role("button", name="Delete the project").click()
        expect(page.get_by_text("No project has this name")).to_be_visible()
        seen.must_be_clean()
    names = [json.loads(path.read_text())["name"] for path in home.place("project").iterdir()]
    assert NAUGHTY not in names and "many 10" in names
