"""The fourth part of the prepare step: how the rows are divided; and what the checks say."""

import functools
from typing import Any

import gradio as gr
from gradio.blocks import Block

from data_prep.recipe import PrepRecipe
from data_prep.splits import SplitOptions
from studio.pages.page import Page, Shell, piece
from studio.pages.prepare_desk import MOST_ROWS, Desk
from studio.pages.prepare_recipe import MOST_SHARE_PERCENT, with_shares, with_splits
from studio.pages.prepare_views import failure, findings, split_view
from studio.projects import Project
from studio.web.forms import component, fields_of, values_of
from studio.web.html import callout, empty, section, visible
from templates.errors import DataError
from templates.values import parse

_FIXED = [
    field for field in fields_of(SplitOptions.model_json_schema()) if field.name.endswith("_rows")
]
_SEED = next(field for field in fields_of(PrepRecipe.model_json_schema()) if field.name == "seed")


def build_splits(shell: Shell, desk: Desk, changed: gr.Textbox) -> Page:
    """Build the fields.

    Args:
        shell: what the wizard gives.
        desk: knows the recipe.
        changed: gets a new text when the recipe must be tried again.

    Returns:
        The part.
    """
    piece(section(
        "Three parts",
        "The model learns from the training rows, settings are chosen on the validation rows, and "
        "only the test rows decide whether it is better. Each label gets its share of every part, "
        "and rows that say the same stay together.",
    ))  # fmt: skip
    with gr.Row(elem_classes="ts-fields"):
        validation, test = (
            gr.Slider(
                1, MOST_SHARE_PERCENT, 15, step=1, label=f"{name} (%)", interactive=True,
                info="Training gets what the two leave.", buttons=[],
            )
            for name in ("Validation", "Test")
        )  # fmt: skip
    with gr.Accordion("A fixed number of rows, and the seed", open=False):
        with gr.Row(elem_classes="ts-fields"):
            numbers = [component(field) for field in (*_FIXED, _SEED)]
        problem = piece()

    def show(project: Project) -> list[Any]:
        if desk.upload(project) is None:
            return [gr.skip() for _ in outputs]
        recipe = desk.recipe(project)
        rows = [getattr(recipe.splits, field.name) for field in _FIXED]
        return [*shares(recipe), *rows, recipe.seed]

    def shares(recipe: PrepRecipe) -> list[int]:
        splits = recipe.splits
        return [round(100 * splits.validation_ratio), round(100 * splits.test_ratio)]

    outputs: list[Block] = [validation, test, *numbers]

    def set_shares(project: Project, validation: float, test: float, *, keeps: str) -> list[Any]:
        if shares(desk.recipe(project)) == [validation, test]:  # as it was filled in
            return [gr.skip(), gr.skip()]

        def shared(recipe: PrepRecipe) -> PrepRecipe:
            return with_shares(recipe, validation, test, keeps=keeps)

        other = shares(shared(desk.recipe(project)))[1 if keeps == "validation" else 0]
        return [other, desk.try_next(project, shared)]

    def set_numbers(project: Project, *given: Any) -> list[Any]:
        try:
            values = values_of([*_FIXED, _SEED], given, error=DataError)
            seed = values.pop(_SEED.name)
            tried = desk.try_next(project, lambda recipe: parse(
                PrepRecipe, {**with_splits(recipe, **values).model_dump(), "seed": seed},
                where="seed", error=DataError,
            ))  # fmt: skip
        except DataError as error:  # a person may be in the middle of a number
            kept = callout("warn", visible(error.what), "Not kept yet.", fix=f"{error.fix}.")
            return [str(kept), gr.skip()]
        return ["", tried]

    for keeps, moved, other in (("validation", validation, test), ("test", test, validation)):
        shell.on(
            moved.change, functools.partial(set_shares, keeps=keeps), [validation, test],
            [other, changed], trigger_mode="always_last",
        )  # fmt: skip
    for asking in numbers:
        trigger = asking.change  # type: ignore[attr-defined]  # every field of a form has it
        shell.on(trigger, set_numbers, numbers, [problem, changed], trigger_mode="always_last")
    return Page(outputs, show)


def build_checks(shell: Shell, desk: Desk) -> Page:
    """Build what is said of the rows: how they are divided, and what looks wrong.

    Args:
        shell: what the wizard gives.
        desk: knows what came of the recipe.

    Returns:
        The part.
    """
    sizes = piece()
    piece(section("Checks", "What looks wrong in the rows that are left, and how to mend it."))
    found = piece()

    def show(project: Project) -> list[Any]:
        upload, tried = desk.upload(project), desk.tried(project)
        if upload is None:
            return ["", ""]
        if tried is None:
            return ["", str(empty("Looking at your rows…", "This takes a moment."))]
        if tried.rehearsal is None:
            return ["", str(failure(tried.error)) if tried.error else ""]
        rehearsal, is_part = tried.rehearsal, upload.num_rows > MOST_ROWS
        return [
            str(split_view(rehearsal.splits, rehearsal.label_counts, is_part=is_part)),
            str(findings(rehearsal, is_part=is_part)),
        ]

    return Page([sizes, found], show)
