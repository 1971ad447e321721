"""LoRA: a low-rank update beside chosen linear layers.

y = W x + (alpha / R) B A x, with W (D_out, D_in) frozen, A (R, D_in), B (D_out, R) learned.
B starts at zero, so the model starts as the base; merged, it costs nothing at inference.
Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", arXiv 2106.09685.
"""

import math
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from engine.language_model import LanguageModel
from engine.layers import ALL_LINEAR, blocks_of, choose_layers, in_top_blocks, put_module
from engine.method import MethodOptions, MethodSpec, PeftAdapter
from engine.plan import SIMPLE, Schedule
from engine.quantise import NF4Linear, dequantise_linear
from templates.errors import PlanError


class Options(MethodOptions):
    """LoRA's own settings."""

    rank: int = Field(
        default=8,
        ge=1,
        le=1024,
        title="Rank",
        description="R: width of the update. More can learn more, and takes more memory.",
        json_schema_extra=SIMPLE,
    )
    alpha: float = Field(
        default=16, gt=0, le=4096, title="Alpha", description="The update is scaled by alpha / R."
    )
    dropout: float = Field(
        default=0.0, ge=0, lt=1, title="Dropout", description="On the update's input, in training."
    )
    targets: tuple[Annotated[str, Field(max_length=100)], ...] = Field(
        default=(ALL_LINEAR,),
        max_length=100,
        title="Layers",
        description='Names of linear layers such as q_proj, or "all-linear".',
    )
    top_blocks: int = Field(
        default=0,
        ge=0,
        le=1024,
        title="Top blocks",
        description="Only the last so many blocks learn; those below run once an example. 0: all.",
    )


