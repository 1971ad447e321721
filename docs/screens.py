"""Makes docs/screens: every step of the ticket sample, light and dark, wide and narrow.

`python -m docs.screens` goes through the sample in a real browser on an empty home (a few minutes),
with Debian's Chromium and what requirements-dev.txt installs.
"""

import io
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from studio.home import Home
from studio.projects import Projects
from tests.studio.jobs.running import end_workers
from tests.studio.pages.browsing import Studio, launch, open_studio, visit

FOLDER = Path(__file__).with_name("screens")
STEPS = ("upload", "prepare", "plan", "train", "compare", "publish")
# Something that is seen last on each.
_LAST = {
    "start": "text=From the Hub",
    "upload": "text=Next: prepare",
    "prepare": "text=Next: plan",
    "plan": "text=All methods side by side",
    "train": "text=Next: compare",
    "compare": ".ts-verdict",
    "publish": "text=adapter_model.safetensors",
}
_SIZES = {1280: 1000, 390: 844}
_THEMES = ("light", "dark")
_COLOURS = 128
_PATIENCE_MILLISECONDS = 600_000


def main() -> None:
    """Make all of them."""
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        home = Home(Path(folder) / "home")
        browser = launch(playwright)
        with open_studio(home.root) as studio:
            _go_through(browser, studio)
            [project] = Projects(home).all()
            for theme in _THEMES:
                for width, height in _SIZES.items():
                    with visit(
                        browser, studio.address, width=width, height=height, theme=theme
                    ) as (page, _):
                        _take(page, "start", theme, width)
                        for step in STEPS:
                            page.goto(f"{studio.origin}/?project={project.id}&step={step}")
                            _take(page, step, theme, width)
        browser.close()
        end_workers(home)


def _go_through(browser: Browser, studio: Studio) -> None:
    with visit(browser, studio.address) as (page, _):
        page.set_default_timeout(_PATIENCE_MILLISECONDS)
        for name in (
            "Start with support tickets", "Next: prepare", "Prepare", "Next: plan", "Next: train",
            "Start training", "Next: compare", "Compare now", "Next: publish", "Make the folder",
        ):  # fmt: skip
            button = page.get_by_role("button", name=name, exact=True)
            expect(button).to_be_enabled(timeout=_PATIENCE_MILLISECONDS)
            button.click()
            print(name)
        page.wait_for_selector(_LAST["publish"])


def _take(page: Page, step: str, theme: str, width: int) -> None:
    page.wait_for_selector(f"{_LAST[step]} >> visible=true", timeout=60_000)
    page.wait_for_timeout(2500)  # what the page asks of its child processes arrives a little later
    shot = Image.open(io.BytesIO(page.screenshot()))
    few = shot.convert("RGB").quantize(_COLOURS, dither=Image.Dither.NONE)
    few.save(FOLDER / f"{step}-{theme}-{width}.png", optimize=True)


if __name__ == "__main__":
    main()
