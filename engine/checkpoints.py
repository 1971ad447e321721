"""Checkpoints that are whole or absent, and that prove it when they are opened.

    step-00000120/learned.safetensors     what the method learns, by exact name
                  optimizer.safetensors   AdamW's moments
                  state.json              step, best loss, patience
                  manifest.json           size and sha256 of each file; written last

Written to a temporary folder, fsynced, renamed. Nothing whole is ever replaced: a step that is
saved again becomes step-00000120.01, and the older folder goes only then. safetensors carries no
checksum, so a flipped bit would load silently: the manifest is what notices.
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from templates.errors import RunError
from templates.files import canonical_json, disk_errors, sha256_of_file, sync_folder
from templates.values import Value

_LEARNED, _OPTIMIZER = "learned.safetensors", "optimizer.safetensors"
_STATE, _MANIFEST = "state.json", "manifest.json"
_FILES = (_LEARNED, _OPTIMIZER, _STATE)
# After 1 comes 7: no flipped bit makes a larger digit of a 7, so damage never looks newer.
_VERSION = 7
_READABLE_VERSIONS = (1, _VERSION)  # 1 knew no state that still waits for its evaluation


class TrainerState(Value):
    """Where a run stands after a step; with the plan's seed it fixes everything that follows.

    `evaluation_due`: the step ends with an evaluation, which has not been made yet.
    """

    step: int
    evaluation_due: bool = False
    best_step: int = 0
    best_loss: float | None = None
    evaluations_without_gain: int = 0


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint."""

    folder: Path
    state: TrainerState

    @property
    def weights_sha256(self) -> str:
        """The hash of what the method learned: which weights these are."""
        manifest = json.loads((self.folder / _MANIFEST).read_text(encoding="utf-8"))
        return str(manifest["files"][_LEARNED]["sha256"])

    def learned(self) -> dict[str, Tensor]:
        """Read what the method learned.

        Returns:
            Tensors by exact parameter name.
        """
        return load_file(self.folder / _LEARNED)

    def optimizer(self) -> dict[str, Tensor]:
        """Read the optimizer's moments.

        Returns:
            Tensors by parameter name, a slash, and the moment's name.
        """
        return load_file(self.folder / _OPTIMIZER)


