"""BitFit: biases learn, nothing else.

y = W x + (b + s), with W (D_out, D_in) and b (D_out,) frozen, s (D_out,) learned from zero; norms
with a bias learn it, too. About a thousandth of a model's values. The paper's smaller choice, half
of that, is the bias of the queries and of the first feed-forward layer ("q_proj, fc1" in OPT).
Llama and most of its kin have no biases; there zeros can be put beside every linear layer, which
then learn. A bias of keys that no rotation or norm follows changes nothing: softmax cancels it.
Ben Zaken et al. 2021, "BitFit: Simple Parameter-efficient Fine-tuning for Transformer-based Masked
Language-models", arXiv 2106.10199.
"""

import copy
from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from engine.base_model import stock_shapes
from engine.language_model import LanguageModel
from engine.layers import (
    LinearLayer,
    check_no_head,
    device_of,
    is_transposed,
    linear_layers,
    modules_of,
    norms_with_bias,
    put_module,
    unwrap,
)
from engine.method import MethodOptions, MethodSpec, PeftAdapter
from engine.plan import SIMPLE, Schedule
from engine.quantise import QuantisedLinear
from templates.errors import PlanError

ALL = "all"


class Options(MethodOptions):
    """BitFit's own settings."""

    targets: tuple[Annotated[str, Field(max_length=100)], ...] = Field(
        default=(ALL,),
        max_length=100,
        title="Layers",
        description='Names of linear layers or norms such as q_proj or ln_1, or "all".',
    )
    add_biases: bool = Field(
        default=False,
        title="Add biases",
        description="Linear layers that have no bias get one, which starts at zero.",
        json_schema_extra=SIMPLE,
    )


