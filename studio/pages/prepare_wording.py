"""The second part of the prepare step: how a row is put into words, seen as it is typed."""

import functools
import json
from typing import Any

import gradio as gr

from data_prep.recipe import PrepRecipe
from studio.pages.page import Page, Shell, hidden_field, new_text, piece
from studio.pages.prepare_columns import MOST_PLACES
from studio.pages.prepare_desk import Desk
from studio.pages.prepare_recipe import escaped, places, unescaped, with_word, with_wording
from studio.pages.prepare_views import label_words, rendered
from studio.projects import Project
from studio.web.choices import sent
from studio.web.html import callout, empty, section
from templates.builtin import TEMPLATES
from templates.errors import DataError
from templates.template import TaskKind

_WORD = "prepare-word"
_LABEL_SCORES = (("share of right labels", "accuracy"), ("mean over the labels (F1)", "macro_f1"))
_TEXT_SCORES = (
    ("likeness of letters (chrF)", "chrf"), ("common passages (ROUGE-L)", "rouge_l"),
    ("common phrases (BLEU)", "bleu"), ("common words (F1)", "token_f1"),
    ("exactly the same", "exact_match"),
)  # fmt: skip
_MARKS = ("separator", "stop")


def build_wording(shell: Shell, desk: Desk, changed: gr.Textbox, refill: gr.Textbox) -> Page:
    """Build the part, but for the live preview and the label words.

    Args:
        shell: what the wizard gives.
        desk: knows the recipe.
        changed: gets a new text when the recipe must be tried again.
        refill: gets a new text when the whole step must be filled again.

    Returns:
        The part.
    """
    piece(section("Wording", "How a row is put into words for the model. It is good as it is."))
    with gr.Accordion("Change the wording", open=False):
        asked = {}
        with gr.Row(elem_classes=["ts-fields", "ts-wide-fields"]):
            asked["wording"] = gr.Textbox(
                label="Wording",
                lines=3,
                max_length=20_000,
                interactive=True,
                info="The prompt. A name in braces, such as {text}, stands for a column.",
            )
            asked["instruction"] = gr.Textbox(
                label="Task description",
                lines=2,
                max_length=20_000,
                interactive=True,
                info="Shown to the untuned model only, so that it gets a fair chance in the "
                "comparison. {labels} stands for the list of labels.",
            )
        with gr.Row(elem_classes="ts-fields"):
            asked["separator"] = gr.Textbox(
                label="Separator",
                max_lines=1,
                max_length=200,
                interactive=True,
                info=r"Ends every prompt, and occurs nowhere else. \n is a line break.",
            )
            asked["stop"] = gr.Textbox(
                label="Stop sequence",
                max_lines=1,
                max_length=200,
                interactive=True,
                info=r"Ends every answer, and occurs nowhere else. Spaces count.",
            )
            metric = gr.Dropdown(
                list(_LABEL_SCORES + _TEXT_SCORES),
                label="Score",
                interactive=True,
                info="What the comparison at the end is about.",
            )
        problem = piece()
        with gr.Row(elem_classes="ts-train-buttons"):
            reset = gr.Button("Reset to the built-in wording", elem_classes="ts-small-button")

    def show(project: Project) -> list[Any]:
        if desk.upload(project) is None:
            return [*(gr.skip() for _ in asked), gr.skip(), ""]
        template = desk.recipe(project).template
        is_chat = template.task == "chat"
        return [
            gr.Textbox(template.wording, visible=not is_chat),
            gr.Textbox(template.instruction, visible=not is_chat),
            escaped(template.separator),
            escaped(template.stop),
            gr.Dropdown(_scores(template.task), value=template.metric),
            "",
        ]

    def change(project: Project, value: str, *, name: str) -> list[Any]:
        upload = desk.upload(project)
        columns = upload.columns if upload else ()
        content = unescaped(value) if name in _MARKS else value

        def reworded(now: PrepRecipe) -> PrepRecipe:
            recipe = with_wording(now, name, content, columns)
            if len(places(recipe.template)) > MOST_PLACES:
                raise DataError(
                    f"The wording has more than {MOST_PLACES - 2} slots",
                    fix="Use fewer names in braces",
                )
            return recipe

        try:
            tried = desk.try_next(project, reworded)
        except DataError as error:  # a person may be in the middle of a word
            kept = callout("warn", error.what.capitalize(), "Not kept yet.", fix=f"{error.fix}.")
            return [str(kept), gr.skip()]
        return ["", tried]

    def set_back(project: Project) -> str:
        desk.choose(
            project,
            lambda recipe: recipe.model_copy(update={"template": TEMPLATES[recipe.template.task]}),
        )
        return new_text()

    # Not `input`, which hears of typed letters only, and not of what is pasted or deleted.
    fields: dict[str, gr.Textbox | gr.Dropdown] = {**asked, "metric": metric}
    for name, field in fields.items():
        handler = functools.partial(change, name=name)
        shell.on(field.change, handler, [field], [problem, changed], trigger_mode="always_last")
    shell.on(reset.click, set_back, outputs=[refill])
    return Page([*asked.values(), metric, problem], show)


def build_preview(shell: Shell, desk: Desk) -> Page:
    """Build the live preview: what the model reads of the first rows.

    Args:
        shell: what the wizard gives.
        desk: knows what came of the recipe.

    Returns:
        The part.
    """
    preview = piece()

    def show(project: Project) -> list[Any]:
        tried = desk.tried(project)
        if tried is None:
            return [str(empty("Looking at your first rows…"))]
        if tried.error is not None and not tried.rows:
            return [str(empty("No preview yet", "Choose the columns first."))]
        return [str(rendered(tried.rows))]

    return Page([preview], show)


def build_words(shell: Shell, desk: Desk, changed: gr.Textbox) -> Page:
    """Build the table of label words.

    Args:
        shell: what the wizard gives.
        desk: knows the labels.
        changed: gets a new text when the recipe must be tried again.

    Returns:
        The part.
    """
    word = hidden_field(_WORD)
    words = piece()

    def show(project: Project) -> list[Any]:
        tried = desk.tried(project)
        if desk.upload(project) is None or not desk.recipe(project).template.has_labels:
            return [""]
        if tried is None or tried.rehearsal is None:
            return [gr.skip()]
        template = desk.recipe(project).template
        return [str(label_words(tried.rehearsal.label_counts, template, target=_WORD))]

    def set_word(project: Project, text: str) -> str:
        label, told = json.loads(sent(text))
        desk.choose(project, lambda recipe: with_word(recipe, str(label), str(told)))
        return new_text()

    shell.on(word.change, set_word, [word], [changed])
    return Page([words], show)


def _scores(task: TaskKind) -> list[tuple[str, str]]:
    return list(_LABEL_SCORES if TEMPLATES[task].has_labels else _TEXT_SCORES)
