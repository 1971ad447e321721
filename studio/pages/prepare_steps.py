"""The third part of the prepare step: cleaners and augmenters, each on or off, in order."""

import functools
import json
from typing import Any

import gradio as gr
from gradio.components import Component

from data_prep.recipe import all_augmenters, all_cleaners
from studio.pages.page import Page, Shell, hidden_field, new_text, piece
from studio.pages.prepare_desk import Desk
from studio.pages.prepare_recipe import Kind, moved, with_options, with_step, without_step
from studio.pages.prepare_step_cards import StepCard, step_cards
from studio.projects import Project
from studio.web.choices import sent
from studio.web.forms import Field, component, fields_of, values_of
from studio.web.html import callout, section, visible
from templates.errors import DataError

_SWITCH, _MOVE = "prepare-switch", "prepare-move"
_SPECS: dict[Kind, dict[str, Any]] = {"steps": all_cleaners(), "augmenters": all_augmenters()}
_HEADS: dict[Kind, tuple[str, str]] = {
    "steps": ("Cleaning", "What is mended or left out, from top to bottom. Your table stays as it "
              "is; each step can be switched off."),
    "augmenters": ("More training examples", "Copies of training rows with small changes. "
                   "Validation and test rows are never copied."),
}  # fmt: skip
_AFTERWARDS = "Preparing says how many rows it added."


def build_steps(
    shell: Shell, desk: Desk, changed: gr.Textbox, refill: gr.Textbox
) -> tuple[Page, Page]:
    """Build the part.

    Args:
        shell: what the wizard gives.
        desk: knows the recipe and what came of it.
        changed: gets a new text when the recipe must be tried again.
        refill: gets a new text when the whole step must be filled again.

    Returns:
        The lists, which say something new after every trial; and the forms with their options.
    """
    switch = hidden_field(_SWITCH)
    move = hidden_field(_MOVE)
    lists: dict[Kind, gr.HTML] = {}
    forms: dict[tuple[Kind, str], gr.Accordion] = {}
    made: dict[tuple[Kind, str], list[Component]] = {}
    problems: dict[tuple[Kind, str], gr.HTML] = {}
    for kind, specs in _SPECS.items():
        piece(section(*_HEADS[kind]))
        lists[kind] = piece()
        for name, spec in specs.items():
            fields = _fields(kind, name)
            if not fields:
                continue
            title = f"Options of “{spec.title}”"
            with gr.Accordion(title, open=False, visible=False) as forms[kind, name]:
                with gr.Row(elem_classes="ts-fields"):
                    made[kind, name] = [component(field) for field in fields]
                problems[kind, name] = piece()
    with gr.Row(elem_classes="ts-train-buttons"):
        undo = gr.Button("Undo the last change", elem_classes="ts-small-button")
        reset = gr.Button("Reset to the recommended steps", elem_classes="ts-small-button")

    def show_lists(project: Project) -> list[Any]:
        if desk.upload(project) is None:
            return [*("" for _ in lists), gr.skip()]
        shown = [
            str(step_cards(_cards(desk, project, kind), switch=_SWITCH, move=_MOVE, label=head))
            for kind, (head, _) in _HEADS.items()
        ]
        return [*shown, gr.Button(interactive=bool(project.earlier_recipes))]

    def show_forms(project: Project) -> list[Any]:
        if desk.upload(project) is None:
            return [*(gr.Accordion(visible=False) for _ in forms), *map(_skip, fields_made)]
        recipe = desk.recipe(project)
        options = {
            (kind, step.name): step.options for kind in _SPECS for step in getattr(recipe, kind)
        }
        values = [
            options.get(key, {}).get(field.name, field.default)
            for key in forms
            for field in _fields(*key)
        ]
        shown = [gr.update(value=_shown(value)) for value in values]
        return [*(gr.Accordion(visible=key in options) for key in forms), *shown]

    fields_made = [asking for asked in made.values() for asking in asked]
    lists_part = Page([*lists.values(), undo], show_lists)
    forms_part = Page([*forms.values(), *fields_made], show_forms)

    def set_switch(project: Project, text: str) -> list[Any]:
        place, is_on = json.loads(sent(text))
        kind, name = _known(*json.loads(place))
        step = desk.last_options(project, kind, name)
        project = desk.choose(
            project,
            lambda recipe: (
                with_step(recipe, kind, step) if is_on else without_step(recipe, kind, name)
            ),
        )
        return [*show_lists(project), *show_forms(project), new_text()]

    def set_place(project: Project, text: str) -> list[Any]:
        given_kind, given_name, by = json.loads(sent(text))
        kind, name = _known(given_kind, given_name)
        places = 1 if by == 1 else -1
        project = desk.choose(project, lambda recipe: moved(recipe, kind, name, places))
        return [*show_lists(project), new_text()]

    def set_options(project: Project, *given: Any, kind: Kind, name: str) -> list[Any]:
        try:
            options = values_of(_fields(kind, name), given, error=DataError)
            tried = desk.try_next(project, lambda recipe: with_options(recipe, kind, name, options))
        except DataError as error:  # a person may be in the middle of a number
            kept = callout("warn", visible(error.what), "Not kept yet.", fix=f"{error.fix}.")
            return [str(kept), gr.skip()]
        return ["", tried]

    def take_back(project: Project) -> str:
        shell.server.projects.undo_recipe(project.id)
        return new_text()

    def set_back(project: Project) -> str:
        usual = desk.recommended(project).recipe
        kept = {"steps": usual.steps, "augmenters": usual.augmenters}
        desk.choose(project, lambda recipe: recipe.model_copy(update=kept))
        return new_text()

    both = [*lists_part.outputs, *forms_part.outputs, changed]
    shell.on(switch.change, set_switch, [switch], both)
    shell.on(move.change, set_place, [move], [*lists_part.outputs, changed])
    shell.on(undo.click, take_back, outputs=[refill])
    shell.on(reset.click, set_back, outputs=[refill])
    for (kind, name), asked in made.items():
        handler = functools.partial(set_options, kind=kind, name=name)
        told = [problems[kind, name], changed]
        for asking in asked:
            trigger = asking.change  # type: ignore[attr-defined]  # every field of a form has it
            shell.on(trigger, handler, asked, told, trigger_mode="always_last")
    return lists_part, forms_part


