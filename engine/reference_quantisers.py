"""Reference quantisers, written to be read; `quantise.py` holds the layers that train on them.

Each takes numbers in groups and keeps few bits of every number and one or two full numbers a group:

    absmax      scale = 127 / max |x|,  code = round(scale x): zero stays zero
    zero-point  scale = 255 / (max x - min x),  code = round(scale x + zero): no code is wasted
    NF4         code = the nearest of 16 quantiles of N(0, 1) to x / max |x|

Dettmers et al. 2022, "LLM.int8()", arXiv 2208.07339 (vector-wise products, outliers apart);
Dettmers et al. 2023, "QLoRA", arXiv 2305.14314 (NF4, scales quantised once more).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from engine.language_model import LanguageModel
from engine.layers import linear_layers, weight_of
from templates.errors import ModelError
from templates.values import Value

NF4_BLOCK_SIZE = 64
SCALES_BLOCK_SIZE = 256
OUTLIER_THRESHOLD = 6.0
MOST_TOKENS = 256
_NF4_POSITIVE, _NF4_NEGATIVE = 8, 7  # and zero: 16 levels

Groups = Literal["tensor", "row"] | int


@dataclass(frozen=True)
class Quantised:
    """Numbers as codes, N groups of G.

    Attributes:
        codes: (N, G), int8.
        scales: (N, 1): codes a unit.
        zeros: (N, 1): the code of 0.
        shape: of what was quantised.
    """

    codes: Tensor
    scales: Tensor
    zeros: Tensor
    shape: torch.Size

    def decoded(self) -> Tensor:
        """Give the numbers that the codes stand for.

        Returns:
            `shape`.
        """
        return _whole((self.codes.float() - self.zeros) / self.scales, self.shape)


def absmax(x: Tensor, groups: Groups = "tensor") -> Quantised:
    """Quantise to 8 bits, symmetrically.

    Args:
        x: (..., D).
        groups: what shares a scale: all, each row of D, or so many numbers in a row.

    Returns:
        Codes from -127 to 127.
    """
    grouped = _grouped(x, groups)
    scales = 127 / _nonzero(grouped.abs().amax(dim=1, keepdim=True))
    codes = (grouped * scales).round().to(torch.int8)
    return Quantised(codes, scales, torch.zeros_like(scales), x.shape)


def zero_point(x: Tensor, groups: Groups = "tensor") -> Quantised:
    """Quantise to 8 bits, from the least number to the largest.

    Args:
        x: (..., D).
        groups: what shares a scale: all, each row of D, or so many numbers in a row.

    Returns:
        Codes from -128 to 127.
    """
    grouped = _grouped(x, groups)
    # Zero is within the range, so that it has a code of its own and stays exactly zero.
    low = grouped.amin(dim=1, keepdim=True).clamp(max=0)
    high = grouped.amax(dim=1, keepdim=True).clamp(min=0)
    scales = 255 / _nonzero(high - low)
    zeros = (-scales * low).round() - 128
    codes = (grouped * scales + zeros).round().clamp(-128, 127).to(torch.int8)
    return Quantised(codes, scales, zeros, x.shape)


@cache
def nf4_levels() -> tuple[float, ...]:
    """Make the 16 levels of 4-bit NormalFloat.

    Eight quantiles of N(0, 1) above zero and seven below, as likely as each other, and zero, which
    padding and pruned weights need; divided by the largest, so that they go from -1 to 1.

    Returns:
        The levels, the least first.
    """
    # As much as half a step on either side is left beyond the last quantile: of 16 and of 15 steps.
    last = 1 - (1 / (4 * _NF4_POSITIVE) + 1 / (4 * _NF4_POSITIVE - 2)) / 2
    above = torch.linspace(last, 0.5, _NF4_POSITIVE + 1, dtype=torch.float64)[:-1]
    below = torch.linspace(last, 0.5, _NF4_NEGATIVE + 1, dtype=torch.float64)[:-1]
    quantiles = torch.cat([
        torch.special.ndtri(above), torch.zeros(1, dtype=torch.float64),
        -torch.special.ndtri(below),
    ])  # fmt: skip
    return tuple((quantiles / quantiles.max()).sort().values.tolist())


def nf4(x: Tensor, block_size: int = NF4_BLOCK_SIZE, *, is_double: bool = False) -> Tensor:
    """Quantise to 4 bits and back.

    Args:
        x: any shape.
        block_size: numbers that share a scale.
        is_double: whether the scales are quantised too: 8 bits and their mean in place of 32.

    Returns:
        What the codes stand for, in the shape of x.
    """
    grouped = _grouped(x, block_size)
    largest = grouped.abs().amax(dim=1, keepdim=True)
    levels = torch.tensor(nf4_levels(), dtype=grouped.dtype, device=grouped.device)
    middles = (levels[1:] + levels[:-1]) / 2
    nearest = levels[torch.bucketize(grouped / _nonzero(largest), middles)]
    if is_double:
        mean = largest.mean()
        largest = absmax((largest - mean).T, SCALES_BLOCK_SIZE).decoded().T + mean
    return _whole(nearest * largest, x.shape)


def int8_product(x: Tensor, weight: Tensor, threshold: float = OUTLIER_THRESHOLD) -> Tensor:
    """Multiply as LLM.int8() does: columns of x with outliers as they are, the others in 8 bits.

    Args:
        x: (T, D), what comes in.
        weight: (D_out, D).
        threshold: a column with a number as large as that is an outlier; infinity: none is.

    Returns:
        x W^T, (T, D_out).
    """
    is_outlier = x.abs().amax(dim=0) >= threshold
    exact = x[:, is_outlier] @ weight[:, is_outlier].T
    rows = absmax(x.masked_fill(is_outlier, 0), "row")
    columns = absmax(weight.masked_fill(is_outlier, 0), "row")
    # Sums of products of int8 are whole numbers, which float64 holds exactly.
    products = rows.codes.double() @ columns.codes.double().T
    return exact + (products / (rows.scales @ columns.scales.T)).to(x.dtype)


# What a layer's output becomes, by the name of the way: (x (T, D), weight (D_out, D)) -> (T, D_out)
WAYS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "int8, a scale for all": lambda x, weight: x @ absmax(weight, "tensor").decoded().T,
    "int8, a scale a row": lambda x, weight: x @ absmax(weight, "row").decoded().T,
    "int8, a scale and a zero a row": lambda x, weight: x @ zero_point(weight, "row").decoded().T,
    "int8 times int8": lambda x, weight: int8_product(x, weight, float("inf")),
    "LLM.int8(): outliers apart": int8_product,
    "NF4": lambda x, weight: x @ nf4(weight, is_double=True).T,
}


def output_errors(x: Tensor, weight: Tensor) -> dict[str, float]:
    """Compare what a layer gives with what it gives when quantised.

    Args:
        x: (T, D), what came into the layer.
        weight: (D_out, D).

    Returns:
        For each of `WAYS`, the length of the difference over the length of the output.
    """
    exact = nn.functional.linear(x, weight)
    length = _nonzero(torch.linalg.vector_norm(exact))
    return {
        name: float(torch.linalg.vector_norm(way(x, weight) - exact) / length)
        for name, way in WAYS.items()
    }


def _grouped(x: Tensor, groups: Groups) -> Tensor:
    """(..., D) -> (N, G); the last group is filled up with zeros."""
    if isinstance(groups, int):
        flat = x.flatten()
        return nn.functional.pad(flat, (0, -flat.numel() % groups)).view(-1, groups)
    return x.reshape(1, -1) if groups == "tensor" else x.reshape(-1, x.shape[-1])


def _whole(grouped: Tensor, shape: torch.Size) -> Tensor:
    return grouped.flatten()[: shape.numel()].view(shape)


def _nonzero(x: Tensor) -> Tensor:
    """A group of zeros may have any scale."""
    return torch.where(x == 0, torch.ones_like(x), x)


class LayerErrors(Value):
    """What quantising one layer does to what it gives."""

    path: str
    errors: Mapping[str, float] = Field(
        description="For each of `WAYS`, the length of the difference over that of the output."
    )


@torch.no_grad()
def layer_errors(language_model: LanguageModel, text: str) -> Iterator[LayerErrors]:
    """Let a model read a text, and quantise one layer after the other for what came into it.

    Args:
        language_model: in fp32 or bf16.
        text: some sentences; what is beyond `MOST_TOKENS` is left out.

    Yields:
        The errors of every linear layer inside the blocks, in module order.

    Raises:
        ModelError: there is no token in the text, or no linear layer in the model.
    """
    ids = language_model.encode(text)[: min(MOST_TOKENS, language_model.context_tokens)]
    if not ids:
        raise ModelError("The text has no tokens", fix="Give a sentence")
    layers = list(linear_layers(language_model.model))
    if not layers:
        raise ModelError("This base has no linear layers", fix="Choose another base")
    came_in: dict[str, Tensor] = {}

    def keep(path: str, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        came_in[path] = inputs[0].flatten(0, -2)

    hooks = [layer.module.register_forward_pre_hook(partial(keep, layer.path)) for layer in layers]
    try:
        language_model.model.eval()
        device = language_model.model.device
        language_model.model(torch.tensor([ids], device=device), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    for layer in layers:
        if layer.path in came_in:  # an expert may not have been asked
            x = came_in.pop(layer.path).float()
            yield LayerErrors(
                path=layer.path, errors=output_errors(x, weight_of(layer.module).float())
            )
