"""What the prepare step knows between two clicks: rehearsals of recipes, and how a base reads.

Everything here can be found again; a new process begins with an empty desk.
"""

import json
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import gradio as gr

from data_prep.prepare import RECIPE
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
from engine.jobs import Job
from engine.planning.shown import LengthReport, PreviewItem
from studio.jobs.requests import PrepareRequest, read_request
from studio.journey import dataset_of
from studio.pages.plan_bases import new_text
from studio.pages.prepare_recipe import Kind, is_same_edit, pruned
from studio.projects import Project
from studio.records import PREPARED, Prepared, read_prepared
from studio.server import Server
from studio.web.job_view import AT_WORK
from templates.dataset import Dataset
from templates.errors import DataError, StudioError
from templates.files import sha256_of_bytes
from templates.template import TaskKind
from templates.values import parse

MOST_ROWS = 5_000  # are tried after each change
NUM_SHOWN_ROWS = 3
_NUM_PREVIEWED = 20
_MOST_KEPT = 64


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


@dataclass(frozen=True)
class Reading:
    """How a base reads what was prepared.

    Attributes:
        items: the first training examples.
        lengths: of all of them.
        error: why that is not known.
    """

    items: Sequence[PreviewItem] = ()
    lengths: LengthReport | None = None
    error: StudioError | None = None


class Desk:
    """One for a server."""

    def __init__(self, server: Server) -> None:
        """Begin empty.

        Args:
            server: whose children are asked.
        """
        self._server = server
        self._uploads: OrderedDict[str, Upload] = OrderedDict()
        self._proposed: OrderedDict[str, Proposed] = OrderedDict()
        self._tried: OrderedDict[str, Tried] = OrderedDict()
        self._readings: OrderedDict[str, Reading] = OrderedDict()

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
                _keep(self._uploads, project.upload, found)
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
        _keep(self._proposed, key, proposed)
        return proposed

    def choose(self, project: Project, recipe: PrepRecipe) -> Project:
        """Keep a changed recipe; what goes on with the last change is one step with it for undo.

        Args:
            project: of which.
            recipe: the new one.

        Returns:
            The project as it is now.
        """
        projects, content = self._server.projects, recipe.model_dump(mode="json")
        now = self.recipe(project)
        if project.recipe is None:
            projects.choose_recipe(project.id, now.model_dump(mode="json"))
        elif project.earlier_recipes and now != recipe:
            with suppress(StudioError):
                earlier = dict(project.earlier_recipes[-1])
                before = parse(PrepRecipe, earlier, where="recipe", error=DataError)
                if is_same_edit(before, now, recipe):
                    return projects.change(project.id, recipe=content)
        return projects.choose_recipe(project.id, content)

    def try_next(self, project: Project, recipe: PrepRecipe) -> Any:
        """Keep a recipe, unless it is the one that is kept: fields tell also what they were filled
        with.

        Args:
            project: of which.
            recipe: as the fields have it.

        Returns:
            What to put where a new text has the recipe tried.
        """
        if recipe == self.recipe(project):
            return gr.skip()
        self.choose(project, recipe)
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
        _keep(self._tried, self._key(project), tried)
        return tried

    def job(self, project: Project) -> Job | None:
        """Find the newest prepare job.

        Args:
            project: names it.

        Returns:
            The job; None where there is none.
        """
        job = self._server.home.job(project.prepare_job) if project.prepare_job else None
        return job if job is not None and job.folder.is_dir() else None

    def start(self, project: Project) -> Project:
        """Begin to prepare; while that goes on, there is no second one.

        Args:
            project: whose recipe.

        Returns:
            The project, with its job.
        """
        queue, before = self._server.queue, self.job(project)
        if before is not None and queue.state(before) in AT_WORK:
            return project
        recipe = pruned(self.recipe(project))
        project = self.choose(project, recipe)
        request = PrepareRequest(
            upload_id=project.upload,
            recipe=recipe.model_dump(mode="json"),
            base=project.base,
            preview=_NUM_PREVIEWED,
        )
        # A double click asks twice with the same key, and gets one job.
        job = queue.submit(
            request, key=f"prepare {project.id} after {project.prepare_job or 'nothing'}"
        )
        queue.advance()
        return self._server.projects.change(project.id, prepare_job=job.id)

    def prepared(self, project: Project) -> Prepared | None:
        """Read what the newest prepare job delivered.

        Args:
            project: names the job.

        Returns:
            What it says; None where it has not finished.
        """
        job = self.job(project)
        with suppress(OSError, ValueError):
            if job is not None and (job.folder / PREPARED).is_file():
                return read_prepared(job)
        return None

    def take(self, project: Project) -> Project:
        """Make what the newest job prepared the project's data.

        Args:
            project: names the job.

        Returns:
            The project as it is now.
        """
        prepared = self.prepared(project)
        if prepared is None or prepared.dataset_id == project.dataset:
            return project
        return self._server.projects.change(project.id, dataset=prepared.dataset_id)

    def recipe_of_data(self, project: Project) -> PrepRecipe | None:
        """Read the recipe that the project's data were made with.

        Args:
            project: names the data.

        Returns:
            The recipe; None where it cannot be read.
        """
        path = self._server.home.place("dataset") / project.dataset / RECIPE
        with suppress(OSError, ValueError, StudioError):
            content = json.loads(path.read_text(encoding="utf-8"))
            return parse(PrepRecipe, content, where=RECIPE, error=DataError)
        return None

    def reading(self, project: Project) -> Reading | None:
        """Give how the project's base reads its data.

        Args:
            project: names both.

        Returns:
            From the prepare job, or what the engine said before; None: it must be asked.
        """
        prepared, job = self.prepared(project), self.job(project)
        if prepared is not None and job is not None and prepared.dataset_id == project.dataset:
            with suppress(StudioError):
                request = read_request(job)
                if isinstance(request, PrepareRequest) and request.base == project.base:
                    return Reading(prepared.preview, prepared.lengths)
        return self._readings.get(_reading_key(project))

    def read(self, project: Project) -> Reading:
        """Ask the engine how the project's base reads its data; takes a moment.

        Args:
            project: names both.

        Returns:
            The answer.
        """
        known = self.reading(project)
        if known is not None and known.error is None:
            return known
        folder = self._server.home.place("dataset") / project.dataset
        arguments = {
            "dataset_folder": folder, "base": project.base, "revision": project.revision,
            "count": _NUM_PREVIEWED,
        }  # fmt: skip
        try:
            answer = self._server.engine.call("preview", arguments)
            reading = Reading(
                [PreviewItem.model_validate(item) for item in answer["items"]],
                LengthReport.model_validate(answer["lengths"]),
            )
        except StudioError as error:
            reading = Reading(error=error)
        _keep(self._readings, _reading_key(project), reading)
        return reading

    def data(self, project: Project) -> Dataset | None:
        """Read what the project's data say of themselves.

        Args:
            project: names them.

        Returns:
            The manifest; None where nothing is prepared.
        """
        return dataset_of(self._server.home, project)

    def _ask(self, project: Project, operation: str, **arguments: Any) -> Any:
        recipe = pruned(self.recipe(project)).model_dump(mode="json")
        folder = self._server.home.place("upload") / project.upload
        return self._server.data.call(
            operation, {"folder": folder, "recipe": recipe, **arguments}
        )

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


def _reading_key(project: Project) -> str:
    return json.dumps([project.dataset, project.base, project.revision])


def _keep(store: OrderedDict[str, Any], key: str, value: object) -> None:
    store[key] = value
    store.move_to_end(key)
    while len(store) > _MOST_KEPT:
        store.popitem(last=False)
