"""The projects there are: open, rename, delete."""

from collections.abc import Sequence
from typing import Any

import gradio as gr
from markupsafe import Markup

from studio.journey import STEPS, Journey, Step, StepState, journey
from studio.pages.page import Shell, hidden_field, hidden_number, piece
from studio.projects import Project
from studio.web.html import badge, callout, empty, join, section, visible
from studio.web.words import count, moment
from templates.errors import RunError

_PER_PAGE = 6
_SEARCH_FROM = 9
_SAID = {
    StepState.LOCKED: ("", "not yet open"),
    StepState.OPEN: ("", "open"),
    StepState.WORKING: ("…", "at work"),
    StepState.DONE: ("✓", "done"),
    StepState.STALE: ("!", "to be done again, for an earlier step changed"),
}


def matching(projects: Sequence[Project], words: str) -> list[Project]:
    """Search by name.

    Args:
        projects: any.
        words: all of them must be in the name.

    Returns:
        Those that fit, in the same order.
    """
    wanted = words.casefold().split()
    return [one for one in projects if all(word in one.name.casefold() for word in wanted)]


def project_line(project: Project, states: Journey, *, now: float | None = None) -> Markup:
    """Say what a project is and how far it is.

    Args:
        project: which.
        states: of its steps.
        now: UTC seconds; default: now.

    Returns:
        Name, step, and a mark for each step.
    """
    marks = join(_mark(step, states.of(step)) for step in STEPS)
    begun = moment(project.created_at, now=now)
    return Markup(
        '<div class="ts-project"><p class="ts-project-name">{}</p><p class="ts-soft">{}, begun {}'
        '</p><ol class="ts-start-marks" aria-label="Steps">{}</ol></div>'
    ).format(visible(project.name), _standing(states), begun, marks)


def _standing(states: Journey) -> Markup:
    working = [step for step in STEPS if states.of(step) is StepState.WORKING]
    if working:
        return badge(f"{working[0].value} is at work", "busy")
    if states.publish is StepState.DONE:
        return badge("model written", "good")
    step = states.next_step
    return Markup("at step {}, {}").format(STEPS.index(step) + 1, step.value)


def _mark(step: Step, state: StepState) -> Markup:
    sign, words = _SAID[state]
    number = sign or str(STEPS.index(step) + 1)
    said = f"{step.value}: {words}"
    return Markup(
        '<li class="ts-mark-{}" title="{}"><span aria-hidden="true">{}</span>'
        '<span class="ts-unseen">{}</span></li>'
    ).format(state.value, said, number, said)


