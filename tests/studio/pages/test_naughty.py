"""Texts that would do harm if a page let them: in every place that a person or a model fills."""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from typer.testing import CliRunner

from engine.jobs import Job
from engine.plan import BaseChoice, MethodChoice, TrainPlan, write_plan
from studio.home import Home
from studio.jobs.queue import Queue
from studio.jobs.requests import TABLE, PredictRequest, PublishRequest
from studio.journey import STEPS, Step
from studio.projects import Project, Projects
from studio.runs.about import change_about
from studio.settings import HOME_VARIABLE
from studio.verbs import app
from studio.web.html import visible
from templates.dataset import read_manifest
from tests.engine.tiny import save_tiny
from tests.studio.jobs.running import end_workers, with_workers_at_once
from tests.studio.pages.browsing import Seen, Studio, open_studio, visit
from tests.studio.pages.compared import compared
from tests.studio.runs.conftest import SCHEDULE, go_on, train

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

IMAGE = "<img src=http://example.invalid/x onerror=alert(1)>"
SCRIPT = '"><script>alert(1)</script>'
STYLE = "<style>@import 'http://example.invalid/z'</style>"
ADDRESS = "javascript:alert(1)"
PICTURE = "![x](http://example.invalid/y.png)"
LINK = "[a](javascript:alert(1))"
BRACES = "{{7*7}}"
DOLLAR = "${alert(1)}"
TURNED = "to\u202eegap\u202c"
CONTROL = "bell\x07 escape\x1b[31m"
LONG = "w" * 10_000
FORMULA = "=cmd|' /C calc'!A0"
ALL = (
    IMAGE, SCRIPT, STYLE, ADDRESS, PICTURE, LINK, BRACES, DOLLAR, TURNED, CONTROL, LONG, FORMULA,
)  # fmt: skip
expect.set_options(timeout=30_000)  # machines of tests are busy
LABELS = (FORMULA, IMAGE, SCRIPT)
FILE = "<img src=x onerror=alert(1)>.csv"  # no file's name holds a slash
# What must stand on each step, as text.
SHOWN = {
    Step.UPLOAD: (FILE, IMAGE, SCRIPT, FORMULA, visible(TURNED)),
    Step.PREPARE: (IMAGE, SCRIPT, FORMULA),
    Step.PLAN: ("<b onclick=alert(1)>base",),
    Step.TRAIN: (SCRIPT, PICTURE, FORMULA, "<b onclick=alert(1)>base"),
    Step.COMPARE: (IMAGE, SCRIPT, FORMULA),
    Step.PUBLISH: (IMAGE, SCRIPT),
}
CONTENT = {
    Step.UPLOAD: "#project-view .ts-table",
    Step.PREPARE: "#project-view .ts-step-card",
    Step.PLAN: "#project-view input[type=radio]",
    Step.TRAIN: "#project-view .ts-train-charts svg",
    Step.COMPARE: "#project-view .ts-verdict",
    Step.PUBLISH: "#project-view .ts-card-page",
}
# Opens whatever is folded.
UNFOLD = """() => {
  document.querySelectorAll("button.label-wrap:not(.open)").forEach((one) => one.click());
  document.querySelectorAll("details").forEach((one) => one.open = true);
}"""
# What a text has become if it was taken for markup.
MARKUP = """() => [...document.querySelectorAll("*")].filter((one) =>
  [...one.attributes].some((attribute) => attribute.value.startsWith("javascript:")
    && ["href", "src", "action", "formaction"].includes(attribute.name))
  || ["onerror", "onclick", "onload"].some((name) => one.getAttribute(name)?.includes("alert(1)"))
  || /example[.]invalid/.test(one.getAttribute("src") ?? one.getAttribute("href") ?? "")
  || (["STYLE", "SCRIPT"].includes(one.tagName) && one.childElementCount === 0
    && /^(@import 'http:..example|alert.1.)/.test(one.textContent.trim()))
).map((one) => one.outerHTML.slice(0, 200))"""


def write_table(folder: Path) -> Path:
    """Every naughty text once, and short tickets that can be learned."""
    path = folder / FILE
    rows = [(text, LABELS[place % 3], text) for place, text in enumerate(ALL)]
    rows += [
        (f"{SCRIPT} {word} {number}", LABELS[place], BRACES)
        for number in range(16)
        for place, word in enumerate(("invoice", "parcel", "kettle"))
    ]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([(SCRIPT, IMAGE, FORMULA), *rows])
    return path


