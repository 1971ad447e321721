"""What the prepare step knows between two clicks: rehearsals of recipes, and how a base reads.

Everything here can be found again; a new process begins with an empty desk.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import gradio as gr

from data_prep.recipe import (
    PrepRecipe,
    Proposed,
    Step,
    all_augmenters,
    all_cleaners,
    propose,
)
from data_prep.rehearsal import Rehearsal, ShownRow
from data_prep.upload import Upload, load_upload
from studio.pages.drawer import Drawer
from studio.pages.page import new_text
from studio.pages.prepare_differences import is_same_edit
from studio.pages.prepare_recipe import Kind, pruned
from studio.projects import Project, with_recipe
from studio.server import Server
from templates.errors import DataError, StudioError
from templates.files import sha256_of_bytes
from templates.template import TaskKind
from templates.values import parse

MOST_ROWS = 5_000  # are tried after each change
NUM_SHOWN_ROWS = 3
Change = Callable[[PrepRecipe], PrepRecipe]


@dataclass(frozen=True)
class Tried:
    """What came of trying a recipe on the first rows.

    Attributes:
        rows: how the first ones are put into words.
        rehearsal: what the steps did.
        error: why one of them could not be had.
    """

    rows: Sequence[ShownRow] = ()
    rehearsal: Rehearsal | None = None
    error: StudioError | None = None


class Desk:
    """One for a server."""

    def __init__(self, server: Server) -> None:
        """Begin empty.

        Args:
            server: whose children are asked.
        """
        self._server = server
        self._uploads: Drawer[Upload] = Drawer()
        self._proposed: Drawer[Proposed] = Drawer()
        self._tried: Drawer[Tried] = Drawer()

    def upload(self, project: Project) -> Upload | None:
        """Look a project's table up.

        Args:
            project: names it.

        Returns:
            What is known of the table; None where there is none, or it is gone.
        """
        folder = self._server.home.place("upload") / project.upload
        with suppress(StudioError, OSError, ValueError):
            if project.upload and folder.is_dir():  # an upload is written once, or deleted
                found = self._uploads.get(project.upload) or load_upload(folder)
                self._uploads.put(project.upload, found)
                return found
        return None

    def recipe(self, project: Project) -> PrepRecipe:
        """Say how the project's table is to be prepared.

        Args:
            project: has a table.

        Returns:
            What was chosen, or else what is recommended.
        """
        if project.recipe is not None:
            with suppress(StudioError):
                return parse(PrepRecipe, dict(project.recipe), where="recipe", error=DataError)
        return self.recommended(project).recipe

    def recommended(self, project: Project, task: TaskKind | None = None) -> Proposed:
        """Say how the project's table would best be prepared.

        Args:
            project: has a table.
            task: what is to be learned; None finds out.

        Returns:
            The recipe, and why.

        Raises:
            DataError: there is no table.
        """
        upload = self.upload(project)
        if upload is None:
            raise DataError("There is no table", fix="Upload one in the first step")
        key = f"{project.upload} {task}"
        proposed = self._proposed.get(key) or propose(upload, task=task)
        self._proposed.put(key, proposed)
        return proposed

    def choose(self, project: Project, change: Change) -> Project:
        """Change the recipe; what goes on with the last change is one step with it for undo.

        Args:
            project: of which.
            change: from the recipe as it is to the new one; runs while no other tab or handler can
                change the project.

        Returns:
            The project as it is now.
        """

        def chosen(now: Project) -> dict[str, Any]:
            before = self.recipe(now)
            after = change(before)
            content = after.model_dump(mode="json")
            if now.recipe is None:
                now = now.model_copy(update={"recipe": before.model_dump(mode="json")})
            elif before != after and _goes_on(now, before, after):
                return {"recipe": content}
            return with_recipe(now, content)

        return self._server.projects.edit(project.id, chosen)

    def try_next(self, project: Project, change: Change) -> Any:
        """Change the recipe, unless that makes no difference: fields tell also what they were
        filled with.

        Args:
            project: of which.
            change: from the recipe as it is to what the fields say.

        Returns:
            What to put where a new text has the recipe tried.
        """
        before = self.recipe(project)
        if change(before) == before:
            return gr.skip()
        self.choose(project, change)
        return new_text()

    def last_options(self, project: Project, kind: Kind, name: str) -> Step:
        """Find the options that a step had when it was last on.

        Args:
            project: whose recipes.
            kind: which list.
            name: of the step.

        Returns:
            The step; with its defaults where it was never on.
        """
        for recipe in reversed(project.earlier_recipes):
            for step in recipe.get(kind, ()):
                if step.get("name") == name:
                    return Step.model_validate(step)
        return Step(name=name)

    def tried(self, project: Project) -> Tried | None:
        """Give what came of the recipe as it is now.

        Args:
            project: whose.

        Returns:
            It; None where nobody has tried yet.
        """
        return self._tried.get(self._key(project))

    def show_rows(self, project: Project) -> Tried:
        """Put the first rows into words.

        Args:
            project: its recipe, right or wrong.

        Returns:
            The rows, and what the last trial said of the rest.
        """
        known = self.tried(project)
        if known is not None and known.rows:
            return known
        try:
            result = self._ask(project, "render", count=NUM_SHOWN_ROWS)
            shown = Tried(rows=[ShownRow.model_validate(row) for row in result["rows"]])
        except StudioError as error:
            shown = Tried(error=error)
        return shown

    def try_out(self, project: Project) -> Tried:
        """Try the recipe on the first rows.

        Args:
            project: its recipe, right or wrong.

        Returns:
            What came of it.
        """
        known = self.tried(project)
        if known is not None and known.error is None:
            return known
        tried = self.show_rows(project)
        if tried.error is None:
            try:
                result = self._ask(project, "clean", max_rows=MOST_ROWS, num_examples=0)
                tried = Tried(tried.rows, Rehearsal.model_validate(result))
            except StudioError as error:
                tried = Tried(tried.rows, error=error)
        self._tried.put(self._key(project), tried)
        return tried

    def _ask(self, project: Project, operation: str, **arguments: Any) -> Any:
        recipe = pruned(self.recipe(project)).model_dump(mode="json")
        folder = self._server.home.place("upload") / project.upload
        return self._server.data.call(operation, {"folder": folder, "recipe": recipe, **arguments})

    def _key(self, project: Project) -> str:
        if self.upload(project) is None:
            return ""
        recipe = self.recipe(project).to_json()
        return f"{project.upload} {sha256_of_bytes(recipe.encode())}"


def step_titles() -> dict[str, str]:
    """Name every step.

    Returns:
        Titles by name.
    """
    specs: dict[str, Any] = {**all_cleaners(), **all_augmenters()}
    return {name: spec.title for name, spec in specs.items()}


def _goes_on(project: Project, recipe: PrepRecipe, after: PrepRecipe) -> bool:
    """Say whether a change belongs to the last one, such as the next letter that is typed."""
    with suppress(StudioError):
        for earlier in project.earlier_recipes[-1:]:
            before = parse(PrepRecipe, dict(earlier), where="recipe", error=DataError)
            return is_same_edit(before, recipe, after)
    return False
