"""The page: a start screen and six steps. Each step is one file in `pages/`.

Nothing that matters lives in this process or in the browser but the id of the open project and the
name of the step, which stand in the address too.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl

import gradio as gr
from markupsafe import Markup

from studio.journey import STEPS, Step, StepState, journey
from studio.pages import compare, plan, prepare, publish, start, train, upload
from studio.pages.page import Page, Shell
from studio.projects import Project
from studio.server import Server
from studio.web.toasts import Toasts
from templates.errors import RunError

_BUILD: dict[Step, Callable[[Shell], Page]] = {
    Step.UPLOAD: upload.build,
    Step.PREPARE: prepare.build,
    Step.PLAN: plan.build,
    Step.TRAIN: train.build,
    Step.COMPARE: compare.build,
    Step.PUBLISH: publish.build,
}
_TITLE = "Tuning Studio"
_GONE = ["ts-gone"]  # not `visible`: what is shown again would show its hidden fields too
_TOLD = {
    StepState.LOCKED: "locked: finish the step before it",
    StepState.OPEN: "open",
    StepState.WORKING: "at work",
    StepState.DONE: "done",
    StepState.STALE: "an earlier step changed; do it again",
}


def build_wizard(server: Server) -> gr.Blocks:
    """Build the whole page.

    Args:
        server: what it shows and acts on.

    Returns:
        The blocks, not served yet.
    """
    blocks = gr.Blocks(title=_TITLE, analytics_enabled=False, delete_cache=(3600, 86_400))
    with blocks:
        shell = Shell(
            server,
            Toasts(server.home.root),
            project=gr.Textbox(visible="hidden", elem_id="project"),
            step=gr.Textbox(visible="hidden", elem_id="step"),
        )
        words = gr.Textbox(visible="hidden", elem_id="words")
        address = gr.Textbox(visible="hidden")
        with gr.Row(elem_classes="ts-top"):
            name = gr.HTML(_brand(""), padding=False, elem_classes=["ts-plain-block"])
            home_button = gr.Button("All projects", size="sm", elem_classes="ts-small-button")
            theme_button = gr.Button("Light / dark", size="sm", elem_classes="ts-small-button")
        with gr.Column(elem_classes=_GONE, elem_id="start-view") as start_view:
            first = start.build(shell)
        with gr.Column(elem_classes=_GONE, elem_id="project-view") as project_view:
            with gr.Row(elem_classes="ts-steps"):
                buttons = {
                    step: gr.Button(
                        step.value.capitalize(), elem_id=f"to-{step.value}", elem_classes="ts-step"
                    )
                    for step in STEPS
                }
            # Handlers of all pages end in what stands here, so it is known before they are built.
            shell.head += [name, words, *buttons.values()]
            shell.show_head = lambda project: _head(server, project)
            with gr.Walkthrough(selected=0, elem_classes="ts-walk") as walkthrough:
                pages = {}
                for number, step in enumerate(STEPS):
                    with gr.Step(step.value.capitalize(), id=number):
                        pages[step] = _BUILD[step](shell)

        outputs = [walkthrough, start_view, project_view, *shell.head, *first.outputs]
        outputs += [output for page in pages.values() for output in page.outputs]

        def open_step(project_id: str, step_name: str) -> list[Any]:
            step = Step(step_name) if step_name in tuple(Step) else None
            if not project_id or step is None:
                return _opened(None, None)
            if step in (Step.PREPARE, Step.PLAN):
                server.warm_up()
            return _opened(server.projects.read(project_id), step)

        def _opened(project: Project | None, step: Step | None) -> list[Any]:
            """Fill what is seen; whatever is hidden stays as it is until it is opened."""
            if project is None or step is None:
                head = [_brand(""), _words(_TITLE), *(gr.skip() for _ in STEPS)]
                hidden = [value for page in pages.values() for value in _left_alone(page)]
                shown = first.show(_NOBODY)
                return [
                    gr.skip(), gr.Column(elem_classes=[]), gr.Column(elem_classes=_GONE), *head,
                    *shown, *hidden,
                ]  # fmt: skip
            values: list[Any] = [
                gr.Walkthrough(selected=STEPS.index(step)), gr.Column(elem_classes=_GONE),
                gr.Column(elem_classes=[]), *_head(server, project),
                *(gr.skip() for _ in first.outputs),
            ]  # fmt: skip
            for name, page in pages.items():
                values += _shown(page, project) if name is step else _left_alone(page)
            return values

        def _shown(page: Page, project: Project) -> Sequence[Any]:
            """Fill a step; where that fails it is open all the same, with a message."""
            try:
                values = page.show(project)
            except Exception as error:
                shell.toasts.show(error)
                return _left_alone(page)
            assert len(values) == len(page.outputs), "one value for each output"
            return values

        def arrive(address: str) -> tuple[str, str]:
            """Read the address that the page was opened with: which project, which step."""
            asked = dict(parse_qsl(address.removeprefix("?")))
            if not asked.get("project"):
                return "", "start"
            try:
                project = server.projects.read(asked["project"])
            except RunError as error:
                shell.toasts.show(error)
                return "", "start"
            states = journey(server.home, server.queue, project)
            step = asked.get("step", "")
            is_open = step in tuple(Step) and states.of(Step(step)) is not StepState.LOCKED
            return project.id, step if is_open else states.next_step.value

        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        guarded = shell.toasts.guarded
        shell.step.change(guarded(open_step), [shell.project, shell.step], outputs, **quiet)
        shell.step.change(
            None, [shell.project, shell.step], None, api_visibility="private",
            js="(project, step) => { studio.showAddress(project, step); studio.top(); }",
        )  # fmt: skip
        words.change(None, words, None, js="(text) => studio.tell(JSON.parse(text))", **quiet)
        # In the browser alone, so that a press is answered at once; what it opens comes after.
        for step, button in buttons.items():
            button.click(None, None, shell.step, js=f"() => {json.dumps(step.value)}", **quiet)
        # A real departure: what still runs for this project cannot write into the next one.
        home_button.click(None, None, None, js="() => studio.leave()", **quiet)
        theme_button.click(None, None, None, js="() => studio.turnTheme()", **quiet)
        blocks.load(
            guarded(arrive),
            address,
            [shell.project, shell.step],
            js="() => studio.openedWith",
            **quiet,
        )
    blocks.queue(default_concurrency_limit=16, max_size=64, api_open=False)
    return blocks


_NOBODY = Project(id="", name="none", created_at=0.0)


def _left_alone(page: Page) -> Sequence[Any]:
    return [gr.skip()] * len(page.outputs)


def _brand(project_name: str) -> str:
    return str(
        Markup('<h1 class="ts-brand"><strong>Tuning Studio</strong><span>{}</span></h1>').format(
            project_name
        )
    )


def _head(server: Server, project: Project) -> list[Any]:
    """Say on the steps' buttons how far each is; the browser marks the one that is open."""
    states = journey(server.home, server.queue, project)
    buttons = [
        gr.Button(
            interactive=states.of(step) is not StepState.LOCKED,
            elem_classes=["ts-step", f"ts-{states.of(step).value}", f"ts-at-{step.value}"],
        )
        for step in STEPS
    ]
    working = [step.value for step in STEPS if states.of(step) is StepState.WORKING]
    mark = f"… {working[0]}: " if working else ""
    told = {step.value: _TOLD[states.of(step)] for step in STEPS}
    return [_brand(project.name), _words(f"{mark}{project.name} – {_TITLE}", told), *buttons]


def _words(title: str, steps: Mapping[str, str] | None = None) -> str:
    """Tell the browser the window's title, and how far each step is, for screen readers."""
    return json.dumps({"title": title, "steps": steps or {}})
