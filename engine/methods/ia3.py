"""(IA)3: learned vectors scale keys, values and what the FFN's last layer reads.

y = l * (W x + b) for keys and values, l (D_out,); y = W (l * x) + b for the last layer of every
FFN, l (D_in,); W and b frozen. Every l starts at one, so the model starts as the base; merged, the
rows or columns of W are scaled (and the rows' biases) and it costs nothing at inference. Where one
layer makes queries, keys and values, as in GPT-2, Phi-3 or Falcon, its whole output is scaled.
Liu et al. 2022, "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than In-Context
Learning", arXiv 2205.05638.
"""

from functools import partial
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from engine.language_model import LanguageModel
from engine.layers import (
    LinearLayer,
    as_plain,
    blocks_of,
    choose_layers,
    device_of,
    is_transposed,
    linear_layers,
    modules_of,
    put_module,
    target_names,
    unwrap,
    weight_of,
)
from engine.method import MethodOptions, MethodSpec, PeftAdapter, PeftImport
from engine.peft_adapter import no_fit, tensors_by_layer
from engine.plan import SIMPLE, Schedule
from templates.errors import PlanError

KEYS_VALUES_FFN = "keys-values-ffn"
_KEYS, _VALUES = ("k", "key"), ("v", "value")  # the first word of a layer's name


class Options(MethodOptions):
    """(IA)3's own settings."""

    targets: tuple[Annotated[str, Field(max_length=100)], ...] = Field(
        default=(KEYS_VALUES_FFN,),
        max_length=100,
        title="Layers",
        description='Names of linear layers such as k_proj, "keys-values-ffn" or "all-linear".',
        json_schema_extra=SIMPLE,
    )


class ScaledLinear(nn.Module):
    """A frozen linear layer whose output, or input, is scaled by a learned vector."""

    def __init__(self, layer: LinearLayer, *, scales_input: bool) -> None:
        """Begin with ones, as the layer alone; on the meta device too.

        Args:
            layer: nn.Linear, Conv1D or QuantisedLinear in its model.
            scales_input: whether the input is scaled, as in an FFN; else the output.
        """
        super().__init__()
        self.base: Any = layer.module
        self.scales_input = scales_input
        width = layer.in_features if scales_input else layer.out_features
        self.ia3_l = nn.Parameter(torch.ones(width, device=device_of(layer.module)))

    def forward(self, x: Tensor) -> Tensor:
        """Apply scale and layer.

        Args:
            x: (..., D_in).

        Returns:
            (..., D_out).
        """
        if self.scales_input:
            x = _scaled(x, self.ia3_l)
        y: Tensor = self.base(x)
        return y if self.scales_input else _scaled(y, self.ia3_l)

    def update(self) -> Tensor:
        """Say by how much the weight is another one.

        Returns:
            (l - 1) W by rows or columns, (D_out, D_in) in fp32.
        """
        change = self.ia3_l.detach() - 1
        return weight_of(self.base).float() * (change if self.scales_input else change[:, None])


def _scaled(x: Tensor, scale: Tensor) -> Tensor:
    """Multiply as x + x (l - 1): in bf16 an l of 1.001 would be 1."""
    return torch.addcmul(x, x, (scale - 1).to(x.dtype))


def attach(model: Any, options: Options) -> None:
    """Wrap the chosen layers.

    Args:
        model: a transformers causal language model, also on the meta device.
        options: which layers.

    Raises:
        PlanError: no layer of that name, or keys, values or FFN cannot be found in this base.
    """
    of_ffn = ffn_ends(model)
    named = tuple(name for name in options.targets if name != KEYS_VALUES_FFN)
    layers = [] if options.targets == (KEYS_VALUES_FFN,) else choose_layers(model, named)
    if KEYS_VALUES_FFN in options.targets:
        in_attention = keys_and_values(model)
        _check_found(model, in_attention, of_ffn)
        layers = [*layers, *in_attention, *of_ffn]
    ends = {layer.path for layer in of_ffn}
    for path, layer in {layer.path: layer for layer in layers}.items():
        put_module(model, path, ScaledLinear(layer, scales_input=path in ends))


def _check_found(model: Any, in_attention: list[LinearLayer], of_ffn: list[LinearLayer]) -> None:
    found = {"keys and values": in_attention, "the FFN's last layer": of_ffn}
    missing = [what for what, layers in found.items() if not layers]
    if missing:
        names = sorted({layer.path.rpartition(".")[2] for layer in linear_layers(model)})
        raise PlanError(
            f"No linear layer of this base gives {' or '.join(missing)}",
            where="option targets",
            fix=f"Choose layers by name, from {', '.join(names)}, or another method",
        )


def keys_and_values(model: Any) -> list[LinearLayer]:
    """Find the layers that make keys and values, in every block.

    They are called so; an attention without such names makes queries, keys and values in one
    layer, the one that gives more than it takes.

    Args:
        model: a transformers causal language model, on any device, without a method.

    Returns:
        The layers in module order.
    """
    layers = [layer for layer in _in_blocks(model) if _is_in_attention(layer)]
    split = [layer for layer in layers if _first_word(layer) in (*_KEYS, *_VALUES)]
    return split or [layer for layer in layers if layer.out_features > layer.in_features]


