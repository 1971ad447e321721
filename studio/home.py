"""Where things are kept, and how an id becomes a folder.

STUDIO_HOME/uploads/<id>/    datasets/<id>/    plans/<id>.yaml    jobs/<id>/
            latest/<kind>    the id that "latest" stands for
            test_looks/<sha256 of the upload>.jsonl    which rows were scored when
"""

import re
import secrets
import time
from pathlib import Path

from studio.settings import studio_home
from templates.errors import RunError
from templates.files import disk_errors, write_atomically

LATEST = "latest"
_PLACES = {
    "upload": "uploads",
    "dataset": "datasets",
    "plan": "plans",
    "train": "jobs",
    "compare": "jobs",
}
_PREFIXES = {
    "upload": "up",
    "dataset": "ds",
    "plan": "plan",
    "train": "train",
    "compare": "compare",
}
_CALLED = {**{kind: kind for kind in _PLACES}, "train": "run", "compare": "comparison"}
_VERBS = {**{kind: kind for kind in _PLACES}, "dataset": "prepare"}
_ID = re.compile(r"[a-z]+-[a-z0-9-]*")


class Home:
    """The folder behind all steps; ids are labels, never paths."""

    def __init__(self, root: Path | None = None) -> None:
        """Open a home; folders appear when they are first needed.

        Args:
            root: the folder; default: STUDIO_HOME.
        """
        self.root = root or studio_home()

    def place(self, kind: str) -> Path:
        """Give the folder that holds all things of a kind.

        Args:
            kind: upload, dataset, plan, train or compare.

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
            kind: upload, plan, train or compare.

        Returns:
            A path that does not exist yet.
        """
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        return self.place(kind) / f"{_PREFIXES[kind]}-{stamp}-{secrets.token_hex(2)}"

    def find(self, kind: str, reference: str) -> Path:
        """Find a thing by id, by the beginning of its id, or the latest.

        Args:
            kind: upload, dataset, plan, train or compare.
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

    def mark_latest(self, kind: str, name: str) -> None:
        """Remember what a verb has just made or gone on with.

        Args:
            kind: upload, dataset, plan, train or compare.
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
            kind: upload, dataset, plan, train or compare.

        Returns:
            Paths, the newest last.
        """
        paths = self.place(kind).glob(f"{_PREFIXES[kind]}-*")
        return sorted(paths, key=lambda path: (path.stat().st_mtime, path.name))
