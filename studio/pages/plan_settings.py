"""The third part of the plan step: the settings, made of the schemas of methods and schedule."""

import functools
from collections.abc import Mapping
from typing import Any

import gradio as gr
from gradio.blocks import Block
from gradio.components import Component

from engine.plan import BITS, Limits, Schedule, TrainPlan
from studio.pages.page import Page, Shell, hidden_field, piece
from studio.pages.plan_desk import Desk
from studio.projects import PlanChoices, Project
from studio.web.forms import Field, component, fields_of, info_of, values_of
from studio.web.html import section
from templates.errors import PlanError

SCHEDULE = fields_of(Schedule.model_json_schema())
LIMITS = fields_of(Limits.model_json_schema())
SEED = next(field for field in fields_of(TrainPlan.model_json_schema()) if field.name == "seed")
_PLACES = {"schedule": SCHEDULE, "limits": LIMITS}
# They follow base and memory, so what they are if nobody says anything is in the plan alone.
_DERIVED = ("learning_rate", "micro_batch_tokens")
_PRECISIONS = {name: f"{bits} bits ({name})" for name, bits in BITS.items()}
_PRICE = Field(
    name="hourly_price", title="Price per hour",
    description="What an hour on this machine costs you, to see what the run costs. 0: nothing.",
    kind="number", choices=(), default=0, minimum=0, maximum=1e6, is_whole=False, is_optional=True,
    is_simple=True,
)  # fmt: skip
_GRID = "ts-fields"


def build_settings(shell: Shell, desk: Desk, after: Page, methods: Page) -> Page:
    """Build the part.

    Args:
        shell: what the wizard gives.
        desk: knows the methods, and answers to changes.
        after: what follows from the settings, filled again after each change.
        methods: filled again where a change counts for all of them.

    Returns:
        The part.
    """
    made: dict[tuple[str, str], Component] = {}
    form = hidden_field()
    with gr.Column(visible=False) as everything:
        piece(section("Settings", "They are good as they are. Change what you know better."))
        shows_all = gr.Checkbox(
            label="Show all settings", info="For experts: everything that can be set.",
            interactive=True, container=False,
        )  # fmt: skip
        own = gr.Column()
        with gr.Row(elem_classes=_GRID):
            for place, fields in _PLACES.items():
                for field in fields:
                    if field.is_simple:
                        made[place, field.name] = component(field)
            made["", "hourly_price"] = component(_PRICE)
        with gr.Row(elem_classes=_GRID, visible=False) as more:
            precision = made["", "precision"] = gr.Dropdown(
                [(words, name) for name, words in _PRECISIONS.items()], label="Precision",
                info="How the base's frozen weights are held. Fewer bits take less memory.",
                interactive=True,
            )  # fmt: skip
            for place, fields in _PLACES.items():
                for field in fields:
                    if not field.is_simple:
                        made[place, field.name] = component(field)
            made["", "seed"] = component(SEED)
        with gr.Row():
            reset = gr.Button("Reset to the method's defaults", elem_classes="ts-small-button")

    derived = [made["schedule", name] for name in _DERIVED]
    fields_of_form = {("", "hourly_price"): _PRICE, ("", "seed"): SEED} | {
        (place, field.name): field for place, fields in _PLACES.items() for field in fields
    }

    def show(project: Project) -> list[Any]:
        held = values(desk, project)
        return [
            gr.Column(visible=bool(desk.described) and desk.is_ready(project)),
            project.choices.shows_all,
            desk.form(project),
            gr.Row(visible=project.choices.shows_all),
            *(shown(key, project, held) for key in made),
        ]

    def shown(key: tuple[str, str], project: Project, held: Mapping[Any, Any]) -> Any:
        if key == ("", "precision"):
            names = _method(desk, project).get("precisions", tuple(_PRECISIONS))
            chosen = project.choices.precision or names[0]
            return gr.Dropdown([(_PRECISIONS[name], name) for name in names], value=chosen)
        value = held.get(key)
        return gr.update(value=value, **_look(fields_of_form[key], value))

    def change(project: Project, value: Any, *, place: str, name: str, field: Field) -> list[Any]:
        problem = problem_of(field, value)
        if not (problem and not place):  # what has no place of its own must be right to be kept
            project = shell.server.projects.edit(
                project.id, lambda now: {"choices": with_setting(now.choices, place, name, value)}
            )
        if place == "options":
            desk.touch(project)
        desk.reckon(project)
        if place == "limits":
            desk.compare(project)
        held = values(desk, project)
        follow = [
            held.get(("schedule", other))
            for other in _DERIVED
            if (place, name) != ("schedule", other)
        ]
        counts_for_all = methods.show(project) if place == "limits" else []
        return [gr.update(**_look(field, value)), *follow, *after.show(project), *counts_for_all]

    def listen(place: str, name: str, field: Field, asking: Component) -> None:
        others = [other for other in derived if other is not asking]
        outputs: list[Block] = [asking, *others, *after.outputs]
        outputs += methods.outputs if place == "limits" else []
        handler = functools.partial(change, place=place, name=name, field=field)
        trigger = asking.input  # type: ignore[attr-defined]  # every field of a form has it
        shell.on(trigger, handler, [asking], outputs, trigger_mode="always_last")

    for (place, name), asking in made.items():
        if name != "precision":
            listen(place, name, fields_of_form[place, name], asking)

    def set_precision(project: Project, name: str) -> list[Any]:
        project = shell.server.projects.edit(
            project.id,
            lambda now: {"choices": {**now.choices.model_dump(mode="json"), "precision": name}},
        )
        desk.reckon(project)
        return list(after.show(project))

    def turn(project: Project, is_on: bool) -> list[Any]:
        project = shell.server.projects.edit(
            project.id,
            lambda now: {"choices": {**now.choices.model_dump(mode="json"), "shows_all": is_on}},
        )
        desk.touch(project)
        return [desk.form(project), gr.Row(visible=is_on)]

    def forget(project: Project) -> list[Any]:
        kept = {"method", "others", "shows_all", "hourly_price"}
        project = shell.server.projects.edit(
            project.id, lambda now: {"choices": now.choices.model_dump(mode="json", include=kept)}
        )
        desk.touch(project)
        desk.ask(project)
        return [*show(project), *after.show(project), *methods.show(project)]

    part = Page([everything, shows_all, form, more, *made.values()], show)
    shell.on(precision.input, set_precision, [precision], after.outputs)
    shell.on(shows_all.input, turn, [shows_all], [form, more])
    shell.on(reset.click, forget, outputs=[*part.outputs, *after.outputs, *methods.outputs])

    with own:

        @gr.render(inputs=[shell.project, form], triggers=[form.change], show_progress="hidden")  # type: ignore[untyped-decorator]
        def options(project_id: str, text: str) -> None:
            if not project_id or not text:
                return
            project = shell.server.projects.read(project_id)
            fields = fields_of(_method(desk, project).get("options", {}))
            asked = [field for field in fields if field.is_simple or project.choices.shows_all]
            with gr.Row(elem_classes=_GRID):
                for field in asked:
                    value = project.choices.options.get(field.name, field.default)
                    asking = component(field, value, key=(text, field.name), **_look(field, value))
                    listen("options", field.name, field, asking)

    return part