def verb(home: Home, *arguments: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(HOME_VARIABLE, str(home.root))
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.stderr


def done(home: Home, request: PredictRequest | PublishRequest, **files: Path) -> Job:
    """Do a job in this very process."""
    queue = Queue(home)
    job = queue.submit(request, files=files)
    queue.stop(job)  # out of the line
    go_on(home, job)
    assert job.status().state == "finished"
    return job


def make_project(folder: Path) -> tuple[Home, Project]:
    """Take naughty data through all six steps."""
    home = with_workers_at_once(Home(folder / "home"))
    base = save_tiny(folder / "roots" / "<b onclick=alert(1)>base", "llama")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 512}))
    verb(home, "upload", write_table(folder))
    verb(
        home, "prepare", "--base", base, "--task", "classification",
        "--input", f"text={SCRIPT}", "--label", IMAGE,
        "--instruction", f"{STYLE} {LINK} {{labels}}", "--separator", f" {DOLLAR}:",
    )  # fmt: skip
    dataset = home.find("dataset", "latest")
    plan = TrainPlan(
        base=BaseChoice(id=str(base)),
        dataset_id=dataset.name,
        dataset_sha256=read_manifest(dataset).sha256,
        method=MethodChoice(name="lora", options={"rank": 4}),
        schedule=SCHEDULE.model_copy(update={"epochs": 1, "batch_size": 8}),
    )
    path = home.place("plan") / f"{home.new('plan').name}.yaml"
    path.write_text(write_plan(plan), encoding="utf-8")
    runs = [train(home, plan), train(home, plan.model_copy(update={"seed": 1}))]
    change_about(runs[0], name=PICTURE, note=f"{IMAGE} {LONG[:9000]}")
    change_about(runs[1], name=LINK, note=SCRIPT)
    table = folder / "new.csv"
    with table.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([(SCRIPT, FORMULA), (IMAGE, FORMULA), (FORMULA, IMAGE)])
    request = PredictRequest(run_id=runs[0].id, table_name=FILE)
    projects = Projects(home)
    for text in ALL:
        projects.new(text[:100])
    recipe = json.loads((dataset / "recipe.json").read_text())
    title = f"{IMAGE} {SCRIPT}"
    project = projects.change(
        projects.new(f"{IMAGE} {LINK}").id,
        base=str(base), upload=home.find("upload", "latest").name, dataset=dataset.name,
        recipe=recipe, plan=path.stem, runs=tuple(run.id for run in runs), run=runs[0].id,
        compare_job=compared(home, runs[0].id).id,
        predict_job=done(home, request, **{TABLE: table}).id,
        publish_job=done(home, PublishRequest(run_id=runs[0].id, name=title)).id,
        publishing={"title": title},
    )  # fmt: skip
    return home, project


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Home, Project, Studio]]:
    folder = tmp_path_factory.mktemp("naughty")
    home, project = make_project(folder)
    variables = {"STUDIO_MODEL_ROOTS": str(folder / "roots")}
    with open_studio(home.root, variables=variables) as studio:
        yield home, project, studio
    end_workers(home)


def must_be_text(page: Page, seen: Seen, texts: tuple[str, ...] = ()) -> None:
    for text in texts:
        expect(page.locator("body")).to_contain_text(text)
    assert page.evaluate(MARKUP) == []
    seen.must_be_clean()


def must_fit(page: Page) -> None:
    """No text makes the page wider than a telephone, or than a screen."""
    for width in (390, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.step
def test_on_every_step_texts_stay_texts(
    made: tuple[Home, Project, Studio], browser: Browser
) -> None:
    _, project, studio = made
    with visit(browser, studio.address) as (page, seen):
        # Two pages of a list; the newest first, what cannot be printed left out.
        must_be_text(page, seen, (IMAGE, FORMULA, LONG[:100], "bell  escape", "to egap", DOLLAR))
        page.get_by_role("button", name="Older").click()
        must_be_text(page, seen, (BRACES, LINK, PICTURE, ADDRESS, STYLE, SCRIPT))
        must_fit(page)
        page.goto(f"{studio.origin}/?project={project.id}&step=upload")
        for step in STEPS:
            page.locator(f"#to-{step.value}").click()
            expect(page.locator(CONTENT[step]).locator("visible=true").first).to_be_visible()
            expect(page.locator(".ts-brand")).to_contain_text(IMAGE)
            assert IMAGE in page.title()
            page.evaluate(UNFOLD)
            must_be_text(page, seen, SHOWN[step])
            must_fit(page)


def test_toasts_tell_texts(
    made: tuple[Home, Project, Studio], browser: Browser, tmp_path: Path
) -> None:
    home, project, studio = made
    with visit(browser, studio.address) as (page, seen):
        toast = page.get_by_test_id("toast-body")
        page.goto(f"{studio.origin}/?project=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E")
        expect(toast.first).to_contain_text("<img src=x onerror=alert(1)>")
        must_be_text(page, seen)
        bad = tmp_path / FILE
        bad.write_text("")
        page.locator("#start-file input[type=file]").set_input_files(bad)
        expect(page.get_by_text("is empty").or_(page.get_by_text("no rows")).first).to_be_visible()
        must_be_text(page, seen)
        page.goto(f"{studio.origin}/?project={project.id}&step=train")
        page.get_by_role("combobox", name="Run").click()
        page.get_by_role("option", name=LINK).click()
        page.get_by_role("button", name=f"Use {LINK} to compare").click()
        expect(toast.first).to_contain_text(f"{LINK} goes on to compare")
        must_be_text(page, seen)
        Projects(home).change(project.id, run=project.run)


def test_no_table_that_is_taken_away_holds_a_formula(
    made: tuple[Home, Project, Studio], browser: Browser
) -> None:
    _, project, studio = made
    with visit(browser, studio.address) as (page, seen):
        page.goto(f"{studio.origin}/?project={project.id}&step=compare")
        for name in ("all answers (CSV)", "the answers (CSV)"):
            button = page.get_by_role("button", name=name)
            with page.expect_download() as download:
                button.click()
            content = Path(download.value.path()).read_text(encoding="utf-8")
            rows = list(csv.reader(io.StringIO(content)))
            cells = [cell for row in rows for cell in row]
            assert f"'{FORMULA}" in cells
            assert not [cell for cell in cells if cell.startswith(("=", "+", "@", "\t"))]
        seen.must_be_clean()
