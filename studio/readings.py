"""Files on their way into projects: kept, read beside the page, and kept again where that fails.

STUDIO_HOME/incoming/<project id>/table            the file, unless it belongs to an upload
                                  incoming.json    what it is called, and why it could not be read

A file that nobody reads has a problem, or its server was killed; a person says what happens next.
"""

import contextlib
import json
import logging
import re
import shutil
import threading
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field

from data_prep.table_file import AS_FOUND, Corrections
from data_prep.table_preview import Problem
from data_prep.upload import Reached, load_upload
from studio.data_service import DataService
from studio.home import Home
from studio.jobs.queue import Queue
from studio.jobs.requests import TABLE
from studio.projects import Projects
from studio.records import DOWNLOADED, Downloaded
from templates.errors import DataError, RunError, StudioError
from templates.files import canonical_json, disk_errors, write_atomically
from templates.values import Value, parse

_ID = re.compile(r"project-[0-9a-z-]+")
_ABOUT = "incoming.json"
_LONGEST_READING_SECONDS = 1800.0
_LONGEST_SILENCE_SECONDS = 600.0  # some questions to a large table take that long
_UNFORESEEN = Problem(
    what="The studio made a mistake that it did not foresee", where="", fix="Read the file again"
)
_BEGINNING = Reached(done_ratio=0.0, words="opening the file")
_log = logging.getLogger(__name__)


class Incoming(Value):
    """A file that is to become the table of a project."""

    name: str = Field(description="What the person calls it; its ending tells the format.")
    upload: str = Field(default="", description="The upload whose file is read again.")
    job: str = Field(default="", description="The download that brings the file.")
    corrections: Corrections = AS_FOUND
    problem: Problem | None = None


@dataclass
class _Reading:
    """A file that is being read."""

    reached: Reached = _BEGINNING
    cancelled: threading.Event = field(default_factory=threading.Event)
    is_over: threading.Event = field(default_factory=threading.Event)