def ffn_ends(model: Any) -> list[LinearLayer]:
    """Find the last layer of every FFN: outside attention, and it gives what a block hands on.

    Args:
        model: a transformers causal language model, on any device, without a method.

    Returns:
        The layers in module order; none for experts that are not linear layers.
    """
    width = model.config.get_text_config().hidden_size
    last = {
        layer.path.rpartition(".")[0]: layer
        for layer in _in_blocks(model)
        if layer.out_features == width and not _is_in_attention(layer)
    }
    return list(last.values())


def _in_blocks(model: Any) -> list[LinearLayer]:
    path, _ = blocks_of(model)
    return [layer for layer in linear_layers(model) if layer.path.startswith(f"{path}.")]


def _is_in_attention(layer: LinearLayer) -> bool:
    return any("att" in part.lower() for part in layer.path.split(".")[:-1])


def _first_word(layer: LinearLayer) -> str:
    name = layer.path.rpartition(".")[2]
    # query_key_value begins with its queries; k_proj and key are keys
    return name.partition("_")[0]


def merge(model: Any) -> None:
    """Scale the weights and unwrap: W <- l W and b <- l b by rows, or W <- W l by columns.

    Args:
        model: the model `attach` was called on.
    """
    for path, layer in modules_of(model, ScaledLinear):
        plain, scale = as_plain(layer.base), layer.ia3_l.detach()
        # nn.Linear's weight is (D_out, D_in), Conv1D's (D_in, D_out).
        by_rows = layer.scales_input == isinstance(plain, Conv1D)
        _scale(plain.weight, scale[:, None] if by_rows else scale)
        if plain.bias is not None and not layer.scales_input:
            _scale(plain.bias, scale)
        put_module(model, path, plain)


def _scale(parameter: nn.Parameter, scale: Tensor) -> None:
    parameter.data = (parameter.data.float() * scale).to(parameter.dtype)


def export(language_model: LanguageModel, options: Options) -> PeftAdapter:
    """Name the tensors the way the `peft` library does.

    Args:
        language_model: a trained model.
        options: unused; the layers found are named.

    Returns:
        Config and vectors: (D_out, 1) where outputs are scaled, (1, D_in) where inputs are.
    """
    model = language_model.model
    layers = modules_of(model, ScaledLinear)
    tensors = {
        f"base_model.model.{path}.ia3_l": layer.ia3_l.detach().view(
            (1, -1) if layer.scales_input else (-1, 1)
        )
        for path, layer in layers
    }
    at_input = target_names(model, [path for path, layer in layers if layer.scales_input])
    at_output = target_names(model, [path for path, layer in layers if not layer.scales_input])
    config = {
        "peft_type": "IA3",
        "target_modules": sorted(at_input + at_output),
        "feedforward_modules": at_input,
        "fan_in_fan_out": any(is_transposed(layer.base) for _, layer in layers),
        "init_ia3_weights": True,
    }
    return PeftAdapter(config, tensors)


def import_peft(model: Any, adapter: PeftAdapter) -> PeftImport | None:
    """Put an (IA)3 of the `peft` library in our words.

    Args:
        model: the bare base, also on the meta device.
        adapter: config and tensors as they lie in the folder.

    Returns:
        The layers by name and their factors; None for adapters that are none.

    Raises:
        ModelError: a setting that is not understood, tensors that do not fit the base, or an input
            that is scaled of a layer whose output is scaled here.
    """
    if adapter.config.get("peft_type") != "IA3":
        return None
    own = ("feedforward_modules", "fan_in_fan_out", "init_ia3_weights")
    found = tensors_by_layer(model, adapter, ("ia3_l",), own)
    layers = {layer.path: layer for layer in linear_layers(model)}
    ends = {layer.path for layer in ffn_ends(model)}
    for path, parts in found.items():
        layer = layers.get(path)
        if layer is None:
            raise no_fit("This is no linear layer", path)
        wanted = (1, layer.in_features) if path in ends else (layer.out_features, 1)
        if parts["ia3_l"].shape != wanted:
            shape = tuple(parts["ia3_l"].shape)
            raise no_fit(f"A tensor has shape {shape} instead of {wanted}", f"{path}.ia3_l")
    tensors = {f"{path}.ia3_l": parts["ia3_l"].flatten() for path, parts in found.items()}
    return PeftImport({"targets": target_names(model, found)}, tensors)


SPEC = MethodSpec(
    name="ia3",
    title="(IA)\N{SUPERSCRIPT THREE}",
    family="re-parametrisation",
    summary="One learned factor for each key, value and FFN activation; a tenth of LoRA's size.",
    paper="Liu et al. 2022, arXiv 2205.05638",
    options=Options,
    # Factors near one need far larger steps than weights do, though fewer of them on large models:
    # the paper takes 3e-3 for 3 and 11 billion parameters.
    schedule=Schedule(learning_rate=0.18, epochs=8),
    rate_at_width=384,
    attach=attach,
    detach=partial(unwrap, kind=ScaledLinear),
    when_to_choose="With a few dozen rows, or when hundreds of tuned versions of one base are to "
    "be kept. It learns less than LoRA where there is more data.",
    quality_place=34,
    precisions=("fp32", "bf16", "int8", "nf4"),
    merge=merge,
    export=export,
    import_peft=import_peft,
)
