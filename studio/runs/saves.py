"""The checkpoints of a run that must not be lost."""

from dataclasses import dataclass
from pathlib import Path

from engine.checkpoints import DamageError, best_checkpoint, newest_checkpoint
from templates.errors import RunError


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
    newest, damaged = newest_checkpoint(root)
    if newest is None:
        if not damaged:
            return None
        raise _lost("No checkpoint of the run is sound", root.parent.name)
    try:
        best = best_checkpoint(root, None if finished else newest.state)
    except DamageError as error:
        place = f"{root.parent.name}/{error.where}"
        raise _lost("The best checkpoint of the run is damaged or gone", place) from None
    return Saves(newest.folder, best.folder)


def _lost(what: str, where: str) -> RunError:
    return RunError(what, where=where, fix="Train it again; nothing was changed")