class ShiftedLinear(nn.Module):
    """A frozen linear layer and what its bias learns."""

    def __init__(self, layer: LinearLayer) -> None:
        """Begin without a shift.

        Args:
            layer: nn.Linear, Conv1D or QuantisedLinear, with or without a bias.
        """
        super().__init__()
        self.base: Any = layer.module
        self.in_features = layer.in_features
        device = device_of(layer.module)
        self.shift = nn.Parameter(torch.zeros(layer.out_features, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """Apply layer and shift.

        Args:
            x: (..., D_in).

        Returns:
            (..., D_out).
        """
        y: Tensor = self.base(x)
        return y + self.shift.to(y.dtype)

    def bias_change(self) -> Tensor:
        """Say by how much the bias is another one.

        Returns:
            s, (D_out,).
        """
        return self.shift.detach()


class RebiasedNorm(nn.Module):
    """A frozen norm and the bias that it learns."""

    def __init__(self, base: Any) -> None:
        """Begin with the norm's own bias.

        Args:
            base: a norm that has one.
        """
        super().__init__()
        self.base = base
        self.bias = nn.Parameter(base.bias.detach().float().clone())

    def forward(self, x: Tensor) -> Tensor:
        """Normalise with the learned bias.

        Args:
            x: (..., D).

        Returns:
            (..., D).
        """
        y: Tensor = self.base(x)
        shift: Tensor = self.bias - self.base.bias
        return y + shift.to(y.dtype)

    def bias_change(self) -> Tensor:
        """Say by how much the bias is another one.

        Returns:
            (D,).
        """
        change: Tensor = self.bias.detach() - self.base.bias
        return change


def attach(model: Any, options: Options) -> None:
    """Put something to learn beside every chosen bias.

    Args:
        model: a transformers causal language model, also on the meta device.
        options: which layers, and whether those without a bias get one.

    Raises:
        PlanError: no layer has such a name, or the output head has; or one has no bias and shall
            get none.
    """
    linear = {layer.path: layer for layer in linear_layers(model)}
    norms = norms_with_bias(model)
    paths = [*linear, *norms]
    able = {path for path in linear if options.add_biases or _has_bias(linear[path].module)}
    able |= norms.keys()
    chosen = set(options.targets)
    check_no_head(model, sorted(chosen - {_name(path) for path in paths}))
    _check(chosen, {_name(path) for path in paths}, {_name(path) for path in able})
    for path in paths:
        if path in able and chosen & {_name(path), ALL}:
            learning: nn.Module
            if path in linear:
                learning = ShiftedLinear(linear[path])
            else:
                learning = RebiasedNorm(norms[path])
            put_module(model, path, learning)


def detach(model: Any) -> None:
    """Take off what was learned.

    Args:
        model: the model `attach` was called on.
    """
    for kind in (ShiftedLinear, RebiasedNorm):
        unwrap(model, kind)


def merge(model: Any) -> None:
    """Write the learned biases into the layers: b <- b + s; a layer without one gets s.

    Where the architecture's own config can say that layers have biases, it does afterwards, and
    the other layers that then have one get zeros. A quantised weight stays one.

    Args:
        model: the model `attach` was called on.
    """
    shifts = {path: layer.shift for path, layer in modules_of(model, ShiftedLinear)}
    norms = modules_of(model, RebiasedNorm)
    detach(model)
    add_to_biases(model, shifts)
    for path, norm in norms:
        model.get_submodule(path).bias.data.copy_(norm.bias.data)


def add_to_biases(model: Any, shifts: Mapping[str, Tensor]) -> None:
    """Add what was learned to the biases of linear layers: b <- b + s; one without gets s.

    Args:
        model: with nothing of a method on these layers.
        shifts: (D_out,) by path of the layer.
    """
    added = set()
    for path, shift in shifts.items():
        layer, bias = model.get_submodule(path), shift.detach()
        if _has_bias(layer):
            layer.bias.data = (layer.bias.float() + bias).to(layer.bias.dtype)
        else:
            added.add(f"{path}.bias")
            bias = bias if isinstance(layer, QuantisedLinear) else bias.to(layer.weight.dtype)
            layer.bias = nn.Parameter(bias, requires_grad=False)
    if added:
        _declare(model, added)


def export(language_model: LanguageModel, options: Options) -> PeftAdapter:
    """Write a LoRA whose A and B are zero and whose B has a bias, which is the learned one.

    The `peft` library computes W x + b + (B A x + s), so exactly this. The biases of norms go
    beside, whole, as it saves them for LoRAs that learn biases, too.

    Args:
        language_model: a trained model.
        options: which layers.

    Returns:
        Config and tensors: A (1, D_in), B (D_out, 1), s (D_out,), and (D,) of norms.
    """
    model = language_model.model
    layers, norms = modules_of(model, ShiftedLinear), modules_of(model, RebiasedNorm)
    targets = sorted({_name(path) for path, _ in layers})
    if not layers:  # peft opens no LoRA without a layer: one that stays as it is
        last = list(linear_layers(model))[-1]
        layers, targets = [(last.path, ShiftedLinear(last))], [last.path]
    tensors = {}
    for path, layer in layers:
        place, shift = f"base_model.model.{path}", layer.shift.detach()
        tensors[f"{place}.lora_A.weight"] = shift.new_zeros(1, layer.in_features)
        tensors[f"{place}.lora_B.weight"] = shift.new_zeros(len(shift), 1)
        tensors[f"{place}.lora_B.bias"] = shift
    for path, norm in norms:
        tensors[f"base_model.model.{path}.bias"] = norm.bias.detach()
    config = {
        "peft_type": "LORA",
        "r": 1,
        "lora_alpha": 1,
        "lora_dropout": 0.0,
        "lora_bias": True,
        "target_modules": targets,
        "bias": "all" if norms else "none",
        "fan_in_fan_out": any(is_transposed(layer.base) for _, layer in layers),
        "use_rslora": False,
        "use_dora": False,
        "init_lora_weights": True,
    }
    return PeftAdapter(config, tensors)


def _check(chosen: set[str], names: set[str], able: set[str]) -> None:
    """Refuse names of no layer, and layers whose bias does not exist and shall not be added."""
    unknown = sorted(chosen - names - {ALL})
    if unknown or not chosen:
        raise PlanError(
            f"This base has no linear layer, or norm with a bias, called {unknown[0]!r}"
            if unknown
            else "No layer chosen",
            where="option targets",
            fix=f"Choose from {', '.join(sorted(able or names))}, or {ALL}",
        )
    lacking = sorted(chosen - able - {ALL})
    if lacking or not able:
        raise PlanError(
            f"The layers {', '.join(lacking)} of this base have no biases"
            if lacking
            else "This base has no biases that could learn",
            where="option add_biases",
            fix="Set add_biases to true: they get biases that start at zero",
        )


def _name(path: str) -> str:
    return path.rpartition(".")[2]


def _has_bias(module: Any) -> bool:
    return getattr(module, "bias", None) is not None


def _declare(model: Any, added: set[str]) -> None:
    """Switch on, in the config, what makes a stock model have these biases, if there is that."""
    config = copy.deepcopy(model.config)
    plain = held = stock_shapes(config).keys()
    switches = []
    for switch in [name for name, value in vars(config).items() if value is False]:
        if "bias" in switch:
            setattr(config, switch, True)
            more = stock_shapes(config).keys()
            helps = bool((more - held) & added)
            held = more if helps else held
            setattr(config, switch, helps)
            switches += [switch] if helps else []
    shapes = stock_shapes(config)
    if not added <= shapes.keys():
        return
    for name in shapes.keys() - plain - added:
        module = model.get_submodule(name.rpartition(".")[0])
        zeros = next(model.parameters()).new_zeros(shapes[name])
        module.bias = nn.Parameter(zeros, requires_grad=False)
    for switch in switches:
        setattr(model.config, switch, True)


SPEC = MethodSpec(
    name="bitfit",
    title="BitFit",
    family="selective",
    summary="Only biases learn, about a thousandth of the values; added ones where there are none.",
    paper="Ben Zaken et al. 2021, arXiv 2106.10199",
    options=Options,
    # Biases bear, and need, far larger steps than weights do.
    schedule=Schedule(learning_rate=2.7e-2, epochs=6),
    rate_at_width=384,
    attach=attach,
    detach=detach,
    when_to_choose="When there are few examples, or the result must be tiny, and the base has "
    "biases, as GPT-2 and OPT have. With many examples others learn more.",
    quality_place=43,
    precisions=("fp32", "bf16", "int8", "nf4"),
    merge=merge,
    export=export,
)
