"""Step 3: which base, which method, which settings, and what that takes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from studio.pages.page import Page, Shell, hidden_field, new_text, piece
from studio.pages.plan_bases import build_bases
from studio.pages.plan_cost import build_cost
from studio.pages.plan_desk import Desk
from studio.pages.plan_methods import ASK_AGAIN, build_methods
from studio.pages.plan_settings import build_settings
from studio.planning import changed_choices, choices_of, read_foreign_plan
from studio.projects import Project
from studio.web.choices import sent
from studio.web.html import callout, heading
from studio.web.toasts import told
from templates.errors import PlanError


def build(shell: Shell) -> Page:
    """Build the step.

    Args:
        shell: what the wizard gives.

    Returns:
        The step.
    """
    server = shell.server
    desk = Desk(server)
    piece(heading(
        "Plan",
        "Choose what learns and how, and see what it takes before it begins. You can press Next "
        "at once: the choices below suit most tables.",
    ))  # fmt: skip
    refresh = hidden_field(ASK_AGAIN)
    bases = build_bases(shell, desk, refresh)
    methods, method, remedy = build_methods(desk)
    # The settings stand above the estimate and fill it, so it is built first and placed later.
    with gr.Column(render=False) as bottom:
        cost, upload, estimate = build_cost(server.home, desk)
    settings = build_settings(shell, desk, cost, methods)
    bottom.render()
    with gr.Column(visible=False) as doubt:
        doubts = piece()
        with gr.Row(elem_classes="ts-next"):
            back = gr.Button("Go back and change it")
            anyway = gr.Button("Train it all the same", variant="stop")
    with gr.Row(elem_classes="ts-next"):
        onward = gr.Button("Next: train", variant="primary")

    parts = (bases, methods, settings, cost)
    figures = [output for part in parts[1:] for output in part.outputs]
    everything = [*bases.outputs, *figures, doubt, refresh]

    def show_figures(project: Project) -> list[Any]:
        return [value for part in parts[1:] for value in part.show(project)]

    def show(project: Project) -> list[Any]:
        return [*bases.show(project), *show_figures(project), gr.Column(visible=False), new_text()]

    def ask(project: Project) -> Iterator[list[Any]]:
        is_known = desk.is_known(project)
        if not is_known:  # of another base perhaps: what was shown is no longer true
            desk.trouble = None  # of the time before
            yield show_figures(project)
        desk.ask(project)
        project = server.projects.read(project.id)
        if is_known:  # only what depends on the machine, such as its free memory, is new
            same = [gr.skip()] * len(settings.outputs)
            yield [*methods.show(project), *same, *cost.show(project)]
        else:
            yield show_figures(project)

    def choose_method(project: Project, text: str) -> list[Any]:
        name = sent(text)
        if name not in desk.describe()["methods"]:
            raise PlanError("There is no such method", fix="Choose one of the cards")
        project = edit(project, {"method": name})
        desk.reckon(project)
        return [*settings.show(project), *cost.show(project)]

    def apply(project: Project, text: str) -> list[Any]:
        changes = remedy_of(desk, project, sent(text))
        base = changes.pop("base", project.base)
        changes.pop("revision", "")
        if base != project.base:
            project = desk.choose(project, base)
        project = edit(project, changes)
        desk.reckon(project)
        return show(project)

    def take(project: Project, path: str) -> list[Any]:
        plan = read_foreign_plan(Path(path))
        if plan.method.name not in desk.describe()["methods"]:
            raise PlanError(
                f"The plan asks for a method called {plan.method.name[:80]!r}", where="plan file",
                fix="Choose a plan for one of the methods on this page",
            )  # fmt: skip
        choices = choices_of(plan, project.choices)  # before anything is changed
        project = desk.choose(project, plan.base.id)
        project = server.projects.change(project.id, choices=choices.model_dump(mode="json"))
        desk.touch(project)
        desk.reckon(project)
        told("The choices of the plan file are on the page now. The data stay those you prepared.")
        return show(project)

    def edit(project: Project, changes: dict[str, Any]) -> Project:
        desk.touch(project)
        return server.projects.edit(
            project.id,
            lambda now: {"choices": changed_choices(now.choices, changes).model_dump(mode="json")},
        )

    def go_on(project: Project) -> list[Any]:
        answer = desk.reckon(project)
        if answer is not None and answer.estimate is not None and not answer.estimate.fits:
            text = " ".join(answer.estimate.blockers)
            view = callout("bad", "This plan will most likely fail", text)
            return [gr.skip(), gr.Column(visible=True), str(view)]
        desk.keep(project)
        return ["train", gr.Column(visible=False), ""]

    def insist(project: Project) -> str:
        desk.keep(project, force=True)
        return "train"

    shell.on(refresh.change, ask, outputs=figures)
    shell.on(
        method.change, choose_method, [method], [*settings.outputs, *cost.outputs],
        trigger_mode="always_last",
    )  # fmt: skip
    shell.on(remedy.change, apply, [remedy], everything)
    shell.on(upload.upload, take, [upload], everything)
    shell.on(onward.click, go_on, outputs=[shell.step, doubt, doubts], busy=estimate)
    shell.on(anyway.click, insist, outputs=[shell.step])
    shell.on(back.click, lambda project: gr.Column(visible=False), outputs=[doubt])
    return Page(everything, show)


def remedy_of(desk: Desk, project: Project, text: str) -> dict[str, Any]:
    """Look up what a remedy's button stands for.

    Args:
        desk: said what would make a plan fit.
        project: whose plan.
        text: "METHOD PLACE", or "- PLACE" for the chosen plan.

    Returns:
        Changes of the choices.

    Raises:
        PlanError: there is no such remedy, perhaps not any more.
    """
    name, _, number = text.partition(" ")
    answer, table = desk.answer(project), desk.rows(project)
    offered = {row.name: row.remedies for row in table.rows} if table else {}
    remedies = (answer.remedies if answer else ()) if name == "-" else offered.get(name, ())
    if not number.isdecimal() or int(number) >= len(remedies):
        raise PlanError("This change is not offered any more", fix="Choose one that is shown")
    mine = {} if name == "-" else {"method": name}
    return {**mine, **remedies[int(number)].changes}
