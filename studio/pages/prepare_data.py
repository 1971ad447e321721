"""What a project prepared: the job, the data, and how the chosen base reads them."""

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from data_prep.mapping import check_mapping
from data_prep.prepare import RECIPE
from data_prep.recipe import PrepRecipe
from engine.jobs import Job
from engine.planning.shown import LengthReport, PreviewItem
from studio.jobs.requests import PrepareRequest, read_request
from studio.journey import dataset_of
from studio.pages.drawer import Drawer
from studio.pages.prepare_desk import Desk
from studio.pages.prepare_recipe import pruned
from studio.projects import Project
from studio.records import PREPARED, Prepared, read_prepared
from studio.server import Server
from studio.web.job_view import AT_WORK
from templates.dataset import Dataset
from templates.errors import DataError, StudioError
from templates.values import parse

_NUM_PREVIEWED = 20


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


class PreparedData:
    """One for a server; it can be asked again in a new process."""

    def __init__(self, server: Server, desk: Desk) -> None:
        """Begin empty.

        Args:
            server: whose engine is asked.
            desk: knows the recipes.
        """
        self._server, self._desk = server, desk
        self._readings: Drawer[Reading] = Drawer()

    def job(self, project: Project) -> Job | None:
        """Find the newest prepare job.

        Args:
            project: names it.

        Returns:
            The job; None where there is none.
        """
        return self._server.home.existing_job(project.prepare_job)

    def is_of_now(self, project: Project) -> bool:
        """Say whether the newest job was asked for what is chosen now.

        Args:
            project: names the job.

        Returns:
            Whether table and recipe are the same.
        """
        job, upload = self.job(project), self._desk.upload(project)
        with suppress(StudioError):
            request = read_request(job) if job is not None else None
            if isinstance(request, PrepareRequest) and upload is not None:
                recipe = pruned(self._desk.recipe(project)).model_dump(mode="json")
                return request.upload_id == project.upload and request.recipe == recipe
        return False

    def start(self, project: Project) -> Project:
        """Begin to prepare; while that goes on, there is no second one.

        Args:
            project: whose recipe.

        Returns:
            The project, with its job.

        Raises:
            DataError: a column is missing.
        """
        queue, before = self._server.queue, self.job(project)
        if before is not None and queue.state(before) in AT_WORK:
            return project
        # A double click asks twice with the same key, and gets one job; both clicks saw this one.
        key = f"prepare {project.id} after {project.prepare_job or 'nothing'}"
        recipe, upload = pruned(self._desk.recipe(project)), self._desk.upload(project)
        columns = [column.name for column in upload.columns] if upload else []
        check_mapping(recipe.template, recipe.mapping, columns)  # at once, not in the job
        project = self._desk.choose(project, lambda _: recipe)
        request = PrepareRequest(
            upload_id=project.upload,
            recipe=recipe.model_dump(mode="json"),
            base=project.base,
            preview=_NUM_PREVIEWED,
        )
        job = queue.submit(request, key=key)
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
        self._readings.put(_reading_key(project), reading)
        return reading

    def data(self, project: Project) -> Dataset | None:
        """Read what the project's data say of themselves.

        Args:
            project: names them.

        Returns:
            The manifest; None where nothing is prepared.
        """
        return dataset_of(self._server.home, project)


def _reading_key(project: Project) -> str:
    return json.dumps([project.dataset, project.base, project.revision])
