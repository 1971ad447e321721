"""Writes checkpoints so that they are whole or absent, and reads their tensors.

The files go to a temporary folder, are fsynced, and the folder is renamed. Nothing whole is ever
replaced. `engine/checkpoints.py` shows the files, and finds and verifies them without torch.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.checkpoints import (
    FILES,
    LEARNED,
    MANIFEST,
    OPTIMIZER,
    STATE,
    VERSION,
    Checkpoint,
    TrainerState,
    file_identity,
    free_folder,
)
from templates.files import canonical_json, disk_errors, sync_folder


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
    final = free_folder(root, state.step)
    temporary = root / f".{final.name}.tmp"
    size = _in_words(sum(tensor.nbytes for tensor in (*learned.values(), *optimizer.values())))
    try:
        with disk_errors(f"a checkpoint of {size}"):
            _make_root(root)
            temporary.mkdir(exist_ok=True)
            _save_tensors(learned, temporary / LEARNED)
            _save_tensors(optimizer, temporary / OPTIMIZER)
            _save_text(state.model_dump_json(), temporary / STATE)
            files = {name: file_identity(temporary / name) for name in FILES}
            _save_text(canonical_json({"version": VERSION, "files": files}), temporary / MANIFEST)
            sync_folder(temporary)
            temporary.rename(final)
            sync_folder(root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Checkpoint(final, state)


def read_learned(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Read what the method learned.

    Args:
        checkpoint: a verified one.

    Returns:
        Tensors by exact parameter name.
    """
    return load_file(checkpoint.folder / LEARNED)


def read_optimizer(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Read the optimizer's moments.

    Args:
        checkpoint: a verified one.

    Returns:
        Tensors by parameter name, a slash, and the moment's name.
    """
    return load_file(checkpoint.folder / OPTIMIZER)


def _make_root(root: Path) -> None:
    if not root.is_dir():
        root.mkdir(parents=True)
        sync_folder(root.parent)
    for leftover in root.glob(".step-*.tmp"):  # of a save that was killed; takes up room
        shutil.rmtree(leftover, ignore_errors=True)


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
