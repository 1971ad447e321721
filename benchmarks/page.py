"""How quickly the page answers, and what open tabs cost: real `app.py open`, real Chromium.

Times are of this machine's disk with its cache warm. Everything lies in temporary folders.

    python benchmarks/page.py [--quick] [--only tabs] [--rounds 5]
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parents[1]))
from studio.settings import HOME_VARIABLE, prepare_environment

prepare_environment()

import os

import psutil
from playwright.sync_api import Browser, Page, sync_playwright

from engine.plan import TrainPlan, write_plan
from studio.home import Home
from studio.journey import STEPS, Step
from studio.projects import Project, Projects
from tests.studio.jobs.running import (
    end_workers,
    long_plan,
    plan_of,
    prepare_home,
    start,
    wait_until_over,
)
from tests.studio.pages.browsing import ROOT, Studio, launch, open_studio, visit

NUM_TABS = 5
WINDOW_SECONDS = 20.0
TABLE_BYTES = 200_000_000
MOST_MILLISECONDS = 600_000
SAMPLE = ROOT / "data_prep" / "samples" / "tickets.csv"
# The heading of a step, and what a person comes there for.
HEADINGS = {
    Step.UPLOAD: "Your table",
    Step.PREPARE: "Prepare your examples",
    Step.PLAN: "Plan",
    Step.TRAIN: "Train",
    Step.COMPARE: "Is it better than prompting?",
    Step.PUBLISH: "Publish",
}
CONTENT = {
    Step.UPLOAD: "#project-view .ts-table",
    Step.PREPARE: "#project-view .ts-step-card",
    Step.PLAN: "#project-view input[type=radio]",
    Step.TRAIN: "#project-view .ts-train-charts svg",
    Step.COMPARE: "#project-view .ts-verdict",
    Step.PUBLISH: "#project-view input[type=radio]",
}
# Clicks a button; gives the milliseconds until what can be seen differs, and until the content is
# there. Looked at in each frame; a step's button that is marked as the open one is seen too.
CLICK = """async ([button, heading, content]) => {
  const marks = () => [...document.querySelectorAll("button.ts-step")]
    .map((one) => one.getAttribute("aria-current")).join();
  const look = () => marks() + document.body.innerText;
  const seen = (selector) => [...document.querySelectorAll(selector)]
    .filter((one) => one.checkVisibility({ visibilityProperty: true }));
  const is_there = () => seen("#project-view h2").some((one) => one.innerText === heading)
    && seen(content).length > 0;
  const before = look(), begun = performance.now();
  document.querySelector(button).click();
  let changed = null;
  while (performance.now() - begun < 30000) {
    await new Promise(requestAnimationFrame);
    if (changed === null && look() !== before) changed = performance.now() - begun;
    if (changed !== null && is_there()) return [changed, performance.now() - begun];
  }
  throw new Error(`${button}: nothing came`);
}"""
HEALTH = """async () => {
  const begun = performance.now();
  await (await fetch("/healthz")).json();
  return performance.now() - begun;
}"""


@dataclass(frozen=True)
class Figure:
    """One measured number; `target` is what it should stay under, None: nobody set one."""

    name: str
    unit: str
    target: float | None
    values: list[float]
    takes_worst: bool = False

    @property
    def measured(self) -> float:
        """What is held against the target."""
        return max(self.values) if self.takes_worst else statistics.median(self.values)


@dataclass(frozen=True)
class Setting:
    """Where and how often to measure."""

    folder: Path
    browser: Browser
    num_rounds: int


def second_start(setting: Setting) -> Iterator[Figure]:
    """From the command to the rendered start page; the first start is not counted."""
    seconds = []
    for _ in range(setting.num_rounds + 1):
        begun = time.perf_counter()
        with (
            open_studio(setting.folder / "home") as studio,
            visit(setting.browser, studio.address) as (page, _),
        ):
            page.get_by_role("button", name="Start with support tickets").wait_for()
            seconds.append(time.perf_counter() - begun)
    yield Figure("second start to the start page", "s", 5.0, seconds[1:])


def clicks(setting: Setting) -> Iterator[Figure]:
    """From the click on a step's button to something new, and to the step's content."""
    home, project = sample_project(setting.folder)
    with (
        open_studio(home.root) as studio,
        visit(setting.browser, studio.address) as (page, _),
    ):
        open_step(page, studio, project, Step.PUBLISH)
        changed: dict[Step, list[float]] = {step: [] for step in STEPS}
        there: dict[Step, list[float]] = {step: [] for step in STEPS}
        for number in range(setting.num_rounds + 1):
            for step in STEPS:
                seen, complete = click(page, step)
                if number:  # the first time, the engine process starts
                    changed[step].append(seen)
                    there[step].append(complete)
        for step in STEPS:
            yield Figure(f"{step.value}: something changed", "ms", 200.0, changed[step])
            yield Figure(f"  {step.value} is there", "ms", None, there[step])


def large_table(setting: Setting) -> Iterator[Figure]:
    """A table of 200 MB, and what another tab feels of it."""
    home, project = sample_project(setting.folder)
    path = write_large_table(setting.folder / "large.csv")
    with (
        open_studio(home.root) as studio,
        visit(setting.browser, studio.address) as (page, _),
    ):
        page.set_default_timeout(MOST_MILLISECONDS)
        other = page.context.new_page()
        open_step(other, studio, project, Step.UPLOAD)
        uploads: list[float] = []
        page.on(
            "requestfinished",
            lambda request: (
                uploads.append(request.timing["responseEnd"] / 1e3)
                if urlsplit(request.url).path.endswith("/upload")
                else None
            ),
        )
        health, answers = [], []
        begun = time.perf_counter()
        page.locator("#start-file input[type=file]").set_input_files(path)
        preview = page.locator("#project-view .ts-table").first
        while not preview.is_visible():
            for step in (Step.TRAIN, Step.UPLOAD):
                health.append(other.evaluate(HEALTH))
                answers.append(click(other, step)[0])
            if time.perf_counter() - begun > MOST_MILLISECONDS / 1e3:
                raise SystemExit("The preview never came")
        seconds = time.perf_counter() - begun
    yield Figure("200 MB: upload", "s", None, uploads)
    yield Figure("  upload, reading and preview", "s", None, [seconds])
    for name, values in (("/healthz", health), ("a click in another tab", answers)):
        yield Figure(f"  {name}, meanwhile, p95", "ms", None, [percentile(values, 95)])
        yield Figure(f"  {name}, meanwhile, worst", "ms", 1000.0, values, takes_worst=True)


def tabs(setting: Setting) -> Iterator[Figure]:
    """Share of one core that tabs take of the server process, beside what it takes anyway."""
    home = prepare_home(setting.folder)
    try:
        done, at_work = (plan_of(home), long_plan(home))
        finished = project_on(home, done, wait=True)
        trained = project_on(home, at_work)
        with (
            open_studio(home.root) as studio,
            visit(setting.browser, studio.address) as (page, _),
        ):
            page.wait_for_timeout(5000)
            alone: list[float] = []
            for name, project in (("training", trained), ("finished", finished)):
                before = shares(page, studio, setting.num_rounds)
                with many_tabs(page, studio, project):
                    taken = shares(page, studio, setting.num_rounds)
                extra = [share - statistics.median(before) for share in taken]
                yield Figure(f"{NUM_TABS} tabs on a {name} run", "%", 5.0, extra)
                alone += before
            yield Figure("  the server without them", "%", None, alone)
    finally:
        end_workers(home)


def sample_project(folder: Path) -> tuple[Home, Project]:
    """The sample, taken through all steps but the last by the verbs; trained for a short while."""
    home = Home(folder / "sample")
    environment = {**os.environ, HOME_VARIABLE: str(home.root)}
    for verb in (
        ["upload", str(SAMPLE)], ["prepare"], ["plan", "-o", "epochs=0.2"], ["train"], ["compare"],
    ):  # fmt: skip
        subprocess.run(
            [sys.executable, "app.py", *verb], cwd=ROOT, env=environment, check=True,
            capture_output=True,
        )  # fmt: skip
    return home, new_project(home, *(home.find(kind, "latest") for kind in ("plan", "train")))


def new_project(home: Home, plan: Path, run: Path) -> Project:
    """A project on the newest data."""
    projects = Projects(home)
    compare = home.all("compare")
    return projects.change(
        projects.new("Support tickets").id,
        upload=home.find("upload", "latest").name, dataset=home.find("dataset", "latest").name,
        plan=plan.stem, runs=(run.name,), run=run.name,
        compare_job=compare[-1].name if compare else "",
    )  # fmt: skip


def project_on(home: Home, plan: TrainPlan, *, wait: bool = False) -> Project:
    """A project whose plan is being trained, or has been."""
    path = home.place("plan") / f"{home.new('plan').name}.yaml"
    path.write_text(write_plan(plan), encoding="utf-8")
    job = start(home, plan)
    if wait:
        wait_until_over(home, job)
    return new_project(home, path, job.folder)


def open_step(page: Page, studio: Studio, project: Project, step: Step) -> None:
    """Open a step by its address."""
    page.goto(f"{studio.origin}/?project={project.id}&step={step.value}")
    page.locator(f"#to-{step.value}[aria-current=step]").wait_for()


def click(page: Page, step: Step) -> tuple[float, float]:
    """Milliseconds from the click on a step's button to something new, and to its content."""
    changed, there = page.evaluate(CLICK, [f"#to-{step.value}", HEADINGS[step], CONTENT[step]])
    return changed, there


