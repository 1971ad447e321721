"""LoRA: a low-rank update beside chosen linear layers.

y = W x + (alpha / R) B A x, with W (D_out, D_in) frozen, A (R, D_in), B (D_out, R) learned.
B starts at zero, so the model starts as the base; merged, it costs nothing at inference. Rank and
alpha can differ from layer to layer. Experts that lie in 3-D weights learn where "experts" is among
the chosen layers: W_e x + (alpha / R) B_e A_e x for expert e.
Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models", arXiv 2106.09685.

The variants beside this file take from it what they do not change: their layers derive from
`LoraLinear`, their options from `Options`.
"""

import math
from functools import partial
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from engine.language_model import LanguageModel
from engine.layer_values import (
    LONGEST_TEXT,
    check_names,
    parse_values,
    unusual_values,
    usual_value,
    value_for,
)
from engine.layers import (
    ALL_LINEAR,
    LinearLayer,
    as_plain,
    blocks_of,
    check_rank,
    choose_layers,
    device_of,
    in_top_blocks,
    is_transposed,
    linear_layers,
    modules_of,
    put_module,
    unwrap,
    weight_of,
)
from engine.lora_adapter import read_lora
from engine.lora_experts import (
    EXPERTS,
    LoraExperts,
    draw_experts,
    expert_weights,
    peft_experts,
    wrap_experts,
)
from engine.method import LLAMA_CPP, LORAX, VLLM, MethodOptions, MethodSpec, PeftAdapter
from engine.peft_adapter import PREFIX
from engine.plan import SIMPLE, Schedule
from templates.errors import PlanError

LARGEST_RANK, LARGEST_ALPHA = 1024, 4096
SERVERS = (VLLM, LORAX, LLAMA_CPP)
_LARGEST_VLLM_RANK = 512  # of its setting max_lora_rank


class Options(MethodOptions):
    """LoRA's own settings."""

    rank: int = Field(
        default=8,
        ge=1,
        le=LARGEST_RANK,
        title="Rank",
        description="R: width of the update. More can learn more, and takes more memory.",
        json_schema_extra=SIMPLE,
    )
    alpha: float = Field(
        default=16,
        gt=0,
        le=LARGEST_ALPHA,
        title="Alpha",
        description="The update is scaled by alpha / R.",
    )
    dropout: float = Field(
        default=0.0, ge=0, lt=1, title="Dropout", description="On the update's input, in training."
    )
    targets: tuple[Annotated[str, Field(max_length=200)], ...] = Field(
        default=(ALL_LINEAR,),
        max_length=2000,
        title="Layers",
        description='Names of linear layers such as q_proj, or "all-linear"; "experts" for those.',
    )
    top_blocks: int = Field(
        default=0,
        ge=0,
        le=1024,
        title="Top blocks",
        description="Only the last so many blocks learn; those below run once an example. 0: all.",
    )
    rank_pattern: str = Field(
        default="",
        max_length=LONGEST_TEXT,
        title="Rank of some layers",
        description='Such as "q_proj=4, layers.0.self_attn.v_proj=16"; the first that fits counts.',
    )
    alpha_pattern: str = Field(
        default="",
        max_length=LONGEST_TEXT,
        title="Alpha of some layers",
        description='Such as "q_proj=8, v_proj=32"; the first that fits counts.',
    )
    portable: bool = Field(
        default=False,
        title="Portable",
        description="Only settings with which vLLM, LoRAX and llama.cpp load the adapter unmerged.",
    )

    @field_validator("rank_pattern")
    @classmethod
    def _check_ranks(cls, text: str) -> str:
        for name, rank in parse_values(text).items():
            if not (1 <= rank <= LARGEST_RANK and rank == int(rank)):
                raise ValueError(f"{name} needs a whole number from 1 to {LARGEST_RANK}")
        return text

    @field_validator("alpha_pattern")
    @classmethod
    def _check_alphas(cls, text: str) -> str:
        for name, alpha in parse_values(text).items():
            if not 0 < alpha <= LARGEST_ALPHA:
                raise ValueError(f"{name} needs a number above 0, at most {LARGEST_ALPHA}")
        return text

    @field_validator("portable")
    @classmethod
    def _check_portable(cls, wanted: bool, info: ValidationInfo) -> bool:
        served = cls.model_construct(**info.data).adapter_servers()
        missing = [name for name in SERVERS if name not in served]
        if wanted and missing:
            raise ValueError(
                f"An adapter of these settings is not served by {' and '.join(missing)}; take "
                "LoRA, QLoRA, LoRA+ or PiSSA with one rank and one alpha, in all blocks, and name "
                "layers by their last name"
            )
        return wanted

    def adapter_servers(self) -> tuple[str, ...]:
        """Say who beside `peft` can load what these options publish, as an adapter and unmerged.

        vLLM and LoRAX read one rank and one alpha, and pass over others without a word; LoRAX wants
        every layer of a name; llama.cpp reads the rank off each tensor, and one alpha.

        Returns:
            Names of programs.
        """
        if parse_values(self.alpha_pattern):
            return ()
        if parse_values(self.rank_pattern):
            return (LLAMA_CPP,)
        names_layers = not self.top_blocks and not any("." in name for name in self.targets)
        found = {VLLM: self.published_rank <= _LARGEST_VLLM_RANK, LORAX: names_layers}
        return tuple(name for name in SERVERS if found.get(name, True))

    @property
    def published_rank(self) -> int:
        """The rank of an adapter whose layers have one."""
        return self.rank

    def rank_of(self, layer: LinearLayer) -> int:
        """Choose a layer's rank.

        Args:
            layer: a linear layer of the base.

        Returns:
            R.
        """
        return int(value_for(parse_values(self.rank_pattern), layer.path, self.rank))

    def alpha_of(self, layer: LinearLayer) -> float:
        """Choose a layer's alpha.

        Args:
            layer: a linear layer of the base.

        Returns:
            Alpha.
        """
        return value_for(parse_values(self.alpha_pattern), layer.path, self.alpha)

    def scale(self, alpha: float, rank: int) -> float:
        """Compute what an update is multiplied by.

        Args:
            alpha: of the layer.
            rank: of the layer.

        Returns:
            alpha / R.
        """
        return alpha / rank