class ProjectList:
    """The list on the start screen; `outputs` and `show` as of a page.

    A fixed number of lines, filled from files: their ids stand in the browser, so that a press
    means what the person saw.
    """

    def __init__(self, shell: Shell) -> None:
        """Place it.

        Args:
            shell: what the wizard gives.
        """
        self._shell, self._server = shell, shell.server
        self._head = piece()
        with gr.Column(visible=False, elem_classes="ts-card") as self._panel:
            self._question = piece()
            self._new_name = gr.Textbox(label="New name", max_length=100, elem_id="new-name")
            with gr.Row():
                self._save = gr.Button("Save", variant="primary", size="sm")
                self._delete = gr.Button("Delete the project", variant="stop", size="sm")
                self._keep = gr.Button("Leave it", size="sm")
        self._search = gr.Textbox(
            label="Search by name", placeholder="Part of a name", visible=False,
            elem_id="project-search",
        )  # fmt: skip
        self._none = piece()
        lines = [self._line(place) for place in range(_PER_PAGE)]
        with gr.Row(visible=False) as self._turning:
            self._newer = gr.Button("Newer", size="sm", elem_classes="ts-small-button")
            self._where = piece()
            self._older = gr.Button("Older", size="sm", elem_classes="ts-small-button")
        self._ids = hidden_field("project-ids")
        self._asked = hidden_field("project-asked")
        self._first = hidden_number("project-first")
        self.outputs = [
            self._head, self._panel, self._search, self._none, self._turning, self._where,
            self._newer, self._older,
            self._ids, self._first, *(part for line in lines for part in line[:2]),
        ]  # fmt: skip
        for place, (_, _, opening, naming, deleting) in enumerate(lines):
            self._connect_line(place, opening, naming, deleting)
        self._connect()

    def _line(self, place: int) -> tuple[Any, ...]:
        with gr.Row(visible=False, elem_classes="ts-project-line") as row:
            text = piece()
            opening = gr.Button("Open", size="sm", elem_classes="ts-small-button")
            naming = gr.Button("Rename", size="sm", elem_classes="ts-small-button")
            deleting = gr.Button("Delete", size="sm", elem_classes="ts-small-button")
        return row, text, opening, naming, deleting

    def show(self, words: str | None = "", first: int = 0) -> list[Any]:
        """Fill the list.

        Args:
            words: what is searched for.
            first: how many of those found to pass over.

        Returns:
            One value for each output.
        """
        everything = self._server.projects.all()
        found = matching(everything, words or "")
        first = max(0, min(first, len(found) - 1)) // _PER_PAGE * _PER_PAGE
        shown = found[first : first + _PER_PAGE]
        values: list[Any] = []
        for place in range(_PER_PAGE):
            project = shown[place] if place < len(shown) else None
            line = str(self._told(project)) if project else ""
            values += [gr.Row(visible=project is not None), line]
        head = section("Go on with a project", "Everything is kept on this machine.")
        last = first + len(shown)
        where = f"{first + 1}–{last} of {count(len(found), 'project')}"
        return [
            str(head) if everything else "", gr.Column(visible=False),
            gr.Textbox(visible=len(everything) >= _SEARCH_FROM),
            str(empty("No project has this name", "Search for less of it.")) if (
                everything and not found) else "",
            gr.Row(visible=len(found) > _PER_PAGE),
            str(Markup('<p class="ts-soft">{}</p>').format(where)),
            gr.Button(interactive=first > 0), gr.Button(interactive=last < len(found)),
            " ".join(one.id for one in shown), first, *values,
        ]  # fmt: skip

    def _told(self, project: Project) -> Markup:
        return project_line(project, journey(self._server.home, self._server.queue, project))

    def _connect_line(self, place: int, opening: Any, naming: Any, deleting: Any) -> None:
        def which(ids: str) -> Project:
            listed = ids.split()
            if place >= len(listed):
                raise RunError("This line is empty by now", fix="Open the page anew")
            return self._server.projects.read(listed[place])

        def open_it(ids: str) -> list[Any]:
            project = which(ids)
            states = journey(self._server.home, self._server.queue, project)
            return [project.id, states.next_step.value]

        def ask_name(ids: str) -> list[Any]:
            project = which(ids)
            question = section(f"Rename “{visible(project.name)}”")
            return self._asking(question, project, is_naming=True)

        def ask_delete(ids: str) -> list[Any]:
            project = which(ids)
            question = callout(
                "warn", f"Delete the project “{visible(project.name)}”?",
                "It disappears from this list. Tables and runs that belong to it stay on the disk: "
                "see them with “python app.py runs list”.",
            )  # fmt: skip
            return self._asking(question, project, is_naming=False)

        asked = [self._panel, self._question, self._new_name, self._save, self._delete, self._asked]
        target = [self._shell.project, self._shell.step]
        self._on(opening.click, open_it, [self._ids], target)
        self._on(naming.click, ask_name, [self._ids], asked)
        self._on(deleting.click, ask_delete, [self._ids], asked)

    def _asking(self, question: Markup, project: Project, *, is_naming: bool) -> list[Any]:
        return [
            gr.Column(visible=True), str(question),
            gr.Textbox(value=project.name, visible=is_naming), gr.Button(visible=is_naming),
            gr.Button(visible=not is_naming), project.id,
        ]  # fmt: skip

    def _connect(self) -> None:
        def rename(project: str, name: str, words: str | None, first: float) -> list[Any]:
            self._server.projects.edit(project, lambda _: {"name": name})
            return self.show(words, int(first or 0))

        def delete(project: str, words: str | None, first: float) -> list[Any]:
            found = self._server.projects.read(project)
            self._server.readings.cancel(found.id)
            self._server.projects.remove(found.id)
            return self.show(words, int(first or 0))

        place = [self._search, self._first]
        for trigger in (self._save.click, self._new_name.submit):
            self._on(trigger, rename, [self._asked, self._new_name, *place], self.outputs)
        self._on(self._delete.click, delete, [self._asked, *place], self.outputs)
        self._on(self._keep.click, lambda: gr.Column(visible=False), [], [self._panel])
        self._on(
            self._search.input, self.show, [self._search], self.outputs, trigger_mode="always_last"
        )
        for button, step in ((self._newer, -_PER_PAGE), (self._older, _PER_PAGE)):
            self._on(button.click, self._turned(step), place, self.outputs)

    def _turned(self, step: int) -> Any:
        return lambda words, first: self.show(words, int(first or 0) + step)

    def _on(self, trigger: Any, handler: Any, inputs: Any, outputs: Any, **event: Any) -> None:
        trigger(
            self._shell.toasts.guarded(handler), inputs, outputs,
            **{"api_visibility": "private", "show_progress": "hidden", **event},
        )  # fmt: skip
