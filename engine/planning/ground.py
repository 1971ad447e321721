"""What all plans for one dataset and one base share: opened, checked and tokenised once."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from engine.base_model import BaseFolder, load_reader, locate_base
from engine.model_folder import STARTER
from engine.planning.cost import ItemLength
from engine.planning.preview import measure_lengths
from templates.dataset import Dataset, each_example, read_dataset
from templates.errors import PlanError


@dataclass(frozen=True)
class Ground:
    """A dataset as a base reads it.

    Attributes:
        dataset: the manifest.
        base: the checked folder.
        base_id: how later steps find the base wherever they run.
        width: D of the base.
        context_tokens: what fits into the base.
        train: sizes of the training examples.
        validation: sizes of the validation examples.
    """

    dataset: Dataset
    base: BaseFolder
    base_id: str
    width: int
    context_tokens: int
    train: tuple[ItemLength, ...]
    validation: tuple[ItemLength, ...]


def lay_ground(dataset: Dataset, dataset_folder: Path, base: BaseFolder) -> Ground:
    """Tokenise the splits that training reads.

    Args:
        dataset: the manifest of the prepared data.
        dataset_folder: where its splits are.
        base: from `locate_base`.

    Returns:
        What plans need.

    Raises:
        PlanError: there is nothing to learn from or to validate on.
    """
    reader = load_reader(base)
    train, validation = (
        tuple(measure_lengths(reader, each_example(dataset_folder, split), dataset.template))
        for split in ("train", "validation")
    )
    if not train or not validation:
        raise PlanError(
            "Training needs rows to learn from and rows to validate on",
            where=dataset.id,
            fix="Prepare the data with a larger training or validation share",
        )
    # A relative folder would name another model as soon as somebody works elsewhere.
    is_folder = base.id != STARTER and not base.revision
    return Ground(
        dataset=dataset,
        base=base,
        base_id=str(base.path.resolve()) if is_folder else base.id,
        width=int(reader.model.config.hidden_size),
        context_tokens=reader.context_tokens,
        train=train,
        validation=validation,
    )


def remembered_ground(dataset_folder: Path, reference: str, revision: str = "") -> Ground:
    """Lay the ground, or give the one that was laid for the same data and base.

    Args:
        dataset_folder: the prepared data.
        reference: "starter", a model folder or a Hub id.
        revision: of a Hub base; empty for the newest.

    Returns:
        What plans need.
    """
    dataset = read_dataset(dataset_folder)
    return _remembered(dataset_folder, dataset.sha256, locate_base(reference, revision))


@lru_cache(maxsize=4)
def _remembered(dataset_folder: Path, sha256: str, base: BaseFolder) -> Ground:
    return lay_ground(read_dataset(dataset_folder), dataset_folder, base)