class Update(NamedTuple):
    """What an update is made of: R, alpha, the factor of B A, and the dropout of its input."""

    rank: int
    alpha: float
    scale: float
    dropout: float


class LoraLinear(nn.Module):
    """A frozen linear layer and its learned low-rank update."""

    def __init__(self, layer: LinearLayer, update: Update) -> None:
        """Put an update beside a layer; values come from `initialise`.

        Args:
            layer: nn.Linear, Conv1D or QuantisedLinear, with D_in and D_out.
            update: rank, alpha, scale and dropout.
        """
        super().__init__()
        device = device_of(layer.module)
        self.base: Any = layer.module
        self.rank, self.alpha, self.scale = update.rank, update.alpha, update.scale
        # nn.Dropout(0) would still draw a mask as large as the input.
        self.dropout = nn.Dropout(update.dropout) if update.dropout else nn.Identity()
        self.lora_A = nn.Parameter(torch.empty(update.rank, layer.in_features, device=device))
        self.lora_B = nn.Parameter(torch.zeros(layer.out_features, update.rank, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """Apply layer and update.

        Args:
            x: (..., D_in).

        Returns:
            (..., D_out).
        """
        return self.updated(self.base(x), x)

    def updated(self, y: Tensor, x: Tensor) -> Tensor:
        """Add the learned update to what the layer gives.

        Args:
            y: (..., D_out).
            x: (..., D_in).

        Returns:
            y + scale B A x, (..., D_out).
        """
        # In the type of the layer: then no fp32 copy of the input is made, or kept for later.
        dropped = self.dropout(x).to(y.dtype)
        return add_product(y, dropped, *self.factors(), self.scale)

    def factors(self) -> tuple[Tensor, Tensor]:
        """Give the two matrices that are multiplied.

        Returns:
            A (R, D_in) and B (D_out, R).
        """
        return self.lora_A, self.lora_B

    def update(self) -> Tensor:
        """Multiply out the learned update.

        Returns:
            scale B A, (D_out, D_in).
        """
        narrow, wide = self.factors()
        return wide.detach() @ narrow.detach() * self.scale

    def merged(self, weight: Tensor) -> Tensor:
        """Compute the weight of one plain layer that does what this one does.

        Args:
            weight: of the frozen layer, (D_out, D_in) in fp32.

        Returns:
            (D_out, D_in) in fp32.
        """
        return weight + self.update()

    def peft_tensors(self) -> dict[str, Tensor]:
        """Name what was learned as the `peft` library does, behind the layer's path.

        Returns:
            A (R, D_in) and B (D_out, R), also for GPT-2's transposed layers.
        """
        return {"lora_A.weight": self.lora_A.detach(), "lora_B.weight": self.lora_B.detach()}


def add_product(y: Tensor, x: Tensor, narrow: Tensor, wide: Tensor, scale: float) -> Tensor:
    """Add a low-rank product, in the type of y.

    Args:
        y: (..., D_out).
        x: (..., D_in), of that type.
        narrow: A, (R, D_in).
        wide: B, (D_out, R).
        scale: a factor.

    Returns:
        y + scale B A x, (..., D_out).
    """
    between = functional.linear(x, narrow.to(y.dtype)).flatten(0, -2)  # (N, R)
    sum_ = torch.addmm(y.flatten(0, -2), between, wide.to(y.dtype).T, alpha=scale)
    return sum_.view_as(y)


def attach(model: Any, options: Options, kind: type[LoraLinear] = LoraLinear) -> None:
    """Wrap the chosen linear layers.

    Args:
        model: a transformers causal language model, also on the meta device.
        options: LoRA's options, or a variant's.
        kind: of layer to wrap them in.

    Raises:
        PlanError: no layer of that name, fewer blocks, or a rank above a layer's width; experts
            where there are none, or together with what they cannot have.
    """
    names = tuple(name for name in options.targets if name != EXPERTS)
    weights = _experts(model, options, kind)
    layers = choose_layers(model, names) if names or not weights else []
    if options.top_blocks:
        kept = in_top_blocks(model, [*layers, *weights], options.top_blocks)
        layers, weights = ([one for one in part if one in kept] for part in (layers, weights))
    for weight in weights:
        check_rank(weight, options.rank)
    wrap_experts(model, weights, options.rank, options.scale(options.alpha, options.rank))
    paths = [layer.path for layer in layers]
    check_names(parse_values(options.rank_pattern), paths, "rank_pattern")
    check_names(parse_values(options.alpha_pattern), paths, "alpha_pattern")
    ranks = {layer.path: options.rank_of(layer) for layer in layers}
    for layer in layers:
        is_own = bool(value_for(parse_values(options.rank_pattern), layer.path, 0))
        check_rank(layer, ranks[layer.path], "rank_pattern" if is_own else "rank")
    for layer in layers:
        rank, alpha = ranks[layer.path], options.alpha_of(layer)
        update = Update(rank, alpha, options.scale(alpha, rank), options.dropout)
        put_module(model, layer.path, kind(layer, update))


def _experts(model: Any, options: Options, kind: type[LoraLinear]) -> list[LinearLayer]:
    """Find the weights of experts, if they are asked for."""
    if EXPERTS not in options.targets:
        return []
    if kind is not LoraLinear or type(options).rank_of is not Options.rank_of:
        problem, fix = "This method has no form for experts", "Choose lora, qlora or rslora"
    elif options.rank_pattern or options.alpha_pattern or options.dropout:
        problem = "Experts learn at one rank and alpha, without dropout"
        fix = "Leave dropout, and ranks and alphas of single layers, out; or leave experts out"
    elif not (found := expert_weights(model)):
        problem, fix = "This base has no experts that could learn", "Leave experts out"
    else:
        return found
    raise PlanError(problem, where="option targets", fix=fix)


def initialise(language_model: LanguageModel, options: Options, generator: torch.Generator) -> None:
    """Draw A as Kaiming uniform; B stays zero.

    Args:
        language_model: the model `attach` was called on.
        options: unused.
        generator: fixes the draw.
    """
    for _, layer in modules_of(language_model.model, LoraLinear):
        start = torch.empty(layer.lora_A.shape)
        nn.init.kaiming_uniform_(start, a=math.sqrt(5), generator=generator)
        layer.lora_A.data.copy_(start)
    draw_experts(language_model.model, generator)


def detach(model: Any) -> None:
    """Put back what was wrapped.

    Args:
        model: the model `attach` was called on.
    """
    for kind in (LoraLinear, LoraExperts):
        unwrap(model, kind)


def merge(model: Any) -> None:
    """Fold what was learned into the weight, such as W <- W + (alpha / R) B A, and unwrap.

    A quantised layer becomes a plain one that holds its decoded weight plus the update, which is
    exactly what was trained and measured.

    Args:
        model: the model `attach` was called on.
    """
    for path, layer in modules_of(model, LoraLinear):
        base = as_plain(layer.base)
        merged = layer.merged(weight_of(base).float())
        own_way = merged.T if isinstance(base, Conv1D) else merged
        base.weight.data = own_way.to(base.weight.dtype).contiguous()
        put_module(model, path, base)
    for path, experts in modules_of(model, LoraExperts):
        put_module(model, path, experts.merge())


def export(language_model: LanguageModel, options: Options) -> PeftAdapter:
    """Name the tensors the way the `peft` library does.

    Args:
        language_model: a trained model.
        options: LoRA's options, or a variant's.

    Returns:
        Config and tensors.
    """
    model = language_model.model
    layers = modules_of(model, LoraLinear)
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, float] = {}
    alphas: dict[str, float] = {}
    for path, layer in layers:
        own = layer.peft_tensors()
        tensors |= {f"{PREFIX}{path}.{name}": value.contiguous() for name, value in own.items()}
        ranks[path] = own["lora_A.weight"].shape[0]
        alphas[path] = layer.alpha * ranks[path] / layer.rank
    parameters, of_experts = peft_experts(model)
    tensors |= {f"{PREFIX}{name}": value.contiguous() for name, value in of_experts.items()}
    config = {
        "peft_type": "LORA",
        "r": int(usual_value(ranks)) if ranks else options.rank,
        "lora_alpha": usual_value(alphas) if alphas else options.alpha,
        "lora_dropout": options.dropout,
        "bias": "none",
        "fan_in_fan_out": any(is_transposed(layer.base) for _, layer in layers),
        "use_rslora": False,
        "use_dora": False,
        "init_lora_weights": True,
        **_targets(model, list(ranks), options.top_blocks),
        **({"target_parameters": parameters} if parameters else {}),
    }
    patterns: dict[str, dict[str, float]] = {
        "rank_pattern": {path: int(rank) for path, rank in unusual_values(ranks).items()},
        "alpha_pattern": unusual_values(alphas),
    }
    return PeftAdapter(config | {name: own for name, own in patterns.items() if own}, tensors)


def _targets(model: Any, wrapped: list[str], top_blocks: int) -> dict[str, Any]:
    """Say which layers are wrapped: by name where that names no others, else by path."""
    names = {path.rpartition(".")[2] for path in wrapped}
    blocks_path, blocks = blocks_of(model)
    tops = list(range(len(blocks)))[-top_blocks:] if top_blocks else []
    places = tuple(f"{blocks_path}.{place}." for place in tops)
    every = [layer.path.removesuffix(".base") for layer in linear_layers(model)]
    named = [
        path
        for path in every
        if path.rpartition(".")[2] in names and (not places or path.startswith(places))
    ]
    if set(named) != set(wrapped):
        return {"target_modules": sorted(wrapped)}
    chosen: dict[str, Any] = {"target_modules": sorted(names)}
    return chosen | ({"layers_to_transform": tops} if tops else {})


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
    quality_place=1,
    initialise=initialise,
    merge=merge,
    export=export,
    import_peft=partial(read_lora, kind="lora"),
)