def values(desk: Desk, project: Project) -> dict[tuple[str, str], Any]:
    """Put together what the fixed fields hold.

    Args:
        desk: knows defaults, and what follows from the choices.
        project: whose choices.

    Returns:
        Values by place and name.
    """
    chosen = project.choices
    schedule = dict(_method(desk, project).get("schedule", {}))
    answer = desk.answer(project)
    if answer is not None and answer.plan is not None:
        schedule |= {name: getattr(answer.plan.schedule, name) for name in _DERIVED}
    limits = {**Limits().model_dump(mode="json"), **chosen.limits}
    found = {("schedule", name): value for name, value in {**schedule, **chosen.schedule}.items()}
    found |= {("limits", name): value for name, value in limits.items()}
    return found | {("", "seed"): chosen.seed, ("", "hourly_price"): chosen.hourly_price}


def with_setting(choices: PlanChoices, place: str, name: str, value: Any) -> dict[str, Any]:
    """Change one setting.

    Args:
        choices: what was chosen.
        place: options, schedule or limits; empty: a choice of its own.
        name: of the setting.
        value: right or wrong; None or nothing goes back to the default.

    Returns:
        The choices as JSON has them.
    """
    content = choices.model_dump(mode="json")
    owner = content[place] if place else content
    owner.pop(name, None)
    if value not in (None, "", []):
        owner[name] = value
    return content


def problem_of(field: Field, value: Any) -> str:
    """Say what is wrong with a value, for the field that holds it.

    Args:
        field: which.
        value: of its component; an empty one is the default.

    Returns:
        A sentence; empty: nothing is wrong.
    """
    if value in (None, "", []):
        return ""
    try:
        values_of([field], [value])
    except PlanError as error:
        return f"{error.what}. {error.fix}."
    return ""


def _method(desk: Desk, project: Project) -> Mapping[str, Any]:
    found: Mapping[str, Any] = desk.described.get("methods", {}).get(project.choices.method, {})
    return found


def _look(field: Field, value: Any) -> dict[str, Any]:
    """Show under a field what is wrong with its value, or else what it is for."""
    problem = problem_of(field, value)
    return {"info": problem or info_of(field), "elem_classes": ["ts-wrong"] if problem else []}
