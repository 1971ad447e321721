"""PiSSA: LoRA that begins with what matters most in the weight, instead of with nothing.

y = (W - s B0 A0) x + s B A x, with s = alpha / R and s B0 A0 the principal part of rank R of W
(D_out, D_in); A (R, D_in) and B (D_out, R) are learned and start as A0 and B0, so the model starts
as the base. The largest directions learn first, and faster than from noise and zeros.
Meng et al. 2024, "PiSSA: Principal Singular Values and Singular Vectors Adaptation of Large
Language Models", arXiv 2404.02948.

The residual W - s B0 A0 is frozen as in the paper, but never stored: A0 and B0 are. So the base
stays as it is to the last bit in every precision, at the price of a second product of rank R. It
is published as a plain LoRA adapter of rank 2 R for the stock base: s (B A - B0 A0).
"""

import math
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from engine.language_model import LanguageModel
from engine.layers import LinearLayer, modules_of, weight_of
from engine.methods import lora
from engine.methods.lora import LoraLinear, Update, add_product
from engine.plan import Schedule

_NUM_ITERATIONS = 8  # the paper's fast decomposition takes up to 16; later ones change little


class Options(lora.Options):
    """PiSSA's settings are LoRA's."""

    @property
    def published_rank(self) -> int:
        """What is learned and what it starts from, one behind the other."""
        return 2 * self.rank


class PissaLinear(LoraLinear):
    """A frozen linear layer without its principal part, and that part, which learns."""

    def __init__(self, layer: LinearLayer, update: Update) -> None:
        """Put both parts beside a layer; values come from `initialise`.

        Args:
            layer: nn.Linear or Conv1D, with D_in and D_out.
            update: rank, alpha, scale and dropout.
        """
        super().__init__(layer, update)
        self.start_A = nn.Parameter(torch.zeros_like(self.lora_A), requires_grad=False)
        self.start_B = nn.Parameter(torch.zeros_like(self.lora_B), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the residual and what learns.

        Args:
            x: (..., D_in).

        Returns:
            (..., D_out).
        """
        y: Tensor = self.base(x)
        residual = add_product(y, x.to(y.dtype), self.start_A, self.start_B, -self.scale)
        return self.updated(residual, x)

    def update(self) -> Tensor:
        """Multiply out what was learned.

        Returns:
            s (B A - B0 A0), (D_out, D_in).
        """
        return super().update() - self.start_B @ self.start_A * self.scale

    def peft_tensors(self) -> dict[str, Tensor]:
        """Name the change as the `peft` library names a LoRA of rank 2 R.

        Returns:
            [A; A0] (2 R, D_in) and [B, -B0] (D_out, 2 R).
        """
        return {
            "lora_A.weight": torch.cat([self.lora_A.detach(), self.start_A]),
            "lora_B.weight": torch.cat([self.lora_B.detach(), -self.start_B], 1),
        }


def attach(model: Any, options: Options) -> None:
    """Wrap the chosen linear layers.

    Args:
        model: a transformers causal language model, also on the meta device.
        options: as LoRA's.
    """
    lora.attach(model, options, PissaLinear)


@torch.no_grad()
def initialise(language_model: LanguageModel, options: Options, generator: torch.Generator) -> None:
    """Take the principal part of every weight, with the singular values shared between A and B.

    Args:
        language_model: the model `attach` was called on.
        options: unused.
        generator: fixes where the search for the directions begins.
    """
    for _, layer in modules_of(language_model.model, PissaLinear):
        weight = weight_of(layer.base).float()
        left, right = principal_part(weight, layer.rank, generator)
        for start, learned, values in (
            (layer.start_A, layer.lora_A, right),
            (layer.start_B, layer.lora_B, left),
        ):
            start.copy_(values / math.sqrt(layer.scale))
            learned.copy_(start)


def principal_part(weight: Tensor, rank: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Split off the directions in which a weight is largest, by subspace iteration.

    As many directions are followed as are kept. So the part is a smooth function of weight and
    draw: a run that is opened on another machine, which rounds differently, finds the same one,
    even where the R-th and the next singular value are nearly equal.
    Halko et al. 2011, "Finding structure with randomness", arXiv 0909.4061.

    Args:
        weight: W, (D_out, D_in).
        rank: R.
        generator: fixes the draw.

    Returns:
        U sqrt(S), (D_out, R), and sqrt(S) V^T, (R, D_in).
    """
    drawn = torch.randn(weight.shape[1], rank, generator=generator).to(weight.device)
    basis = torch.linalg.qr(weight @ drawn).Q  # (D_out, R)
    for _ in range(_NUM_ITERATIONS):
        basis = torch.linalg.qr(weight @ torch.linalg.qr(weight.T @ basis).Q).Q
    left, values, right = torch.linalg.svd(basis.T @ weight, full_matrices=False)
    roots = values.sqrt()
    return basis @ left * roots, roots.unsqueeze(1) * right


SPEC = replace(
    lora.SPEC,
    name="pissa",
    title="PiSSA",
    summary="LoRA that begins with the largest directions of each weight instead of with zeros.",
    paper="Meng et al. 2024, arXiv 2404.02948",
    options=Options,
    # It begins with large values on both sides, so equal steps do more than LoRA's.
    schedule=Schedule(learning_rate=1e-4, epochs=6),
    when_to_choose="When LoRA learns too slowly and the base is held in 16 or 32 bits. What it "
    "publishes is an ordinary LoRA adapter of twice the rank.",
    quality_place=23,
    attach=attach,
    initialise=initialise,
    export_method="lora",
    import_peft=None,
)
