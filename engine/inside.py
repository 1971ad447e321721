"""What tuning changed inside a model: which layers moved, in how many directions, and what a soft
prompt resembles.

A method that puts an update beside a layer tells it by its `update`, and that of a bias by its
`bias_change`; what learns in place is compared with the base. Nothing is merged, and one layer is
looked at at a time.
"""

import math
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import torch
from pydantic import Field
from torch import Tensor, nn

from engine.experts import WEIGHTS
from engine.language_model import LanguageModel
from engine.layers import weight_of
from engine.lora_experts import LoraExperts
from engine.methods.prompt_tuning import LearnedVectors
from templates.values import Value

MOST_DIRECTIONS = 64
_WIDEST_WHOLE = 1024  # a wider update is looked at in its largest directions alone
_NUM_NEIGHBOURS = 5


@runtime_checkable
class Updated(Protocol):
    """A layer beside which a method learned an update."""

    base: Any

    def update(self) -> Tensor:
        """Give the change of the weight, (D_out, D_in)."""


@runtime_checkable
class Rebiased(Protocol):
    """A layer whose bias learned."""

    base: Any

    def bias_change(self) -> Tensor | None:
        """Give the change of the bias, (D_out,); None where there is none that could change."""


class LayerChange(Value):
    """How far a layer's weight, or its bias, moved, and in how many directions."""

    path: str
    change_ratio: float = Field(description="Length of the change over that of the layer's weight.")
    effective_rank: float = Field(
        description="Directions that the change is spread over: the exponential of the entropy "
        "of its singular values (Roy and Vetterli 2007). 0: no change, or no matrix."
    )
    singular_values: tuple[float, ...] = Field(
        description="Of the change, the largest first; of experts, their mean."
    )


class Neighbour(Value):
    """A token of the vocabulary that a learned vector resembles."""

    token: str
    cosine: float


class PromptVector(Value):
    """A virtual token, and the real ones nearest to it."""

    place: int
    length_ratio: float = Field(description="Its length over the mean length of real tokens.")
    nearest: tuple[Neighbour, ...]


class Inside(Value):
    """All of it; a list is empty where the method changes nothing of the kind."""

    layers: tuple[LayerChange, ...] = ()
    prompt: tuple[PromptVector, ...] = ()


@torch.no_grad()
def look_inside(base: LanguageModel, tuned: LanguageModel) -> Iterator[Value]:
    """Look through a tuned model.

    Args:
        base: as it was.
        tuned: the same with a method on it, or with weights of its own.

    Yields:
        A `LayerChange` for each layer that learned, in module order; then a `PromptVector` for
        each virtual token of a soft prompt.
    """
    plain = dict(base.model.named_modules())
    for path, module in tuned.model.named_modules():
        if isinstance(module, Updated):
            yield _changed(path, weight_of(module.base).float(), module.update().float())
        if isinstance(module, Rebiased) and (shift := module.bias_change()) is not None:
            yield _changed(f"{path}.bias", weight_of(module.base).float(), shift.float())
        if isinstance(module, LoraExperts):
            for name in WEIGHTS:
                weight = getattr(module.base, name).detach().float()
                yield _changed(f"{path}.{name}", weight, module.update_of(name).update().float())
        if path in plain and type(module) is type(plain[path]):
            yield from _changed_in_place(path, plain[path], module)
    embedding = tuned.model.get_input_embeddings()
    if isinstance(embedding, LearnedVectors):
        yield from _prompt_vectors(tuned, embedding)


def _changed_in_place(path: str, before: nn.Module, after: nn.Module) -> Iterator[LayerChange]:
    """Compare a layer of the tuned model that stands where one of the base stood."""
    learned = dict(after.named_parameters(recurse=False))
    for name, value in learned.items():
        if value.requires_grad:
            old = before.get_parameter(name).float()
            yardstick = before.get_parameter("weight") if "weight" in learned else old
            place = path if name == "weight" else f"{path}.{name}"
            yield _changed(place, yardstick.float(), value.float() - old)


def _changed(path: str, weight: Tensor, change: Tensor) -> LayerChange:
    length = float(torch.linalg.vector_norm(weight))
    moved = float(torch.linalg.vector_norm(change))
    values = torch.zeros(0)
    if change.dim() > 1 and moved:  # a matrix, or one for each expert
        values = torch.stack(
            [singular_values(part) for part in change.reshape(-1, *change.shape[-2:])]
        )
        values = values.mean(dim=0)
    return LayerChange(
        path=path,
        change_ratio=moved / length if length else 0.0,
        effective_rank=effective_rank(values),
        singular_values=tuple(values[:MOST_DIRECTIONS].tolist()),
    )


def singular_values(matrix: Tensor) -> Tensor:
    """Find the singular values of a matrix; of a large one the largest only, near enough to see.

    Args:
        matrix: (M, N).

    Returns:
        The largest first; all min(M, N), or `MOST_DIRECTIONS` where that is a large number.
    """
    values: Tensor
    if min(matrix.shape) <= _WIDEST_WHOLE:
        values = torch.linalg.svdvals(matrix)
        return values
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the search begins with a draw
        _, values, _ = torch.svd_lowrank(matrix, q=MOST_DIRECTIONS, niter=4)
    return values


def effective_rank(values: Tensor) -> float:
    """Count the directions that a change is spread over.

    Roy and Vetterli 2007, "The effective rank: A measure of effective dimensionality".

    Args:
        values: singular values.

    Returns:
        exp of the entropy of their shares of the sum; 0 where all are zero.
    """
    shares = values[values > 0].double()
    if not len(shares):
        return 0.0
    shares = shares / shares.sum()
    return math.exp(float(-(shares * shares.log()).sum()))


def _prompt_vectors(tuned: LanguageModel, embedding: LearnedVectors) -> Iterator[PromptVector]:
    words = embedding.weight.float()
    lengths = torch.linalg.vector_norm(words, dim=1)
    directions = words / lengths.clamp(min=1e-12)[:, None]
    for place, vector in enumerate(embedding.vectors().float()):
        length = torch.linalg.vector_norm(vector)
        cosines, ids = (directions @ vector / length.clamp(min=1e-12)).topk(_NUM_NEIGHBOURS)
        yield PromptVector(
            place=place,
            length_ratio=float(length / lengths.mean()),
            nearest=tuple(
                Neighbour(token=tuned.decode([id_]), cosine=cosine)
                for id_, cosine in zip(ids.tolist(), cosines.tolist(), strict=True)
            ),
        )
