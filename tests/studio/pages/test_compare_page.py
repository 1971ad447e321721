"""The compare step in a real browser: the verdict, the rows behind it, and the model to try."""

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from data_prep.answers import count_answers
from engine.comparing.comparison import read_comparison
from studio.home import Home
from studio.pages.compare_verdict import headline
from studio.projects import Project, Projects
from studio.records import COMPARISON, PREDICTIONS
from tests.studio.pages.browsing import Seen, Studio, open_studio, visit
from tests.studio.pages.compared import NAUGHTY, TIMES, trained_project

pytestmark = [pytest.mark.slow, pytest.mark.step]
_LONG = 90_000


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Home, Project, Studio]]:
    home, project = trained_project(tmp_path_factory.mktemp("compare"))
    with open_studio(home.root) as studio:
        yield home, project, studio


@pytest.fixture(scope="module")
def step(browser: Browser, made: tuple[Home, Project, Studio]) -> Iterator[tuple[Page, Seen]]:
    """One visit for all tests: each begins where the one before ended."""
    _, project, studio = made
    expect.set_options(timeout=30_000)  # machines of tests are busy
    with visit(browser, studio.address) as (page, seen):
        page.goto(f"{studio.origin}/?project={project.id}&step=compare")
        yield page, seen


def content(page: Page, name: str) -> str:
    """Press a button that downloads, and read what comes."""
    with page.expect_download() as download:
        page.get_by_role("button", name=name).click()
    return Path(download.value.path()).read_text(encoding="utf-8")


def test_the_verdict_is_what_the_file_says(
    made: tuple[Home, Project, Studio], step: tuple[Page, Seen]
) -> None:
    home, project, _ = made
    page, seen = step
    expect(page.get_by_text("Nobody has looked at these test rows yet")).to_be_visible()
    page.get_by_role("button", name="Compare now").dblclick()
    verdict = page.locator(".ts-verdict")
    expect(verdict).to_be_visible(timeout=_LONG)
    [job] = home.all("compare")  # two clicks are one wish
    assert Projects(home).read(project.id).compare_job == job.name
    comparison = read_comparison(job / COMPARISON)
    expect(verdict).to_contain_text(headline(comparison))
    expect(page.get_by_text("have been looked at 1 time")).to_be_visible()
    page.reload()
    expect(page.locator(".ts-verdict")).to_contain_text(headline(comparison))
    page.wait_for_timeout(1000)
    expect(page.get_by_test_id("toast-body")).to_have_count(0)
    seen.must_be_clean()


def test_rows_can_be_filtered_searched_turned_and_taken_away(
    made: tuple[Home, Project, Studio], step: tuple[Page, Seen]
) -> None:
    page, seen = step
    predictions = made[0].all("compare")[0] / PREDICTIONS
    comparison = read_comparison(predictions.with_name(COMPARISON))
    rival = next((arm.name for arm in comparison.arms if arm.name == "few_shot"), None)
    counts = count_answers(predictions, ("tuned", rival or comparison.primary.reference))
    total = 8 * TIMES
    expect(page.get_by_text(f"1–20 of {total} rows")).to_be_visible()
    page.get_by_role("button", name="Later rows").click()
    expect(page.get_by_text(f"21–40 of {total} rows")).to_be_visible()
    expect(page.get_by_role("button", name="Later rows")).to_be_disabled()
    page.get_by_label(f"Both wrong ({counts['both_wrong']})").check()
    shown = min(20, counts["both_wrong"])
    expect(page.locator(".ts-row")).to_have_count(shown)
    page.get_by_label(f"All ({total})").check()
    page.get_by_role("textbox", name="Search").fill("INVOICE")
    expect(page.locator(".ts-row")).to_have_count(TIMES)
    expect(page.locator(".ts-row").first).to_contain_text(NAUGHTY)
    page.get_by_role("textbox", name="Search").fill("no such text' OR 1=1")
    expect(page.get_by_text("No row is like that")).to_be_visible()
    lines = [json.loads(line) for line in content(page, "all answers (JSONL)").splitlines()]
    rows = list(csv.DictReader(io.StringIO(content(page, "all answers (CSV)"))))
    expected = [json.loads(line) for line in predictions.read_text().splitlines()]
    for found in (lines, rows):
        answers = [row["answer: tuned"] for row in found]
        assert answers == [line["outputs"]["tuned"] for line in expected]
    seen.must_be_clean()


def test_both_models_answer_a_text(step: tuple[Page, Seen]) -> None:
    page, seen = step
    page.get_by_role("button", name="Answer", exact=True).click()
    expect(page.get_by_text("has no text")).to_be_visible()
    page.locator(".ts-examples button").first.click()
    box = page.get_by_role("textbox", name="Text As it would stand")
    expect(box).to_have_value(f"{NAUGHTY} the invoice is wrong t0")
    page.get_by_role("button", name="Answer", exact=True).click()
    for arm in ("base", "tuned"):
        bars = page.locator(f".ts-tried-{arm} .ts-bars li")
        expect(bars).to_have_count(3, timeout=_LONG)
        expect(page.locator(f".ts-tried-{arm} .ts-said")).to_have_text(
            bars.first.locator(".ts-bar-name").inner_text()
        )
    seen.must_be_clean()


def test_what_tuning_changed_is_shown(step: tuple[Page, Seen]) -> None:
    page, seen = step
    page.get_by_role("button", name="Look inside").click()
    moved = page.get_by_role("list", name="How far each layer moved")
    expect(moved.get_by_role("listitem")).to_have_count(14, timeout=_LONG)
    expect(page.get_by_role("img", name="Singular values of the change")).to_be_visible()
    expect(page.get_by_text("--to inside.html")).to_be_visible()
    expect(page.get_by_role("button", name="Look inside")).to_be_enabled()
    seen.must_be_clean()


def test_a_table_is_answered(step: tuple[Page, Seen], tmp_path: Path) -> None:
    page, seen = step
    upload = page.locator("input[type=file]").last
    (tmp_path / "bad.csv").write_text("words\nhello\n")
    upload.set_input_files(tmp_path / "bad.csv")
    expect(page.get_by_text("The table has no column 'text'")).to_be_visible()
    expect(page.get_by_role("button", name="Answer the rows")).to_be_disabled()
    page.get_by_role("button", name="Remove this file").or_(
        page.get_by_role("button", name="Clear")
    ).first.click()
    (tmp_path / "new.csv").write_text(f"text,note\n=1+1 my parcel,a\n{NAUGHTY},b\n")
    page.locator("input[type=file]").last.set_input_files(tmp_path / "new.csv")
    expect(page.get_by_text("new.csv has every column")).to_be_visible()
    page.get_by_role("button", name="Answer the rows").click()
    expect(page.get_by_text("2 rows of new.csv answered")).to_be_visible(timeout=_LONG)
    rows = list(csv.reader(io.StringIO(content(page, "the answers (CSV)"))))
    assert rows[0] == ["row", "text", "note", "prediction"]
    assert [row[1] for row in rows[1:]] == ["'=1+1 my parcel", NAUGHTY]
    assert {row[3] for row in rows[1:]} <= {"billing", "returns", "shipping"}
    page.get_by_role("button", name="Next: publish").click()
    expect(page).to_have_url(re.compile("step=publish"))
    seen.must_be_clean()
