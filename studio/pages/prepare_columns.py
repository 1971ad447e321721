"""The first part of the prepare step: the task, and which column is used for what."""

import functools
import json
from collections.abc import Sequence
from typing import Any

import gradio as gr
from markupsafe import Markup

from data_prep.recipe import PrepRecipe
from data_prep.upload import Column
from studio.pages.page import Page, Shell, hidden_field, new_text, piece
from studio.pages.prepare_desk import Desk
from studio.pages.prepare_recipe import (
    column_of,
    doubt_of,
    places,
    problem_of,
    with_column,
)
from studio.pages.prepare_views import PLACES, column_cards
from studio.projects import Project
from studio.web.choices import Choice, choice_cards, sent
from studio.web.html import callout, section, unmarked, visible
from templates.errors import DataError
from templates.template import TaskKind

MOST_PLACES = 10
_TASK, _USE = "prepare-task", "prepare-use"
_TASKS: dict[TaskKind, tuple[str, str]] = {
    "classification": (
        "Sort texts", "One label for a text. “Where is my parcel?” → shipping",
    ),
    "pair_classification": (
        "Compare two texts", "One label for a pair. “A man sleeps” + “Nobody is awake” → agrees",
    ),
    "generation": (
        "Write a text", "A text from a text. “name: Aromi, food: Chinese” → “Aromi serves…”",
    ),
    "question_answering": (
        "Answer questions", "With or without a passage to look in. “Who wrote Emma?” → Jane Austen",
    ),
    "chat": ("Talk", "The next turn of a conversation, from a column of messages."),
}  # fmt: skip
_HELP = {
    "label": "The class that the model learns to give.",
    "references": "The text that the model learns to write.",
    "turns": "The conversations, with who says what.",
    "split": "Only if your table says itself which rows are for training, validation and test.",
}
_SAMPLE_CHARACTERS = 30
_NONE = ("–", "")


def build_columns(shell: Shell, desk: Desk, changed: gr.Textbox, refill: gr.Textbox) -> Page:
    """Build the part.

    Args:
        shell: what the wizard gives.
        desk: knows table and recipe.
        changed: gets a new text when the recipe must be tried again.
        refill: gets a new text when the whole step must be filled again.

    Returns:
        The part.
    """
    piece(section("Task", "What shall the model learn from your table?"))
    guess = piece()
    task = hidden_field(_TASK)
    tasks = piece(elem_classes=["ts-tasks"])
    piece(section("Columns", "Click what a column is used for, or choose in the lists."))
    use = hidden_field(_USE)
    cards = piece()
    with gr.Row(elem_classes="ts-fields"):
        # As many as anybody needs; those that the wording has no slot for are hidden.
        fields = [
            gr.Dropdown([_NONE], value="", label="Column", visible=False, interactive=True)
            for _ in range(MOST_PLACES)
        ]
    # Which place each field stands for, so that no late answer meets another field's place.
    order = hidden_field()

    def show(project: Project) -> list[Any]:
        upload = desk.upload(project)
        if upload is None:
            gone = callout("bad", "The table is gone", fix="Upload it again in the first step.")
            return [str(gone), "", "", "", *(gr.Dropdown(visible=False) for _ in fields)]
        recipe, proposed = desk.recipe(project), desk.recommended(project)
        named = places(recipe.template)[-MOST_PLACES:]
        reasons = {
            place: reason
            for place, reason in proposed.reasons.items()
            if column_of(proposed.recipe, place) == column_of(recipe, place)
        }
        look = functools.partial(
            _field, project, desk=desk, columns=upload.columns, num_rows=upload.num_rows,
            reasons=reasons,
        )  # fmt: skip
        hidden = len(fields) - len(named)
        used = {place: column_of(recipe, place) for place in named}
        return [
            str(_guess(proposed.layout, recipe.template.task, proposed.recipe.template.task)),
            str(_task_cards(recipe.template.task)),
            str(column_cards(upload.columns, used, named, target=_USE)),
            json.dumps(named),
            *map(look, named),
            *(gr.Dropdown(visible=False) for _ in range(hidden)),
        ]

    part = Page([guess, tasks, cards, order, *fields], show)

    def set_task(project: Project, text: str) -> str:
        name = next((task for task in _TASKS if task == sent(text)), None)
        if name is None:
            raise DataError("There is no such task", fix="Choose one of those shown")
        fresh = desk.recommended(project, name).recipe

        def with_task(now: PrepRecipe) -> PrepRecipe:
            kept = {"steps": now.steps, "augmenters": now.augmenters, "splits": now.splits,
                    "seed": now.seed}  # fmt: skip
            return now if name == now.template.task else fresh.model_copy(update=kept)

        desk.try_next(project, with_task)
        return new_text()

    def set_use(project: Project, text: str) -> list[Any]:
        place, column = json.loads(sent(text))
        return set_column(project, column, place)

    def set_field(project: Project, column: str, named: str, *, number: int) -> list[Any]:
        return set_column(project, column or "", json.loads(named)[number])

    def set_column(project: Project, column: str, place: str) -> list[Any]:
        upload = desk.upload(project)
        known = {one.name for one in upload.columns} if upload else set()

        def changed_column(recipe: PrepRecipe) -> PrepRecipe:
            if place not in places(recipe.template) or (column and column not in known):
                raise DataError("The table has changed", where=column, fix="Reload the page")
            return with_column(recipe, place, column)

        project = desk.choose(project, changed_column)
        return [*show(project), new_text()]

    outputs = [*part.outputs, changed]
    shell.on(task.change, set_task, [task], [refill], busy=cards)
    shell.on(use.change, set_use, [use], outputs)
    for number, field in enumerate(fields):
        handler = functools.partial(set_field, number=number)
        shell.on(field.input, handler, [field, order], outputs)
    return part


