"""Checkpoints that prove they are whole when they are opened. Free of torch.

    step-00000120/learned.safetensors     what the method learns, by exact name
                  optimizer.safetensors   AdamW's moments
                  state.json              step, best loss, patience
                  manifest.json           size and sha256 of each file; written last

`checkpoint_tensors.py` writes them and reads their tensors. A step that is saved again becomes
step-00000120.01, and the older folder goes only then. safetensors carries no checksum, so a flipped
bit would load silently: the manifest is what notices.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from templates.errors import RunError
from templates.files import sha256_of_file
from templates.values import Value

LEARNED, OPTIMIZER = "learned.safetensors", "optimizer.safetensors"
STATE, MANIFEST = "state.json", "manifest.json"
FILES = (LEARNED, OPTIMIZER, STATE)
# After 1 comes 7: no flipped bit makes a larger digit of a 7, so damage never looks newer.
VERSION = 7
_READABLE_VERSIONS = (1, VERSION)  # 1 knew no state that still waits for its evaluation


class TrainerState(Value):
    """Where a run stands after a step; with the plan's seed it fixes everything that follows.

    `evaluation_due`: the step ends with an evaluation, which has not been made yet.
    `micro_batch_tokens`: in memory at once since the planned ones did not fit; 0: as planned.
    """

    step: int
    evaluation_due: bool = False
    best_step: int = 0
    best_loss: float | None = None
    evaluations_without_gain: int = 0
    steps_left_out: int = 0
    micro_batch_tokens: int = 0


class DamageError(RunError):
    """A checkpoint is not what was saved."""


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint."""

    folder: Path
    state: TrainerState

    @property
    def weights_sha256(self) -> str:
        """The hash of what the method learned: which weights these are."""
        manifest = json.loads((self.folder / MANIFEST).read_text(encoding="utf-8"))
        return str(manifest["files"][LEARNED]["sha256"])


def open_checkpoint(folder: Path) -> Checkpoint:
    """Verify a checkpoint against its manifest.

    Args:
        folder: one `step-…` folder.

    Returns:
        The checkpoint.

    Raises:
        RunError: a file is missing, truncated or changed, or a newer studio wrote it.
    """
    return Checkpoint(folder, _verified_state(folder, FILES))


def newest_checkpoint(root: Path) -> tuple[Checkpoint | None, list[str]]:
    """Find the newest checkpoint that verifies.

    Args:
        root: the run's checkpoint folder; may not exist.

    Returns:
        The checkpoint or None, and one sentence for each damaged one that was passed over.

    Raises:
        RunError: a newer studio wrote the newest one; going on without it would lose its work.
    """
    damaged: list[DamageError] = []
    found = None
    for folder in reversed(_folders(root)):
        try:
            found = open_checkpoint(folder)
            break
        except DamageError as error:
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


def best_checkpoint(root: Path, state: TrainerState | None = None) -> Checkpoint:
    """Open the checkpoint to use after training.

    Args:
        root: the run's checkpoint folder.
        state: says which one that is; None: the newest that can be read, even where the weights
            beside it are damaged.

    Returns:
        The best one by validation loss; the newest before the first evaluation.

    Raises:
        RunError: there is none, it is damaged, or a newer studio wrote it.
    """
    state = state or _newest_state(root)
    saves = _saves_of(root, state.best_step or state.step)
    return open_checkpoint(saves[-1] if saves else root / _name(state.best_step or state.step))


def free_folder(root: Path, step: int) -> Path:
    """Name the folder of a checkpoint to be saved.

    Args:
        root: the run's checkpoint folder; may not exist.
        step: of the checkpoint, which may have been saved before.

    Returns:
        A folder that does not exist, and sorts behind all saves of this step and those before.
    """
    saves = _saves_of(root, step)
    if not saves:
        return root / _name(step)
    return root / f"{_name(step)}.{int(saves[-1].suffix[1:] or 0) + 1:02d}"


def file_identity(path: Path) -> dict[str, object]:
    """Describe a file as the manifest does.

    Args:
        path: one file of a checkpoint.

    Returns:
        Its size in bytes and its sha256.
    """
    return {"bytes": path.stat().st_size, "sha256": sha256_of_file(path)}


def _newest_state(root: Path) -> TrainerState:
    problem = RunError(
        "The run has no checkpoint yet", where=root.parent.name, fix="Train it first"
    )
    for folder in reversed(_folders(root)):
        try:
            return _verified_state(folder, (STATE,))
        except DamageError as error:
            problem = error
    raise problem


def _verified_state(folder: Path, names: tuple[str, ...]) -> TrainerState:
    name = MANIFEST
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        version = manifest["version"]
        if isinstance(version, int) and version > VERSION:
            raise RunError(
                f"This checkpoint was made by a newer studio (version {version})",
                where=folder.name,
                fix="Update the studio, or delete the folder to go on from an older checkpoint",
            )
        if version not in _READABLE_VERSIONS:
            raise _damaged(folder, name)
        for name in names:
            if file_identity(folder / name) != manifest["files"][name]:
                raise _damaged(folder, name)
        return TrainerState.model_validate_json((folder / STATE).read_bytes())
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise _damaged(folder, name) from None


def _folders(root: Path) -> list[Path]:
    """In the order of steps, and of one step in the order they were saved."""
    return sorted(root.glob("step-*")) if root.is_dir() else []


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _stem(folder: Path) -> str:
    return folder.name.partition(".")[0]


def _saves_of(root: Path, step: int) -> list[Path]:
    return [folder for folder in _folders(root) if _stem(folder) == _name(step)]


def _damaged(folder: Path, name: str) -> DamageError:
    return DamageError(
        "A checkpoint is damaged",
        where=f"{folder.name}/{name}",
        fix="Resume from an older checkpoint, or train again",
    )
