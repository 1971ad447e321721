"""A real studio on a home of its own, and a real browser that fails on what must never happen."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, Page, Playwright, expect

ROOT = Path(__file__).parents[3]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_QUIET = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
_START_SECONDS = 60.0
_WAIT_MILLISECONDS = 40_000  # machines of tests are busy
_LOCAL = ("127.0.0.1", "localhost")


@dataclass
class Studio:
    """A running `app.py open`."""

    process: subprocess.Popen[str]
    address: str

    @property
    def origin(self) -> str:
        return self.address.partition("/?")[0]

    @property
    def key(self) -> str:
        return self.address.rpartition("key=")[2]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@dataclass
class Seen:
    """What a page did that nobody asked for."""

    dialogs: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def must_be_clean(self) -> None:
        assert self.dialogs == []
        assert self.outside == []
        assert self.errors == []


@contextmanager
def open_studio(
    home: Path, *options: str, variables: Mapping[str, str] | None = None
) -> Iterator[Studio]:
    """Start the studio as a person does, and end it; what it started is left to its home."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTEST")
    } | {"STUDIO_HOME": str(home), **(variables or {})}
    process = subprocess.Popen(
        [sys.executable, "app.py", "open", "--no-browser", *options],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        yield Studio(process, _address(process))
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    said = ""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        line = process.stdout.readline()
        said += line
        found = re.search(r"http://\S+", line)
        if found:
            return found[0]
        if not line and process.poll() is not None:
            break
    raise AssertionError(f"the studio did not start:\n{said}")


def launch(playwright: Playwright) -> Browser:
    return playwright.chromium.launch(executable_path=CHROMIUM, args=_QUIET)


@contextmanager
def visit(
    browser: Browser, address: str, *, width: int = 1280, height: int = 900, theme: str = "light"
) -> Iterator[tuple[Page, Seen]]:
    """Open an address in a fresh browser profile, and watch what the page does."""
    context: BrowserContext = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if theme == "dark" else "light",
        reduced_motion="reduce",
        accept_downloads=True,
    )
    context.set_default_timeout(_WAIT_MILLISECONDS)
    expect.set_options(timeout=_WAIT_MILLISECONDS)
    page = context.new_page()
    seen = Seen()

    def answer(dialog: object) -> None:
        seen.dialogs.append(str(dialog))
        with contextlib.suppress(Exception):
            dialog.dismiss()  # type: ignore[attr-defined]

    def note(url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("data", "blob", "about") and parts.hostname not in _LOCAL:
            seen.outside.append(url)

    page.on("dialog", answer)
    page.on("request", lambda request: note(request.url))
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.goto(address)
    page.wait_for_url(lambda url: "key=" not in url)  # else what follows meets this navigation
    try:
        yield page, seen
    finally:
        context.close()
