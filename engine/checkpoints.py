"""Checkpoints that are whole or absent, and that prove it when they are opened.

    step-00000120/learned.safetensors     what the method learns, by exact name
                  optimizer.safetensors   AdamW's moments
                  state.json              step, best loss, patience
                  manifest.json           size and sha256 of each file; written last

Written to a temporary folder, fsynced, renamed. safetensors carries no checksum, so a flipped bit
would load silently: the manifest is what notices.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from safetensors.torch import load_file, save_file
from torch import Tensor

from templates.errors import RunError
from templates.files import canonical_json, disk_errors, sha256_of_file, sync_folder
from templates.values import Value

_LEARNED, _OPTIMIZER = "learned.safetensors", "optimizer.safetensors"
_STATE, _MANIFEST = "state.json", "manifest.json"
_VERSION = 1


class TrainerState(Value):
    """Where a run stands after a step; with the plan's seed it fixes everything that follows."""

    step: int
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
    final = root / f"step-{state.step:08d}"
    temporary = root / f".{final.name}.{uuid4().hex[:8]}.tmp"
    try:
        with disk_errors("the checkpoint"):
            temporary.mkdir(parents=True)
            _save_tensors(learned, temporary / _LEARNED)
            _save_tensors(optimizer, temporary / _OPTIMIZER)
            _save_text(state.model_dump_json(), temporary / _STATE)
            files = {name: _identity(temporary / name) for name in (_LEARNED, _OPTIMIZER, _STATE)}
            _save_text(canonical_json({"version": _VERSION, "files": files}), temporary / _MANIFEST)
            sync_folder(temporary)
            if final.exists():  # left by a run that was killed after this step and started again
                shutil.rmtree(final)
            temporary.rename(final)
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
        RunError: a file is missing, truncated or changed.
    """
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        if manifest["version"] != _VERSION:
            raise _damaged(folder, f"{_MANIFEST}, version {manifest['version']}")
        for name, identity in manifest["files"].items():
            if _identity(folder / name) != identity:
                raise _damaged(folder, name)
        text = (folder / _STATE).read_text(encoding="utf-8")
        return Checkpoint(folder, TrainerState.model_validate_json(text))
    except (OSError, ValueError, KeyError, AttributeError):
        raise _damaged(folder, _MANIFEST) from None


def newest_checkpoint(root: Path) -> tuple[Checkpoint | None, list[str]]:
    """Find the newest checkpoint that verifies.

    Args:
        root: the run's checkpoint folder; may not exist.

    Returns:
        The checkpoint or None, and one sentence for each damaged one that was passed over.
    """
    notices: list[str] = []
    for folder in sorted(_folders(root), reverse=True):
        try:
            return open_checkpoint(folder), notices
        except RunError as error:
            notices.append(f"{error.what} ({error.where}); an older one is used.")
    return None, notices


def prune_checkpoints(root: Path, *, keep_newest: int, keep_step: int) -> None:
    """Delete old checkpoints and what a killed save left behind.

    Args:
        root: the run's checkpoint folder.
        keep_newest: how many of the newest to keep.
        keep_step: one more to keep: the best.
    """
    folders = sorted(_folders(root))
    for folder in folders[:-keep_newest]:
        if folder.name != f"step-{keep_step:08d}":
            shutil.rmtree(folder, ignore_errors=True)
    for leftover in root.glob(".step-*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)


def best_checkpoint(root: Path) -> Checkpoint:
    """Open the checkpoint to use after training.

    Args:
        root: the run's checkpoint folder.

    Returns:
        The best one by validation loss.

    Raises:
        RunError: there is none, or it is damaged.
    """
    newest, _ = newest_checkpoint(root)
    if newest is None:
        raise RunError(
            "The run has no checkpoint yet", where=root.parent.name, fix="Train it first"
        )
    return open_checkpoint(root / f"step-{newest.state.best_step or newest.state.step:08d}")


def _folders(root: Path) -> Iterator[Path]:
    return root.glob("step-*") if root.is_dir() else iter(())


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


def _damaged(folder: Path, name: str) -> RunError:
    return RunError(
        "A checkpoint is damaged",
        where=f"{folder.name}/{name}",
        fix="Resume from an older checkpoint, or train again",
    )