@contextmanager
def many_tabs(page: Page, studio: Studio, project: Project) -> Iterator[None]:
    """Several tabs of one browser on the train step."""
    opened = [page.context.new_page() for _ in range(NUM_TABS)]
    for tab in opened:
        open_step(tab, studio, project, Step.TRAIN)
        tab.locator(CONTENT[Step.TRAIN]).first.wait_for()
    page.wait_for_timeout(5000)
    yield
    for tab in opened:
        tab.close()


def shares(page: Page, studio: Studio, num_rounds: int) -> list[float]:
    """Percent of one core that the server process takes."""
    process = psutil.Process(studio.process.pid)

    def used_seconds() -> float:
        times = process.cpu_times()
        return times.user + times.system

    found = []
    for _ in range(num_rounds):
        used, begun = used_seconds(), time.perf_counter()
        page.wait_for_timeout(WINDOW_SECONDS * 1e3)
        found.append(100 * (used_seconds() - used) / (time.perf_counter() - begun))
    return found


def write_large_table(path: Path) -> Path:
    """Tickets of 200 MB."""
    words = "my parcel has not arrived, and nobody answers the telephone " * 3
    with path.open("w", encoding="utf-8") as file:
        file.write("number,text,team\n")
        row = 0
        while file.tell() < TABLE_BYTES if row % 1000 == 0 else True:
            row += 1
            team = ("billing", "shipping", "returns")[row % 3]
            file.write(f'{row},"{words}{row}",{team}\n')
    return path


