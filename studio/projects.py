"""Projects: which upload, dataset, plan and runs belong together on the page.

A project holds ids and what is being chosen, never results: those lie in the folders the ids name.
What is done, and what an earlier change has made stale, is derived from them each time.
"""

import fcntl
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from engine.plan import Precision
from engine.publishing.publication import Form
from studio.home import Home
from templates.errors import RunError
from templates.files import canonical_json, disk_errors, write_atomically
from templates.values import Value, parse

_MOST_EARLIER = 30
_ID = re.compile(r"project-[0-9a-z-]+")


def _line(value: object) -> object:
    """Keep a name to one printable line."""
    if not isinstance(value, str):
        return value
    return "".join(char if char.isprintable() else " " for char in value).strip()


class PlanChoices(Value):
    """What is chosen on the plan page; what is left out keeps the method's default."""

    method: str = "lora"
    options: Mapping[str, Any] = Field(default={})
    schedule: Mapping[str, Any] = Field(default={})
    limits: Mapping[str, Any] = Field(default={})
    precision: Precision | None = None
    seed: int = Field(default=0, ge=0, lt=2**32)
    others: Mapping[str, Mapping[str, Any]] = Field(
        default={}, description="Options and schedule that were set for other methods."
    )
    hourly_price: float = Field(default=0, ge=0, le=1e6, description="Of the machine; 0: unknown.")
    shows_all: bool = Field(default=False, description="Whether the form shows every setting.")


class PublishChoices(Value):
    """What is chosen on the publish page; never a token."""

    form: Form | None = Field(default=None, description="None: the first that the method has.")
    title: str = Field(default="", max_length=100, description="Empty: the project's name.")
    repo_id: str = Field(default="", max_length=200, description="Where it shall go on the Hub.")
    acknowledged: tuple[str, ...] = Field(
        default=(), description="Ids of findings that may be published all the same."
    )


class Project(Value):
    """One piece of work, from a table to a published model."""

    id: str
    name: Annotated[str, BeforeValidator(_line), Field(min_length=1, max_length=100)]
    created_at: float
    base: str = "starter"
    revision: str = ""
    upload: str = Field(default="", description="Id of the table.")
    recipe: Mapping[str, Any] | None = Field(default=None, description="A whole PrepRecipe.")
    earlier_recipes: tuple[Mapping[str, Any], ...] = Field(default=(), description="For undo.")
    prepare_job: str = Field(default="", description="The newest one, whatever became of it.")
    dataset: str = ""
    choices: PlanChoices = PlanChoices()
    plan: str = Field(default="", description="Id of the plan that is to be trained.")
    planned: Mapping[str, Any] = Field(default={}, description="What that plan was made of.")
    runs: tuple[str, ...] = Field(default=(), description="Train jobs, the newest last.")
    run: str = Field(default="", description="The one that is compared and published.")
    compare_job: str = ""
    predict_job: str = ""
    publish_job: str = ""
    publishing: PublishChoices = PublishChoices()

    @property
    def to_plan(self) -> dict[str, Any]:
        """What a plan made now would be made of, data apart."""
        looks = {"others", "hourly_price", "shows_all"}
        choices = self.choices.model_dump(mode="json", exclude=looks)
        return {"base": self.base, "revision": self.revision, **choices}


class Projects:
    """The projects of a home."""

    def __init__(self, home: Home) -> None:
        """Open them.

        Args:
            home: the folder behind all steps.
        """
        self._home = home

    def new(self, name: str) -> Project:
        """Begin a project.

        Args:
            name: what the person calls it.

        Returns:
            The project, saved.

        Raises:
            RunError: the name is empty or too long, or the disk refuses.
        """
        path = self._home.new("project")
        content = {"id": path.name, "name": name, "created_at": time.time()}
        project = parse(Project, content, where="project", error=RunError)
        self._save(project)
        return project

    def read(self, name: str) -> Project:
        """Read a project.

        Args:
            name: its id.

        Returns:
            The project.

        Raises:
            RunError: there is none with this id, or its file is damaged.
        """
        path = self._home.place("project") / f"{name}.json"
        if not _ID.fullmatch(name) or not path.is_file():
            raise RunError(
                f"There is no project {name!r} any more", fix="Open another one on the start page"
            )
        return _read(path)

    def change(self, name: str, **changes: Any) -> Project:
        """Change some fields of a project, whatever another tab does at the same time.

        Args:
            name: its id.
            **changes: new values by field.

        Returns:
            The project as it is now.

        Raises:
            RunError: there is no such project, or a value is wrong.
        """
        return self.edit(name, lambda project: changes)

    def edit(self, name: str, edit: Callable[[Project], Mapping[str, Any]]) -> Project:
        """Change a project depending on what it is.

        Args:
            name: its id.
            edit: from the project as it is to the fields that change.

        Returns:
            The project as it is now.

        Raises:
            RunError: there is no such project, or a value is wrong.
        """
        with self._locked():
            before = self.read(name)
            content = {**before.model_dump(mode="json"), **edit(before)}
            after = parse(Project, content, where="project", error=RunError)
            if after != before:
                self._save(after)
        return after

    def choose_recipe(self, name: str, recipe: Mapping[str, Any]) -> Project:
        """Change the recipe and remember the one before, for undo.

        Args:
            name: the project's id.
            recipe: a whole PrepRecipe.

        Returns:
            The project as it is now.
        """

        return self.edit(name, lambda project: with_recipe(project, recipe))

    def undo_recipe(self, name: str) -> Project:
        """Go back to the recipe before the last change; without one, nothing happens.

        Args:
            name: the project's id.

        Returns:
            The project as it is now.
        """

        def undone(project: Project) -> Mapping[str, Any]:
            *earlier, last = project.earlier_recipes or (project.recipe,)
            return {"recipe": last, "earlier_recipes": earlier}

        return self.edit(name, undone)

    def all(self) -> list[Project]:
        """List the projects; a damaged file is passed over.

        Returns:
            The newest first.
        """
        found = []
        for path in reversed(self._home.all("project")):
            try:
                found.append(_read(path))
            except RunError:
                continue
        return found

    def remove(self, name: str) -> None:
        """Forget a project; its uploads, datasets and runs stay.

        Args:
            name: its id.

        Raises:
            RunError: there is no such project, or the disk refuses.
        """
        with disk_errors("the project"):
            (self._home.place("project") / f"{self.read(name).id}.json").unlink()

    def _save(self, project: Project) -> None:
        path = self._home.place("project") / f"{project.id}.json"
        content = canonical_json(project.model_dump(mode="json"), indent=1)
        with disk_errors("the project"):
            write_atomically(path, content + "\n")

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with disk_errors("the project"), self._home.lock("projects").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # held for a read and a write, never longer
            yield


def with_recipe(project: Project, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Change the recipe and remember the one before, for undo.

    Args:
        project: as it is.
        recipe: a whole PrepRecipe.

    Returns:
        The fields that change, for `Projects.edit`.
    """
    if project.recipe is None or project.recipe == recipe:
        return {"recipe": recipe}
    earlier = (*project.earlier_recipes, project.recipe)[-_MOST_EARLIER:]
    return {"recipe": recipe, "earlier_recipes": earlier}


def _read(path: Path) -> Project:
    try:
        text = path.read_text(encoding="utf-8")
        return Project.model_validate_json(text)
    except (OSError, ValueError):
        raise RunError(
            "The project cannot be read", where=path.stem, fix="Open another one, or begin anew"
        ) from None
