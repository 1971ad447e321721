"""The whole way through the page, as a newcomer goes it: real worker, real service, real Hub."""

import re
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from engine.comparing.comparison import read_comparison
from studio.home import Home
from studio.projects import Projects
from studio.records import COMPARISON
from tests.data_prep.workbooks import sheet, table_sheet, workbook
from tests.hub_server import USER, WRITE_TOKEN, Hub, serve_publish_hub
from tests.studio.jobs.running import end_workers
from tests.studio.pages.accessible import grave_violations
from tests.studio.pages.browsing import open_studio, visit

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
_LONG = 240_000


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve_publish_hub() as hub:
        yield hub


def press(page: Page, name: str) -> None:
    button = page.get_by_role("button", name=name, exact=True)
    expect(button).to_be_enabled(timeout=60_000)
    button.click()


def reload_finds(page: Page, step: str) -> None:
    """Reload, and be where one was."""
    expect(page).to_have_url(re.compile(f"step={step}"))
    page.reload()
    expect(page.locator(f"#to-{step}")).to_have_attribute("aria-current", "step")
    expect(page).to_have_url(re.compile(f"step={step}"))
    page.wait_for_timeout(1000)  # what the page asks of its child processes arrives a little later
    assert grave_violations(page) == []


def choose_epochs(page: Page, epochs: int) -> None:
    """Train less than the plan proposes: here it is enough."""
    page.get_by_label("Epochs", exact=True).fill(str(epochs))
    command = page.get_by_role("group", name="the same plan from a terminal")
    expect(command).to_contain_text(f"--option epochs={epochs}")


def test_from_the_start_screen_to_a_published_adapter(
    browser: Browser, hub: Hub, tmp_path: Path
) -> None:
    home = Home(tmp_path / "home")
    with (
        open_studio(home.root, variables={"HF_ENDPOINT": hub.url}) as studio,
        visit(browser, studio.address) as (page, seen),
    ):
        press(page, "Start with support tickets")
        expect(page.get_by_text("710").first).to_be_visible()
        reload_finds(page, "upload")

        press(page, "Next: prepare")
        press(page, "Prepare")
        expect(page.get_by_role("button", name="Next: plan")).to_be_visible(timeout=_LONG)
        reload_finds(page, "prepare")

        press(page, "Next: plan")
        expect(page.get_by_role("radio", name=re.compile("LoRA")).first).to_be_visible(
            timeout=_LONG
        )
        reload_finds(page, "plan")
        choose_epochs(page, 2)
        press(page, "Next: train")

        press(page, "Start training")
        expect(page.get_by_role("button", name="Stop and save")).to_be_visible(timeout=60_000)
        reload_finds(page, "train")
        expect(page.get_by_role("button", name="Next: compare")).to_be_visible(timeout=_LONG)
        reload_finds(page, "train")

        press(page, "Next: compare")
        press(page, "Compare now")
        expect(page.locator(".ts-verdict")).to_be_visible(timeout=_LONG)
        reload_finds(page, "compare")

        press(page, "Next: publish")
        publish(page, f"{USER}/tickets")
        reload_finds(page, "publish")
        expect(page.get_by_text(f"{USER}/tickets").first).to_be_visible()
        seen.must_be_clean()
    end_workers(home)
    tuning_beats_the_best_prompt_with_a_clear_interval(home)

    repo = hub.repos[f"{USER}/tickets"]
    assert repo.private and len(repo.commits) == 2  # what the Hub begins with, and ours
    assert {"README.md", "adapter_config.json", "adapter_model.safetensors"} <= set(repo.head.files)
    for path in home.root.rglob("*"):
        if path.is_file():
            assert WRITE_TOKEN.encode() not in path.read_bytes(), path


def tuning_beats_the_best_prompt_with_a_clear_interval(home: Home) -> None:
    [run], [job] = home.all("train"), home.all("compare")
    assert home.job(run.name).status().state == "finished"
    comparison = read_comparison(job / COMPARISON)
    verdict = comparison.primary.verdict
    assert comparison.outcome == "better" == verdict.outcome
    assert verdict.interval.low > 0 and verdict.p_value < 0.01
    assert 65 <= comparison.arm("classical").value("accuracy") <= 90
    assert comparison.test_looks == 1


def publish(page: Page, repo_id: str) -> None:
    press(page, "Make the folder")
    expect(page.get_by_text("adapter_model.safetensors").first).to_be_visible(timeout=_LONG)
    page.get_by_label("Repository").fill(repo_id)
    page.get_by_label("Token that may write").fill(WRITE_TOKEN)
    press(page, "Publish to the Hub")
    expect(page.get_by_text("Your model is published").first).to_be_visible(timeout=_LONG)


def test_an_unseen_workbook_becomes_a_model_that_writes(browser: Browser, tmp_path: Path) -> None:
    """Table to text, from a file that no part of the studio was made with."""
    home = Home(tmp_path / "home")
    rows: list[tuple[object, ...]] = [("Datum", "Station", "Höchste Temperatur", "Bericht")]
    for number in range(60):
        station = ("Nord", "Süd", "Hafen", "Berg")[number % 4]
        degrees, day = 8 + number % 23, date(2026, 1 + number % 12, 1 + number % 28)
        rows.append((
            day.isoformat(), station, degrees,
            f"An der Station {station} wurden {degrees} Grad gemessen, Tag {number}.",
        ))  # fmt: skip
    sheets = {"Leer": sheet({}), "Messungen": table_sheet(*rows)}
    (tmp_path / "wetter.xlsx").write_bytes(workbook(sheets))
    with (
        open_studio(home.root) as studio,
        visit(browser, studio.address, width=390, height=844, theme="dark") as (page, seen),
    ):
        page.locator("#start-file input[type=file]").set_input_files(tmp_path / "wetter.xlsx")
        expect(page.get_by_text("Höchste Temperatur").first).to_be_visible(timeout=60_000)
        press(page, "Next: prepare")
        expect(page.get_by_label("Answer", exact=False).first).to_be_visible()
        press(page, "Prepare")
        expect(page.get_by_role("button", name="Next: plan")).to_be_visible(timeout=_LONG)
        press(page, "Next: plan")
        press(page, "Next: train")
        press(page, "Start training")
        expect(page.get_by_role("button", name="Stop and save")).to_be_visible(timeout=60_000)

        # The server is killed in the middle; the next one shows that it trains on.
        [project] = Projects(home).all()
        studio.kill()
        with open_studio(home.root) as second:
            page.goto(f"{second.address}&project={project.id}&step=train")
            expect(page.locator("#to-train")).to_have_class(re.compile("ts-(working|done)"))
            expect(page.get_by_role("button", name="Next: compare")).to_be_visible(timeout=_LONG)
            seen.errors.clear()  # the tab that lost its server said so
            press(page, "Next: compare")
            press(page, "Compare now")
            expect(page.locator(".ts-verdict")).to_be_visible(timeout=_LONG)
            seen.must_be_clean()
    end_workers(home)
