"""Where things are kept, and how an id becomes a folder.

STUDIO_HOME/uploads/<id>/    datasets/<id>/    plans/<id>.yaml    jobs/<id>/    sweeps/<id>.json
            projects/<id>.json
            trash/<id>/      jobs that were deleted and can be restored
            latest/<kind>    the id that "latest" stands for
            queue.json       which jobs wait and which run, in order
            keys/<sha256>    the job that a submitter's key stands for
            locks/<name>     held by who uses a device, the queue, or the whole home
            test_looks/<sha256 of the upload>.jsonl    which rows were scored when
"""

import contextlib
import re
import secrets
import shutil
import time
from pathlib import Path

from engine.jobs import JOB_KINDS, Job
from studio.settings import studio_home
from templates.errors import RunError
from templates.files import disk_errors, write_atomically

LATEST = "latest"
_LEFTOVER_SECONDS = 86_400.0
_PLACES: dict[str, str] = {
    "upload": "uploads",
    "dataset": "datasets",
    "plan": "plans",
    "sweep": "sweeps",
    "project": "projects",
    **{kind: "jobs" for kind in JOB_KINDS},
}
_PREFIXES = {kind: kind for kind in _PLACES} | {"upload": "up", "dataset": "ds"}
_CALLED = {kind: kind for kind in _PLACES} | {
    "train": "run",
    "compare": "comparison",
    "predict": "prediction",
    "publish": "publication",
    "fetch": "fetched base",
    "download": "downloaded table",
}
_VERBS = {kind: kind for kind in _PLACES} | {"dataset": "prepare"}
_ID = re.compile(r"[a-z]+-[a-z0-9-]*")


class Home:
    """The folder behind all steps; ids are labels, never paths."""

    def __init__(self, root: Path | None = None) -> None:
        """Open a home; folders appear when they are first needed.

        Args:
            root: the folder; default: STUDIO_HOME.
        """
        self.root = (root or studio_home()).absolute()

    def place(self, kind: str) -> Path:
        """Give the folder that holds all things of a kind.

        Args:
            kind: upload, dataset, plan, sweep, project, or a kind of job.

        Returns:
            An existing folder.
        """
        folder = self.root / _PLACES[kind]
        with disk_errors("the studio's folder"):
            folder.mkdir(parents=True, exist_ok=True)
        return folder

    def new(self, kind: str) -> Path:
        """Name a new thing; ids sort by time.

        Args:
            kind: upload, plan, sweep, project, or a kind of job.

        Returns:
            A path that does not exist yet.
        """
        now = time.time()
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now))
        end = f"{int(now % 1 * 1000):03}{secrets.token_hex(2)}"
        return self.place(kind) / f"{_PREFIXES[kind]}-{stamp}-{end}"

    def find(self, kind: str, reference: str) -> Path:
        """Find a thing by id, by the beginning of its id, or the latest.

        Args:
            kind: upload, dataset, plan, sweep, project, or a kind of job.
            reference: an id, an unambiguous beginning, or "latest".

        Returns:
            Its path.

        Raises:
            RunError: none or several match.
        """
        found = self.all(kind)
        if reference == LATEST:
            matches = self._latest(kind, found)
        elif _ID.fullmatch(reference):
            exact = [path for path in found if path.stem == reference]
            matches = exact or [path for path in found if path.stem.startswith(reference)]
        else:
            matches = []
        if len(matches) == 1:
            return matches[0]
        if not found:
            raise RunError(f"There is no {_CALLED[kind]} yet", fix=f"Run {_VERBS[kind]} first")
        known = ", ".join(path.stem for path in found[-5:])
        many = f"{len(matches)} {_CALLED[kind]}s begin with {reference!r}"
        raise RunError(
            many if matches else f"There is no {_CALLED[kind]} {reference!r}",
            fix=f"Give one of these ids: {known}",
        )

    def find_job(self, reference: str) -> Job:
        """Find a job of any kind.

        Args:
            reference: an id, the beginning of one from its kind on, a kind for the latest of
                that kind, or "latest" for the newest of all.

        Returns:
            The job.

        Raises:
            RunError: none or several match.
        """
        if reference == LATEST:
            found = self.jobs()
            if not found:
                raise RunError("There is no job yet", fix="Run train first")
            return found[-1]
        if reference in JOB_KINDS:
            return Job(self.find(reference, LATEST))
        kind = reference.partition("-")[0]
        if kind in JOB_KINDS:
            return Job(self.find(kind, reference))
        raise RunError(f"There is no job {reference!r}", fix="List them: python app.py jobs list")

    def job(self, name: str) -> Job:
        """Name the job of an id, whether it exists or not.

        Args:
            name: a whole id.

        Returns:
            The job.
        """
        return Job(self.place("train") / name)

    def existing_job(self, name: str) -> Job | None:
        """Find a job that a project names.

        Args:
            name: its whole id; may be empty.

        Returns:
            The job; None where there is none or it is gone.
        """
        job = self.job(name) if name else None
        return job if job is not None and job.folder.is_dir() else None

    def jobs(self) -> list[Job]:
        """List the jobs of every kind.

        Returns:
            The oldest first.
        """
        folders = [path for path in self.place("train").iterdir() if not path.name.startswith(".")]
        return [Job(folder) for folder in sorted(folders, key=_made)]

    def remove_leftovers(self) -> None:
        """Delete what was half written when something was killed, a day after it was."""
        for folder in (self.root, *(self.root / place for place in set(_PLACES.values()))):
            for path in folder.glob(".*.tmp"):
                with contextlib.suppress(OSError):  # gone in this moment
                    if time.time() - path.lstat().st_mtime > _LEFTOVER_SECONDS:
                        shutil.rmtree(path) if path.is_dir() else path.unlink()

    def lock(self, name: str) -> Path:
        """Name the file that stands for a device, the queue, or the home.

        Args:
            name: such as "cpu".

        Returns:
            A file to hold an `flock` on; its folder exists.
        """
        folder = self.root / "locks"
        with disk_errors("the studio's folder"):
            folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{name}.lock"

    def mark_latest(self, kind: str, name: str) -> None:
        """Remember what a verb has just made or gone on with.

        Args:
            kind: upload, dataset, plan, sweep, project, or a kind of job.
            name: its id.
        """
        folder = self.root / LATEST
        with disk_errors("the studio's folder"):
            folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / kind, name)

    def _latest(self, kind: str, found: list[Path]) -> list[Path]:
        pointer = self.root / LATEST / kind
        name = pointer.read_text(encoding="utf-8") if pointer.is_file() else ""
        return [path for path in found if path.stem == name] or found[-1:]

    def all(self, kind: str) -> list[Path]:
        """List all things of a kind.

        Args:
            kind: upload, dataset, plan, sweep, project, or a kind of job.

        Returns:
            Paths, the newest last.
        """
        paths = self.place(kind).glob(f"{_PREFIXES[kind]}-*")
        if kind == "dataset":  # named after content
            return sorted(paths, key=lambda path: (path.stat().st_mtime, path.name))
        return sorted(paths, key=_made)


def _made(folder: Path) -> str:
    """Ids say when they were made, behind their kind."""
    return folder.name.partition("-")[2]
