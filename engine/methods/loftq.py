"""LoftQ: QLoRA that begins where 4 bits end, with an update that stands for what they lost.

y = Q x + s B A x, with s = alpha / R. Q (D_out, D_in) in 4 bits, A (R, D_in) and B (D_out, R) are
found together so that Q + s B A is near the weight W: from B A = 0, T rounds of

    Q = quantise(W - s B A),    s B A = the principal part of rank R of W - Q

Then A and B learn and Q stays. With T = 1, Q is what QLoRA trains on.
Li et al. 2023, "LoftQ: LoRA-Fine-Tuning-Aware Quantization for Large Language Models",
arXiv 2310.08659.

Of W a layer then misses, as a share of its norm, 0.092 with QLoRA, 0.083 with one round and 0.073
with five: rank 16 on the starter.

It is published as a whole model. An adapter on the base in 16 bits would have to subtract what Q
lost, which has full rank; and with T > 1 no other program's 4-bit base is Q.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from engine.base_model import read_again
from engine.language_model import LanguageModel
from engine.layers import modules_of, unwrap, weight_of
from engine.methods import lora
from engine.methods.lora import LoraLinear
from engine.methods.pissa import principal_part
from engine.optimizers import PAGED_ADAMW


class Options(lora.Options):
    """LoftQ's settings: those of LoRA and how often it goes to and fro."""

    rounds: int = Field(
        default=5,
        ge=1,
        le=20,
        title="Rounds",
        description="How often the 4-bit weight and the update are fitted to each other.",
    )


class LoftqLinear(LoraLinear):
    """A linear layer in 4 bits and a low-rank update that begins as what they lost."""


attach = partial(lora.attach, kind=LoftqLinear)


@torch.no_grad()
def initialise(language_model: LanguageModel, options: Options, generator: torch.Generator) -> None:
    """Find Q, A and B, one layer after the other.

    The weights are read from the base's files again, in the type that they were quantised from.

    Args:
        language_model: the model `attach` was called on.
        options: give the number of rounds.
        generator: fixes where the search for the directions begins.
    """
    for layer, weight in _with_weights(language_model.model):
        left, right = principal_part(_lost(weight, layer), layer.rank, generator)
        for _ in range(1, options.rounds):
            layer.base.quantise(weight - left @ right)
            left, right = principal_part(_lost(weight, layer), layer.rank, generator)
        layer.lora_A.copy_(right / math.sqrt(layer.scale))
        layer.lora_B.copy_(left / math.sqrt(layer.scale))


def _with_weights(model: Any) -> Iterator[tuple[LoftqLinear, Tensor]]:
    """List the layers, each with the W (D_out, D_in) that its base was quantised from."""
    plain = read_again(model)
    for path, layer in modules_of(model, LoftqLinear):
        weight = weight_of(plain.get_submodule(path))
        yield layer, weight.to(device=layer.lora_A.device, dtype=torch.float32)


def _lost(weight: Tensor, layer: LoftqLinear) -> Tensor:
    return weight - weight_of(layer.base)


def detach(model: Any) -> None:
    """Take the updates off, and hold the base's own weights again.

    Args:
        model: the model `attach` was called on.
    """
    for layer, weight in _with_weights(model):
        layer.base.quantise(weight)
    unwrap(model, LoftqLinear)


SPEC = replace(
    lora.SPEC,
    name="loftq",
    title="LoftQ",
    summary="QLoRA whose update begins as what 4 bits lost of each weight, so less is lost.",
    paper="Li et al. 2023, arXiv 2310.08659",
    options=Options,
    when_to_choose="When QLoRA's answers are too far from those of the base in 16 bits. It takes "
    "longer to begin, reads the base's files twice, and publishes a whole model, no adapter.",
    quality_place=27,
    precisions=("nf4",),
    optimizer=PAGED_ADAMW,
    starts_as_base=False,
    attach=attach,
    detach=detach,
    initialise=initialise,
    export=None,
    import_peft=None,
)
