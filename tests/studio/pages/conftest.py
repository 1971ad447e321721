from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.studio.pages.browsing import CHROMIUM, Studio, launch, open_studio


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("No Chromium here: install Debian's package `chromium` to test the page")
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    """One studio for a file's tests, on an empty home."""
    home: Path = tmp_path_factory.mktemp("home")
    with open_studio(home) as studio:
        yield studio