def percentile(values: list[float], percent: int) -> float:
    """The value below which that part of all values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


MEASUREMENTS: dict[str, Callable[[Setting], Iterator[Figure]]] = {
    "start": second_start,
    "clicks": clicks,
    "tabs": tabs,
    "large": large_table,
}


def main() -> None:
    """Measure one after the other; print what was measured beside its target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="leave the 200 MB out")
    parser.add_argument("--only", choices=MEASUREMENTS, help="one measurement alone")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    names = [options.only] if options.only else list(MEASUREMENTS)
    if options.quick:
        names = [name for name in names if name != "large"]
    medians = {}
    with sync_playwright() as playwright:
        browser = launch(playwright)
        for name in names:
            with tempfile.TemporaryDirectory() as folder:
                setting = Setting(Path(folder), browser, options.rounds)
                for figure in MEASUREMENTS[name](setting):
                    spread = f"{min(figure.values):.3g} to {max(figure.values):.3g}"
                    target = "" if figure.target is None else f"target < {figure.target:g}"
                    print(
                        f"{figure.name:42s} {figure.measured:8.3g} {figure.unit:2s}  "
                        f"{target:13s} ({spread})",
                        flush=True,
                    )
                    medians[f"{name}: {figure.name.strip()}"] = figure.measured
        browser.close()
    print(json.dumps({"measured": medians}))


if __name__ == "__main__":
    main()