def _fields(kind: Kind, name: str) -> list[Field]:
    return fields_of(_SPECS[kind][name].options.model_json_schema())


def _known(kind: str, name: str) -> tuple[Kind, str]:
    """Check what the browser says."""
    for known, specs in _SPECS.items():
        if kind == known and name in specs:
            return known, name
    raise DataError("There is no such step", fix="Reload the page")


def _cards(desk: Desk, project: Project, kind: Kind) -> list[StepCard]:
    """Those that are on, in their order; then the others."""
    on = [step.name for step in getattr(desk.recipe(project), kind)]
    specs, tried = _SPECS[kind], desk.tried(project)
    rehearsal = tried.rehearsal if tried else None
    reports = {report.step: report for report in (rehearsal.reports if rehearsal else ())}
    words = "" if tried else "Counting…"
    return [
        StepCard(
            kind, name, specs[name].title, specs[name].summary, is_on=name in on,
            is_first=name == on[0] if name in on else True,
            is_last=name == on[-1] if name in on else True,
            report=reports.get(name),
            words="" if name not in on else _AFTERWARDS if kind == "augmenters" else words,
        )
        for name in [*on, *(name for name in specs if name not in on)]
    ]  # fmt: skip


def _shown(value: Any) -> Any:
    """Put a value as its component holds it: lists are written with commas."""
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else value


def _skip(_: object) -> Any:
    return gr.skip()