class Readings:
    """The incoming files of a home, and who of them is being read. Safe for threads."""

    def __init__(self, home: Home, projects: Projects, queue: Queue) -> None:
        """Open them; nothing is read yet.

        Args:
            home: the folder behind all steps.
            projects: whose tables they will be.
            queue: where downloads wait.
        """
        self._home, self._projects, self._queue = home, projects, queue
        # A process of its own: a long reading must not let others' previews wait.
        self._data = DataService(log=home.root / "reader.log")
        self._readings: dict[str, _Reading] = {}
        self._lock = threading.RLock()

    def take(self, project: str, path: Path, *, name: str, keep: bool = False) -> None:
        """Take a file over and begin to read it.

        Args:
            project: its id.
            path: the file.
            name: what the person calls it.
            keep: leave the file where it is and take a copy.

        Raises:
            RunError: the disk refuses.
        """
        with self._lock, disk_errors("the uploaded file"):
            self.discard(project)
            folder = self._folder(project)
            folder.mkdir(parents=True)
            (shutil.copyfile if keep else shutil.move)(path, folder / TABLE)
            self._save(project, Incoming(name=name))
        self._begin(project)

    def expect(self, project: str, job: str, *, name: str) -> None:
        """Remember the download that brings a project's file.

        Args:
            project: its id.
            job: the download's id.
            name: what to call the file until it is here.
        """
        with self._lock, disk_errors("the project"):
            self.discard(project)
            self._folder(project).mkdir(parents=True)
            self._save(project, Incoming(name=name, job=job))

    def read_again(self, project: str, corrections: Corrections) -> None:
        """Read the incoming file, or else that of the project's upload, as the person says.

        Args:
            project: its id.
            corrections: what the person says about the file.

        Raises:
            RunError: the project has no file.
        """
        with self._lock:
            if project in self._readings:  # asked for twice
                return
            incoming = self.find(project)
            if incoming is None:
                upload = self._projects.read(project).upload
                _, name = self.source(project)
                incoming = Incoming(name=name, upload=upload)
                with disk_errors("the project"):
                    self._folder(project).mkdir(parents=True, exist_ok=True)
            change = {"corrections": corrections, "problem": None}
            self._save(project, incoming.model_copy(update=change))
        self._begin(project)

    def find(self, project: str) -> Incoming | None:
        """Look for a project's incoming file; begins to read it where its download is finished.

        Args:
            project: its id.

        Returns:
            What is known of it; None where there is none.
        """
        with self._lock:
            incoming = self._load(project)
            if incoming is None or not incoming.job or project in self._readings:
                return incoming
            job = self._home.job(incoming.job)
            if not (job.folder / DOWNLOADED).is_file() or self._queue.state(job) != "finished":
                return incoming
            content = (job.folder / DOWNLOADED).read_text(encoding="utf-8")
            downloaded = Downloaded.model_validate_json(content)
            self.take(project, job.folder / TABLE, name=downloaded.name)
            return self._load(project)

    def source(self, project: str) -> tuple[Path, str]:
        """Say where the file is that can be read again.

        Args:
            project: its id.

        Returns:
            The file and its name.

        Raises:
            RunError: the project has no file.
        """
        incoming = self._load(project)
        if incoming is not None and not incoming.upload and not incoming.job:
            return self._folder(project) / TABLE, incoming.name
        upload = incoming.upload if incoming else self._projects.read(project).upload
        folder = self._home.place("upload") / upload
        files = sorted(folder.glob("original.*")) if upload else []
        if not files:
            raise RunError("There is no file to read", fix="Choose a file first")
        name, ending = load_upload(folder).name, files[0].name.removeprefix("original")
        return files[0], name if name.lower().endswith(ending) else name + ending

    def reached(self, project: str) -> Reached | None:
        """Say how far reading is.

        Args:
            project: its id.

        Returns:
            The progress; None where nothing is being read.
        """
        reading = self._readings.get(project)
        return reading.reached if reading else None

    def wait(self, project: str, seconds: float) -> None:
        """Give small files a moment.

        Args:
            project: its id.
            seconds: return then at the latest.
        """
        reading = self._readings.get(project)
        if reading is not None:
            reading.is_over.wait(seconds)

    def cancel(self, project: str) -> None:
        """Stop reading or downloading, and forget the file.

        Args:
            project: its id.
        """
        with self._lock:
            reading = self._readings.get(project)
            if reading is not None:
                reading.cancelled.set()  # whoever reads it cleans up
                return
        incoming = self._load(project)
        if incoming is not None and incoming.job:
            self._queue.stop(self._home.job(incoming.job))
        self.discard(project)

    def discard(self, project: str) -> None:
        """Forget a project's incoming file; does nothing while it is read.

        Args:
            project: its id.
        """
        with self._lock:
            if project not in self._readings:
                shutil.rmtree(self._folder(project), ignore_errors=True)

    def close(self) -> None:
        """End what is being read; the files stay."""
        self._data.close()

    def _begin(self, project: str) -> None:
        with self._lock:
            if project in self._readings:
                return
            reading = self._readings[project] = _Reading()
        threading.Thread(
            target=self._read, args=(project, reading), name=f"read {project}", daemon=True
        ).start()

    def _read(self, project: str, reading: _Reading) -> None:
        problem = folder = None
        try:
            folder = self._read_file(project, reading)
        except StudioError as error:
            problem = _problem(error)
        except Exception:
            _log.exception("a file could not be read")
            problem = _UNFORESEEN
        try:
            with self._lock:  # Cancel comes before this, or finds nothing to cancel any more
                self._settle(project, reading, folder, problem)
        finally:
            reading.is_over.set()

    def _settle(
        self, project: str, reading: _Reading, folder: Path | None, problem: Problem | None
    ) -> None:
        """Give the upload to its project, or leave nothing that nobody waits for."""
        is_wanted = not reading.cancelled.is_set()
        try:
            if folder is not None and is_wanted:
                self._projects.change(project, upload=folder.name)
                folder = None
        except StudioError as error:
            problem = _problem(error)
        finally:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
            del self._readings[project]
        if problem is not None and is_wanted and self._exists(project):
            self._keep(project, problem)
        else:
            self.discard(project)

    def _read_file(self, project: str, reading: _Reading) -> Path | None:
        """Read a file -> its upload; None where it was cancelled."""
        incoming = self._load(project)
        if incoming is None:
            return None
        path, name = self.source(project)
        folder = self._home.new("upload")
        request = {**incoming.corrections.model_dump(), "path": path, "folder": folder}
        answer = self._data.stream(
            "read",
            {**request, "name": name},
            timeout_seconds=_LONGEST_READING_SECONDS,
            silence_seconds=_LONGEST_SILENCE_SECONDS,
            cancelled=reading.cancelled,
        )
        try:
            for part in answer:
                reading.reached = parse(Reached, part, where="reading", error=DataError)
        finally:
            answer.close()
            if answer.result is None:  # it may have been finished in the moment it was given up
                shutil.rmtree(folder, ignore_errors=True)
        return None if answer.result is None else folder

    def _exists(self, project: str) -> bool:
        return any(path.stem == project for path in self._home.all("project"))

    def _keep(self, project: str, problem: Problem) -> None:
        incoming = self._load(project)
        with contextlib.suppress(StudioError):  # a full disk: the file is still there to be read
            if incoming is not None:
                self._save(project, incoming.model_copy(update={"problem": problem}))

    def _folder(self, project: str) -> Path:
        if not _ID.fullmatch(project):
            raise RunError("There is no such project", fix="Open one on the start page")
        return self._home.root / "incoming" / project

    def _load(self, project: str) -> Incoming | None:
        try:
            content = json.loads((self._folder(project) / _ABOUT).read_text(encoding="utf-8"))
            return parse(Incoming, content, where=_ABOUT, error=RunError)
        except (OSError, ValueError, StudioError):
            return None

    def _save(self, project: str, incoming: Incoming) -> None:
        content = canonical_json(incoming.model_dump(mode="json"), indent=1)
        write_atomically(self._folder(project) / _ABOUT, content)


def _problem(error: StudioError) -> Problem:
    return Problem(what=error.what, where=error.where, fix=error.fix)
