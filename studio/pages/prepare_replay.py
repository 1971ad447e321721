"""The button of the prepare step that takes a recipe file."""

import json
from pathlib import Path

import gradio as gr

from data_prep.mapping import check_columns
from data_prep.recipe import PrepRecipe, complete
from studio.pages.page import Shell, new_text
from studio.pages.prepare_columns import MOST_PLACES
from studio.pages.prepare_desk import Desk
from studio.pages.prepare_recipe import places, pruned
from studio.projects import Project
from studio.web.toasts import told
from templates.errors import DataError
from templates.values import parse

_MOST_RECIPE_BYTES = 1 << 20


def build_replay(shell: Shell, desk: Desk, refill: gr.Textbox) -> None:
    """Build the button that takes a recipe file.

    Args:
        shell: what the wizard gives.
        desk: keeps the recipe.
        refill: gets a new text when the whole step must be filled again.
    """
    button = gr.UploadButton(
        "Use a recipe file", file_types=[".json"], size="sm", elem_classes="ts-small-button"
    )

    def replay(project: Project, path: str) -> str:
        upload = desk.upload(project)
        if upload is None:
            raise DataError("There is no table", fix="Upload one in the first step")
        recipe = read_recipe(Path(path))
        check_columns(recipe.mapping.columns(), [column.name for column in upload.columns])
        desk.choose(project, lambda _: recipe)
        told("The recipe is taken over. Undo brings the former one back.")
        return new_text()

    shell.on(button.upload, replay, [button], [refill], busy=button)


def read_recipe(path: Path) -> PrepRecipe:
    """Read a recipe that a person brought.

    Args:
        path: a file of any content.

    Returns:
        The recipe, complete.

    Raises:
        DataError: it is no recipe, or one that this studio cannot follow.
    """
    fix = "Choose a recipe.json that was downloaded here"
    try:
        if path.stat().st_size > _MOST_RECIPE_BYTES:
            raise DataError("The file is too large for a recipe", where=path.name, fix=fix)
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise DataError("The recipe cannot be read", where=path.name, fix=fix) from None
    recipe = pruned(complete(parse(PrepRecipe, content, where=path.name, error=DataError)))
    if len(places(recipe.template)) > MOST_PLACES:
        raise DataError(
            "The recipe has more slots than this page can show", where=path.name,
            fix="Use it on the command line: python app.py prepare --recipe",
        )  # fmt: skip
    return recipe
