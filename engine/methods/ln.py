"""Norm tuning: the weights, and biases, of all LayerNorm and RMSNorm layers learn.

y = g * normalised(x) + b, with g and b (D,) learned in every norm, g alone where it has no b: a
few values in a hundred thousand. They are kept in fp32, where steps of a thousandth add up, and
read in the type of the frozen norm: what is published in that type computes what was measured.
Zhao et al. 2023, "Tuning LayerNorm in Attention: Towards Efficient Multi-Modal LLM Finetuning",
arXiv 2312.11420.
"""

from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

from engine.language_model import LanguageModel
from engine.layers import modules_of, norm_layers, put_module, unwrap
from engine.method import MethodOptions, MethodSpec, PeftAdapter, PeftImport
from engine.peft_adapter import tensors_by_layer
from engine.plan import Schedule
from templates.errors import PlanError

_IN_PEFT = "ln_tuning_layers"  # what holds the learned values there


class Options(MethodOptions):
    """Norm tuning has no options of its own."""


class TunedNorm(nn.Module):
    """A frozen norm and the values that are read instead of its own."""

    def __init__(self, base: nn.Module) -> None:
        """Begin with the norm's own values.

        Args:
            base: any norm that holds learned values.
        """
        super().__init__()
        self.base = base
        self.tuned = nn.ParameterDict(
            {name: value.detach().clone() for name, value in base.named_parameters()}
        )

    def forward(self, x: Tensor, *more: Any) -> Tensor:
        """Normalise with the learned values.

        Args:
            x: (..., D).
            *more: whatever else this norm reads.

        Returns:
            (..., D).
        """
        own = self.base.named_parameters()
        values = {name: self.tuned[name].to(frozen.dtype) for name, frozen in own}
        y: Tensor = functional_call(self.base, values, (x, *more))
        return y

    def update(self) -> Tensor:
        """Say by how much the scale is another one.

        Returns:
            (D,).
        """
        change: Tensor = self.tuned["weight"].detach() - self.base.get_parameter("weight")
        return change

    def bias_change(self) -> Tensor | None:
        """Say by how much the bias is another one.

        Returns:
            (D,), or None where the norm has none.
        """
        if "bias" not in self.tuned:
            return None
        change: Tensor = self.tuned["bias"].detach() - self.base.get_parameter("bias")
        return change


def attach(model: Any, options: Options) -> None:
    """Let every norm learn.

    Args:
        model: a transformers causal language model, also on the meta device.
        options: none.

    Raises:
        PlanError: the model has no norm that holds learned values.
    """
    norms = norm_layers(model)
    if not norms:
        raise PlanError(
            "The norms of this base hold nothing that could learn",
            where="method ln",
            fix="Choose lora",
        )
    for path, norm in norms:
        put_module(model, path, TunedNorm(norm))


def merge(model: Any) -> None:
    """Write what was learned into the frozen norms, in their type, and put them back.

    Args:
        model: the model `attach` was called on.
    """
    for path, norm in modules_of(model, TunedNorm):
        for name, frozen in norm.base.named_parameters():
            frozen.data.copy_(norm.tuned[name].data)
        put_module(model, path, norm.base)


def export(language_model: LanguageModel, options: Options) -> PeftAdapter:
    """Name the norms the way the `peft` library does.

    Args:
        language_model: a trained model.
        options: none.

    Returns:
        Config and the learned values of each norm, (D,).
    """
    norms = modules_of(language_model.model, TunedNorm)
    tensors = {
        f"base_model.model.{path}.{_IN_PEFT}.{name}": value.detach()
        for path, norm in norms
        for name, value in norm.tuned.items()
    }
    names = {path.rpartition(".")[2] for path, _ in norms}
    return PeftAdapter({"peft_type": "LN_TUNING", "target_modules": sorted(names)}, tensors)


def import_peft(model: Any, adapter: PeftAdapter) -> PeftImport | None:
    """Put a norm tuning of the `peft` library in our words.

    Args:
        model: the bare base, also on the meta device.
        adapter: config and tensors as they lie in the folder.

    Returns:
        The values of every norm; None for adapters that are none.

    Raises:
        ModelError: a setting that is not understood, or a tensor of no norm.
    """
    if adapter.config.get("peft_type") != "LN_TUNING":
        return None
    found = tensors_by_layer(model, adapter, (f"{_IN_PEFT}.weight", f"{_IN_PEFT}.bias"), ())
    tensors = {
        f"{path}.{part.replace(_IN_PEFT, 'tuned')}": tensor
        for path, parts in found.items()
        for part, tensor in parts.items()
    }
    return PeftImport({}, tensors)


SPEC = MethodSpec(
    name="ln",
    title="Norm tuning",
    family="selective",
    summary="Only the norms' scales learn: the smallest change that still adapts a model.",
    paper="Zhao et al. 2023, arXiv 2312.11420",
    options=Options,
    # One value scales a whole channel: it bears, and needs, a larger step than a weight does.
    schedule=Schedule(learning_rate=8e-2, epochs=6),
    rate_at_width=384,
    attach=attach,
    detach=partial(unwrap, kind=TunedNorm),
    when_to_choose="When there are few examples, or the result must be tiny. It shifts tone and "
    "format well, and teaches little that is new.",
    quality_place=42,
    precisions=("fp32", "bf16", "int8", "nf4"),
    merge=merge,
    export=export,
    import_peft=import_peft,
)
