"""LoRA together with BitFit: a low-rank update beside chosen linear layers, and their biases learn.

y = W x + b + s + (alpha / R) B A x, with W (D_out, D_in) and b (D_out,) frozen, A (R, D_in),
B (D_out, R) and s (D_out,) learned; s starts at zero, also where the layer has no b. Norms that
have a bias learn it, too. The update changes what a layer gives by its input; the bias shifts it
for all inputs alike, which a product without one cannot.
Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", arXiv 2106.09685, whose own
code (github.com/microsoft/LoRA) has biases learn on request, and Ben Zaken et al. 2021, "BitFit",
arXiv 2106.10199.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from engine.language_model import LanguageModel
from engine.layers import LinearLayer, blocks_of, modules_of, norms_with_bias, put_module
from engine.lora_adapter import read_lora
from engine.method import PeftAdapter
from engine.methods import bitfit, lora
from engine.methods.bitfit import RebiasedNorm, add_to_biases
from engine.methods.lora import LoraLinear, Update
from engine.peft_adapter import PREFIX
from engine.plan import Schedule


class Options(lora.Options):
    """LoRA's settings; the layers it chooses are those whose biases learn."""

    norms: bool = Field(
        default=True, title="Norms", description="Norms that have a bias learn it as well."
    )

    def adapter_servers(self) -> tuple[str, ...]:
        """Say who beside `peft` can load the adapter unmerged.

        Returns:
            None: biases are known to no server.
        """
        return ()


class BiasedLoraLinear(LoraLinear):
    """A frozen linear layer, its learned low-rank update, and what its bias learns."""

    def __init__(self, layer: LinearLayer, update: Update) -> None:
        """Put update and shift beside a layer; values come from `initialise`.

        Args:
            layer: nn.Linear, Conv1D or QuantisedLinear, with D_in and D_out.
            update: rank, alpha, scale and dropout.
        """
        super().__init__(layer, update)
        self.shift = nn.Parameter(torch.zeros(layer.out_features, device=self.lora_B.device))

    def updated(self, y: Tensor, x: Tensor) -> Tensor:
        """Add the learned update and shift to what the layer gives.

        Args:
            y: (..., D_out).
            x: (..., D_in).

        Returns:
            y + s + scale B A x, (..., D_out).
        """
        return super().updated(y + self.shift.to(y.dtype), x)

    def bias_change(self) -> Tensor:
        """Say by how much the bias is another one.

        Returns:
            s, (D_out,).
        """
        return self.shift.detach()

    def peft_tensors(self) -> dict[str, Tensor]:
        """Name what was learned as the `peft` library does, behind the layer's path.

        Returns:
            A (R, D_in), B (D_out, R), and the bias of B (D_out,), which is scaled with the product.
        """
        return super().peft_tensors() | {"lora_B.bias": self.shift.detach() / self.scale}


def attach(model: Any, options: Options) -> None:
    """Wrap the chosen linear layers, and the norms that have a bias.

    Args:
        model: a transformers causal language model, also on the meta device.
        options: as LoRA's.

    Raises:
        PlanError: as with LoRA; experts are among what it has no form for.
    """
    lora.attach(model, options, BiasedLoraLinear)
    path, blocks = blocks_of(model)
    lower = tuple(f"{path}.{place}." for place in range(len(blocks))[: -options.top_blocks or 0])
    for name, norm in norms_with_bias(model).items() if options.norms else ():
        if not name.startswith(lower):
            put_module(model, name, RebiasedNorm(norm))


def detach(model: Any) -> None:
    """Put back what was wrapped.

    Args:
        model: the model `attach` was called on.
    """
    bitfit.detach(model)
    lora.detach(model)


def merge(model: Any) -> None:
    """Fold updates into weights and shifts into biases, and unwrap.

    Args:
        model: the model `attach` was called on.
    """
    shifts = {path: layer.shift for path, layer in modules_of(model, BiasedLoraLinear)}
    lora.merge(model)
    bitfit.merge(model)
    add_to_biases(model, shifts)


def export(language_model: LanguageModel, options: Options) -> PeftAdapter:
    """Name the tensors the way the `peft` library does.

    Args:
        language_model: a trained model.
        options: as LoRA's.

    Returns:
        Config and tensors; the biases of norms are whole.
    """
    adapter = lora.export(language_model, options)
    norms = modules_of(language_model.model, RebiasedNorm)
    biases = {f"{PREFIX}{path}.bias": norm.bias.detach() for path, norm in norms}
    config = {"lora_bias": True, "bias": "all" if norms else "none"}
    return PeftAdapter(adapter.config | config, adapter.tensors | biases)


SPEC = replace(
    lora.SPEC,
    name="lora_bitfit",
    title="LoRA + BitFit",
    summary="LoRA whose layers learn a bias as well, and norms theirs.",
    paper="Hu et al. 2021, arXiv 2106.09685; Ben Zaken et al. 2021, arXiv 2106.10199",
    options=Options,
    schedule=Schedule(learning_rate=2e-4, epochs=6),
    when_to_choose="When LoRA falls a little short: a few more values, of another kind. Publish it "
    "as a merged model where the base has biases; as an adapter `peft` opens it.",
    quality_place=28,
    precisions=("fp32", "bf16", "int8", "nf4"),
    attach=attach,
    detach=detach,
    merge=merge,
    export=export,
    export_method="lora_bitfit",
    import_peft=partial(read_lora, kind="lora_bitfit"),
)