class LoraLinear(nn.Module):
    """A frozen linear layer and its learned low-rank update."""

    def __init__(self, base: Any, options: Options, in_features: int, out_features: int) -> None:
        """Put an update beside a layer; values come from `initialise`.

        Args:
            base: nn.Linear, Conv1D or NF4Linear.
            options: rank, alpha and dropout.
            in_features: D_in.
            out_features: D_out.
        """
        super().__init__()
        device = next(base.parameters(), torch.empty(0)).device
        if isinstance(base, NF4Linear):
            device = base.codes.device
        self.base = base
        self.scale = options.alpha / options.rank
        # nn.Dropout(0) would still draw a mask as large as the input.
        self.dropout = nn.Dropout(options.dropout) if options.dropout else nn.Identity()
        self.lora_A = nn.Parameter(torch.empty(options.rank, in_features, device=device))
        self.lora_B = nn.Parameter(torch.zeros(out_features, options.rank, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """Apply layer and update.

        Args:
            x: (..., D_in).

        Returns:
            (..., D_out).
        """
        y: Tensor = self.base(x)
        # In the type of the layer: then no fp32 copy of the input is made, or kept for later.
        dropped = self.dropout(x).to(y.dtype)
        narrow = functional.linear(dropped, self.lora_A.to(y.dtype)).flatten(0, -2)  # (N, R)
        wide = self.lora_B.to(y.dtype).T  # (R, D_out)
        return torch.addmm(y.flatten(0, -2), narrow, wide, alpha=self.scale).view_as(y)

    def update(self) -> Tensor:
        """Multiply out the learned update.

        Returns:
            (alpha / R) B A, (D_out, D_in).
        """
        return self.lora_B.detach() @ self.lora_A.detach() * self.scale


def attach(model: Any, options: Options) -> None:
    """Wrap the chosen linear layers.

    Args:
        model: a transformers causal language model, also on the meta device.
        options: LoRA's options.

    Raises:
        PlanError: no layer of that name, fewer blocks, or a rank above a layer's width.
    """
    layers = choose_layers(model, options.targets)
    if options.top_blocks:
        layers = in_top_blocks(model, layers, options.top_blocks)
    for layer in layers:
        width = min(layer.in_features, layer.out_features)
        if options.rank > width:
            raise PlanError(
                f"Rank {options.rank} is above the width {width} of layer {layer.path}",
                where="option rank",
                fix=f"Choose a rank of at most {width}",
            )
    for layer in layers:
        wrapped = LoraLinear(layer.module, options, layer.in_features, layer.out_features)
        put_module(model, layer.path, wrapped)


def initialise(language_model: LanguageModel, options: Options, generator: torch.Generator) -> None:
    """Draw A as Kaiming uniform; B stays zero.

    Args:
        language_model: the model `attach` was called on.
        options: unused.
        generator: fixes the draw.
    """
    for _, layer in lora_layers(language_model.model):
        start = torch.empty(layer.lora_A.shape)
        nn.init.kaiming_uniform_(start, a=math.sqrt(5), generator=generator)
        layer.lora_A.data.copy_(start)


def detach(model: Any) -> None:
    """Unwrap every layer.

    Args:
        model: the model `attach` was called on.
    """
    for path, layer in lora_layers(model):
        put_module(model, path, layer.base)


def merge(model: Any) -> None:
    """Fold the update into the weight: W <- W + (alpha / R) B A, and unwrap.

    A 4-bit layer becomes a plain one that holds its decoded weight plus the update, which is
    exactly what was trained and measured.

    Args:
        model: the model `attach` was called on.
    """
    for path, layer in lora_layers(model):
        base = layer.base
        if isinstance(base, NF4Linear):
            base = dequantise_linear(base, torch.float32)
        update = layer.update()
        weight = base.weight.data
        sum_ = weight.float() + (update.T if isinstance(base, Conv1D) else update)
        base.weight.data = sum_.to(weight.dtype)
        put_module(model, path, base)


def export(language_model: LanguageModel, options: Options) -> PeftAdapter:
    """Name the tensors the way the `peft` library does.

    Args:
        language_model: a trained model.
        options: LoRA's options.

    Returns:
        Config and tensors; A (R, D_in), B (D_out, R) also for GPT-2's transposed layers.
    """
    layers = lora_layers(language_model.model)
    tensors = {}
    for path, layer in layers:
        tensors[f"base_model.model.{path}.lora_A.weight"] = layer.lora_A.detach().contiguous()
        tensors[f"base_model.model.{path}.lora_B.weight"] = layer.lora_B.detach().contiguous()
    transposed = any(
        isinstance(layer.base, Conv1D) or getattr(layer.base, "was_transposed", False)
        for _, layer in layers
    )
    config = {
        "peft_type": "LORA",
        "r": options.rank,
        "lora_alpha": options.alpha,
        "lora_dropout": options.dropout,
        "target_modules": sorted({path.rpartition(".")[2] for path, _ in layers}),
        "bias": "none",
        "fan_in_fan_out": transposed,
        "use_rslora": False,
        "use_dora": False,
        "init_lora_weights": True,
    }
    if options.top_blocks:
        num_blocks = len(blocks_of(language_model.model)[1])
        config["layers_to_transform"] = list(range(num_blocks))[-options.top_blocks :]
    return PeftAdapter(config, tensors)


def lora_layers(model: Any) -> list[tuple[str, LoraLinear]]:
    """List the wrapped layers.

    Args:
        model: the model `attach` was called on.

    Returns:
        Dotted path and layer, in module order.
    """
    modules = model.named_modules()
    return [(path, layer) for path, layer in modules if isinstance(layer, LoraLinear)]


SPEC = MethodSpec(
    name="lora",
    title="LoRA",
    family="re-parametrisation",
    summary="A small low-rank update beside frozen layers; the usual first choice.",
    paper="Hu et al. 2021, arXiv 2106.09685",
    options=Options,
    schedule=Schedule(learning_rate=2e-4, epochs=6),
    rate_at_width=4096,
    attach=attach,
    detach=detach,
    when_to_choose="Begin with this one. It learns nearly as well as training everything, needs "
    "far less memory, and costs nothing when it answers.",
    servable_by=("transformers + peft", "vLLM", "llama.cpp", "Ollama"),
    quality_place=1,
    initialise=initialise,
    merge=merge,
    export=export,
)
