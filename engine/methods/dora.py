"""DoRA: LoRA that learns the length and the direction of every weight row apart.

y = m / |V| (V x) with V = W + (alpha / R) B A, where |V| (D_out,) holds the length of every row of
V, and m (D_out,), A (R, D_in) and B (D_out, R) are learned. m starts as |W|, so the model starts
as the base. The paper's columns are the rows here, as its weights lie the other way round; so they
are for GPT-2's transposed layers, too. |V| is taken as a constant in the backward pass (section
4.3 there), which costs nothing in quality and saves the gradient of a whole weight.
Liu et al. 2024, "DoRA: Weight-Decomposed Low-Rank Adaptation", arXiv 2402.09353.
"""

from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from engine.language_model import LanguageModel
from engine.layers import LinearLayer, modules_of, weight_of
from engine.lora_adapter import read_lora
from engine.method import PeftAdapter
from engine.methods import lora
from engine.methods.lora import LoraLinear, Update
from engine.plan import Schedule

_LEAST_SQUARE = 1e-12  # of a row of zeros, as pruned bases have


class Options(lora.Options):
    """DoRA's settings are LoRA's."""

    def adapter_servers(self) -> tuple[str, ...]:
        """Say who beside `peft` can load the adapter unmerged.

        Returns:
            None: lengths of rows are known to no server.
        """
        return ()


class _Known(NamedTuple):
    """Lengths that were computed before, and what they depend on."""

    narrow: Tensor
    wide: Tensor
    dtype: torch.dtype
    lengths: Tensor


class DoraLinear(LoraLinear):
    """A frozen linear layer whose rows get learned lengths and a low-rank change of direction."""

    def __init__(self, layer: LinearLayer, update: Update) -> None:
        """Put lengths and update beside a layer; values come from `initialise`.

        Args:
            layer: nn.Linear, Conv1D or QuantisedLinear, with D_in and D_out.
            update: rank, alpha, scale and dropout.
        """
        super().__init__(layer, update)
        device = self.lora_B.device
        self.lora_magnitude_vector = nn.Parameter(torch.ones(layer.out_features, device=device))
        self._known: _Known | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer with its new direction and length.

        Args:
            x: (..., D_in).

        Returns:
            (..., D_out).
        """
        y = self.updated(self.base(x), x)  # V x + bias
        # As 1 + change: bf16 has too few digits near 1 for what one step learns.
        change = (self.lora_magnitude_vector / self.lengths() - 1).to(y.dtype)
        bias = self.base.bias
        return torch.addcmul(y, y if bias is None else y - bias.to(y.dtype), change)

    def lengths(self) -> Tensor:
        """Compute how long the rows of V are; while the model answers, once for all tokens.

        Returns:
            |V|, (D_out,) in fp32, without gradient.
        """
        if self.training:
            self._known = None
            return self._lengths()
        narrow, wide = self.lora_A.detach(), self.lora_B.detach()
        dtype, known = next(self.base.parameters(), narrow).dtype, self._known
        if (
            known is None
            or known.dtype != dtype
            or not torch.equal(known.narrow, narrow)
            or not torch.equal(known.wide, wide)
        ):
            known = _Known(narrow.clone(), wide.clone(), dtype, self._lengths())
            self._known = known
        return known.lengths

    @torch.no_grad()
    def _lengths(self) -> Tensor:
        """Add up |W|^2 + 2 scale <W, B A> + scale^2 |B A|^2 by rows: V itself is never made."""
        narrow, wide, weight = self.lora_A, self.lora_B, weight_of(self.base)
        with torch.autocast(weight.device.type, enabled=False):
            own = torch.linalg.vector_norm(weight, dim=1, dtype=torch.float32).square()
            crossed = (weight @ narrow.to(weight.dtype).T).float()  # W A^T, (D_out, R)
            crossed = (
                2 * self.scale * crossed + self.scale**2 * (wide @ (narrow @ narrow.T))
            ) * wide
        lengths: Tensor = (own + crossed.sum(1)).clamp(min=_LEAST_SQUARE).sqrt()
        return lengths

    def merged(self, weight: Tensor) -> Tensor:
        """Compute the weight of one plain layer that does what this one does.

        Args:
            weight: of the frozen layer, (D_out, D_in) in fp32.

        Returns:
            m / |V| V, (D_out, D_in) in fp32.
        """
        turned = weight + super().update()
        lengths = turned.square().sum(1).clamp(min=_LEAST_SQUARE).sqrt()
        return turned * (self.lora_magnitude_vector.detach() / lengths).unsqueeze(1)

    def update(self) -> Tensor:
        """Say by how much the weight is another one.

        Returns:
            m / |V| V - W, (D_out, D_in) in fp32.
        """
        weight = weight_of(self.base).float()
        return self.merged(weight) - weight

    def peft_tensors(self) -> dict[str, Tensor]:
        """Name what was learned as the `peft` library does, behind the layer's path.

        Returns:
            A (R, D_in), B (D_out, R) and m (D_out,).
        """
        magnitude = {"lora_magnitude_vector": self.lora_magnitude_vector.detach()}
        return super().peft_tensors() | magnitude


def attach(model: Any, options: Options) -> None:
    """Wrap the chosen linear layers.

    Args:
        model: a transformers causal language model, also on the meta device.
        options: as LoRA's.
    """
    lora.attach(model, options, DoraLinear)


def initialise(language_model: LanguageModel, options: Options, generator: torch.Generator) -> None:
    """Draw A as LoRA does; B stays zero, and m is the length of the base's rows.

    Args:
        language_model: the model `attach` was called on.
        options: unused.
        generator: fixes the draw.
    """
    lora.initialise(language_model, options, generator)
    for _, layer in modules_of(language_model.model, DoraLinear):
        layer.lora_magnitude_vector.data.copy_(layer.lengths())


def export(language_model: LanguageModel, options: Options) -> PeftAdapter:
    """Name the tensors the way the `peft` library does.

    Args:
        language_model: a trained model.
        options: as LoRA's.

    Returns:
        Config and tensors.
    """
    adapter = lora.export(language_model, options)
    return PeftAdapter(adapter.config | {"use_dora": True}, adapter.tensors)


SPEC = replace(
    lora.SPEC,
    name="dora",
    title="DoRA",
    summary="LoRA that learns how long and which way each weight row points apart.",
    paper="Liu et al. 2024, arXiv 2402.09353",
    options=Options,
    schedule=Schedule(learning_rate=2e-4, epochs=6),
    when_to_choose="When LoRA falls a little short, above all at low ranks. Training is slower; "
    "publish it as a merged model where the server knows plain LoRA only.",
    quality_place=21,
    precisions=("fp32", "bf16", "int8", "nf4"),
    attach=attach,
    initialise=initialise,
    export=export,
    import_peft=partial(read_lora, kind="dora"),
)