def save_checkpoint(
    root: Path,
    state: TrainerState,
    learned: Mapping[str, Tensor],
    optimizer: Mapping[str, Tensor],
) -> Checkpoint:
    """Write a checkpoint so that a kill at any instant leaves the old ones or this one whole.

    Args:
        root: the run's checkpoint folder.
        state: where the run stands.
        learned: tensors by parameter name.
        optimizer: moments by parameter and name.

    Returns:
        The checkpoint on disk.

    Raises:
        RunError: the disk is full or not writable; older checkpoints are untouched.
    """
    temporary = root / f".{_name(state.step)}.tmp"
    size = _in_words(sum(tensor.nbytes for tensor in (*learned.values(), *optimizer.values())))
    try:
        with disk_errors(f"a checkpoint of {size}"):
            _make_root(root)
            temporary.mkdir(exist_ok=True)
            _save_tensors(learned, temporary / _LEARNED)
            _save_tensors(optimizer, temporary / _OPTIMIZER)
            _save_text(state.model_dump_json(), temporary / _STATE)
            files = {name: _identity(temporary / name) for name in _FILES}
            _save_text(canonical_json({"version": _VERSION, "files": files}), temporary / _MANIFEST)
            sync_folder(temporary)
            final = temporary.rename(_free_folder(root, state.step))
            sync_folder(root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Checkpoint(final, state)


def open_checkpoint(folder: Path) -> Checkpoint:
    """Verify a checkpoint against its manifest.

    Args:
        folder: one `step-…` folder.

    Returns:
        The checkpoint.

    Raises:
        RunError: a file is missing, truncated or changed, or a newer studio wrote it.
    """
    return Checkpoint(folder, _verified_state(folder, _FILES))


def newest_checkpoint(root: Path) -> tuple[Checkpoint | None, list[str]]:
    """Find the newest checkpoint that verifies.

    Args:
        root: the run's checkpoint folder; may not exist.

    Returns:
        The checkpoint or None, and one sentence for each damaged one that was passed over.

    Raises:
        RunError: a newer studio wrote the newest one; going on without it would lose its work.
    """
    damaged: list[_DamageError] = []
    found = None
    for folder in reversed(_folders(root)):
        try:
            found = open_checkpoint(folder)
            break
        except _DamageError as error:
            damaged.append(error)
    instead = "an older one is used" if found else "there is no older one, so training starts again"
    return found, [f"{error.what} ({error.where}); {instead}." for error in damaged]


def prune_checkpoints(root: Path, state: TrainerState, *, keep_newest: int) -> None:
    """Delete what the checkpoint of `state`, just saved, has made needless.

    That is all but the newest and the best; those of later steps, which were found damaged or the
    run would not stand before them; and an older save of the same step.

    Args:
        root: the run's checkpoint folder.
        state: what was saved last; names the best step.
        keep_newest: how many of the newest to keep.
    """
    folders = [folder for folder in _folders(root) if _stem(folder) <= _name(state.step)]
    last_saves = {_stem(folder): folder for folder in folders}
    kept = {*list(last_saves.values())[-keep_newest:], last_saves.get(_name(state.best_step))}
    for folder in _folders(root):
        if folder not in kept:
            shutil.rmtree(folder, ignore_errors=True)


def best_checkpoint(root: Path) -> Checkpoint:
    """Open the checkpoint to use after training.

    Which one that is, the newest readable state says, even where the weights beside it are damaged.

    Args:
        root: the run's checkpoint folder.

    Returns:
        The best one by validation loss; the newest before the first evaluation.

    Raises:
        RunError: there is none, it is damaged, or a newer studio wrote it.
    """
    problem = RunError(
        "The run has no checkpoint yet", where=root.parent.name, fix="Train it first"
    )
    for folder in reversed(_folders(root)):
        try:
            state = _verified_state(folder, (_STATE,))
        except _DamageError as error:
            problem = error
            continue
        name = _name(state.best_step or state.step)
        saves = [folder for folder in _folders(root) if _stem(folder) == name]
        return open_checkpoint(saves[-1] if saves else root / name)
    raise problem


class _DamageError(RunError):
    """A checkpoint is not what was saved."""


def _verified_state(folder: Path, names: tuple[str, ...]) -> TrainerState:
    name = _MANIFEST
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        version = manifest["version"]
        if isinstance(version, int) and version > _VERSION:
            raise RunError(
                f"This checkpoint was made by a newer studio (version {version})",
                where=folder.name,
                fix="Update the studio, or delete the folder to go on from an older checkpoint",
            )
        if version not in _READABLE_VERSIONS:
            raise _damaged(folder, name)
        for name in names:
            if _identity(folder / name) != manifest["files"][name]:
                raise _damaged(folder, name)
        return TrainerState.model_validate_json((folder / _STATE).read_bytes())
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise _damaged(folder, name) from None


def _folders(root: Path) -> list[Path]:
    """In the order of steps, and of one step in the order they were saved."""
    return sorted(root.glob("step-*")) if root.is_dir() else []


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _stem(folder: Path) -> str:
    return folder.name.partition(".")[0]


def _free_folder(root: Path, step: int) -> Path:
    saves = [folder for folder in _folders(root) if _stem(folder) == _name(step)]
    if not saves:
        return root / _name(step)
    return root / f"{_name(step)}.{int(saves[-1].suffix[1:] or 0) + 1:02d}"


def _make_root(root: Path) -> None:
    if not root.is_dir():
        root.mkdir(parents=True)
        sync_folder(root.parent)
    for leftover in root.glob(".step-*.tmp"):  # of a save that was killed; takes up room
        shutil.rmtree(leftover, ignore_errors=True)


def _identity(path: Path) -> dict[str, object]:
    return {"bytes": path.stat().st_size, "sha256": sha256_of_file(path)}


def _save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    ready = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    save_file(ready, path)
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _save_text(text: str, path: Path) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _in_words(num_bytes: int) -> str:
    megabytes = max(num_bytes / 1e6, 0.1)  # never "0.0 MB"
    return f"{megabytes / 1e3:.1f} GB" if megabytes >= 1e3 else f"{megabytes:.1f} MB"


def _damaged(folder: Path, name: str) -> _DamageError:
    return _DamageError(
        "A checkpoint is damaged",
        where=f"{folder.name}/{name}",
        fix="Resume from an older checkpoint, or train again",
    )