def _field(
    project: Project,
    place: str,
    *,
    desk: Desk,
    columns: Sequence[Column],
    num_rows: int,
    reasons: dict[str, str],
) -> Any:
    """Ask for the column of a place; what is wrong with it stands there too."""
    recipe, name = desk.recipe(project), column_of(desk.recipe(project), place)
    problem = problem_of(recipe, place, columns)
    doubt = doubt_of(recipe, place, columns, num_rows)
    purpose = _HELP.get(place, f"Stands in the wording as {{{place}}}.")
    if place in recipe.template.optional_slots:
        purpose += " It may be left empty."
    reason = f"Chosen {reasons[place]}." if place in reasons else ""
    choices = [_NONE, *((_told(column), column.name) for column in columns)]
    if name and name not in {column.name for column in columns}:
        choices.append((f"{visible(name, 60)} (not in the table)", name))
    return gr.Dropdown(
        choices, value=name, visible=True,
        label=PLACES[place].capitalize() if place in PLACES else visible(place, 40),
        info=unmarked(problem or doubt or f"{purpose} {reason}".strip()),
        elem_classes=["ts-wrong"] if problem else ["ts-doubtful"] if doubt else [],
    )  # fmt: skip


def _told(column: Column) -> str:
    sample = column.samples[0] if column.samples else ""
    words = visible(" ".join(sample.split()), _SAMPLE_CHARACTERS)
    return f"{visible(column.name, 60)} · {words}" if words else visible(column.name, 60)


def _guess(layout: str, task: TaskKind, guessed: TaskKind) -> Markup:
    title = f"Your table looks like: {layout}"
    if task == guessed:
        return callout("good", title, f"So the task is “{_TASKS[guessed][0]}”. Change it freely.")
    return callout(
        "plain", title,
        f"That would be the task “{_TASKS[guessed][0]}”; you chose “{_TASKS[task][0]}”.",
    )  # fmt: skip


def _task_cards(chosen: TaskKind) -> Markup:
    choices = [Choice(name, title, text) for name, (title, text) in _TASKS.items()]
    return choice_cards(choices, chosen, target=_TASK, label="Task")
