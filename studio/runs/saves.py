"""Which checkpoints of a run are sound and which is best, read as files, free of torch.

`engine/checkpoints.py` writes and opens them; its docstring shows the folders.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from templates.errors import RunError
from templates.files import sha256_of_file

_STATE, _MANIFEST = "state.json", "manifest.json"
_FILES = ("learned.safetensors", "optimizer.safetensors", _STATE)
_VERSIONS = (1, 7)


@dataclass(frozen=True)
class Saves:
    """The two checkpoints that a run needs; they may be one.

    Attributes:
        newest: what training goes on from.
        best: what is compared and published.
    """

    newest: Path
    best: Path


def find_saves(root: Path, *, finished: bool) -> Saves | None:
    """Find the checkpoints a run cannot do without; every byte of them is verified.

    Args:
        root: the run's checkpoint folder; may not exist.
        finished: a finished run's best was chosen by its last state, even where the weights beside
            that are damaged; another run goes on from the newest checkpoint that is whole.

    Returns:
        The newest sound one and the best; None where nothing was ever saved.

    Raises:
        RunError: none is sound, the best is not, or a newer studio wrote one.
    """
    folders = sorted(root.glob("step-*"), reverse=True)
    if not folders:
        return None
    newest = next((folder for folder in folders if _is_sound(folder)), None)
    if newest is None:
        raise _damaged(folders[0], "No checkpoint of the run is sound")
    telling = newest
    if finished:
        telling = next(folder for folder in folders if _is_sound(folder, (_STATE,)))
    name = f"step-{_best_step(telling):08d}"
    # Of one step saved twice, the later save is the one with its evaluation.
    best = next((folder for folder in folders if folder.name.partition(".")[0] == name), None)
    if best is None or not _is_sound(best):
        raise _damaged(root / name, "The best checkpoint of the run is damaged or gone")
    return Saves(newest, best)


def _is_sound(folder: Path, names: tuple[str, ...] = _FILES) -> bool:
    """Whether these files are the ones the checkpoint's manifest tells of."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_bytes())
        version = manifest["version"]
        if isinstance(version, int) and version > max(_VERSIONS):
            raise RunError(
                f"A checkpoint was made by a newer studio (version {version})",
                where=_place(folder),
                fix="Update the studio",
            )
        return version in _VERSIONS and all(
            (folder / name).stat().st_size == manifest["files"][name]["bytes"]
            and sha256_of_file(folder / name) == manifest["files"][name]["sha256"]
            for name in names
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def _best_step(folder: Path) -> int:
    """The step with the best weights so far; before the first evaluation, the newest."""
    try:
        state = json.loads((folder / _STATE).read_bytes())
        return int(state["best_step"] or state["step"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _damaged(folder, "A checkpoint's state cannot be read") from None


def _place(folder: Path) -> str:
    return f"{folder.parent.parent.name}/{folder.name}"


def _damaged(folder: Path, what: str) -> RunError:
    return RunError(
        what,
        where=_place(folder),
        fix="Train it again; nothing was changed",
    )
