"""LoKr: a Kronecker product of two small matrices beside chosen linear layers.

y = W x + (alpha / R) (W1 kron W2) x, with W (D_out, D_in) frozen, W1 (L, M) and W2 (K, N) learned,
D_out = L K and D_in = M N. A large W2 is itself low-rank, W2 = A2 B2 with A2 (K, R), B2 (R, N);
asked for (`decompose_both`), so is W1. W1 starts at zero, so the model starts as the base; merged,
it costs nothing at inference.

The large matrix is never made for a batch: with x laid out as X (M, N), the update is
W1 X W2^T, (L, K).
Yeh et al. 2023, "Navigating Text-To-Image Customization: From LyCORIS Fine-Tuning to Model
Evaluation", arXiv 2309.14859; Edalati et al. 2022, "KronA: Parameter Efficient Tuning with
Kronecker Adapter", arXiv 2212.10650.
"""

import math
from functools import partial
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from engine.language_model import LanguageModel
from engine.layers import (
    ALL_LINEAR,
    LinearLayer,
    choose_layers,
    device_of,
    is_transposed,
    modules_of,
    put_module,
    target_names,
    unwrap,
    with_update,
)
from engine.method import MethodOptions, MethodSpec, PeftAdapter, PeftImport
from engine.peft_adapter import by_parameter, number_of, tensors_by_layer
from engine.plan import SIMPLE, Schedule
from templates.errors import PlanError

_FACTORS = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b")
# Of the library, read below or of no consequence for what a trained adapter computes.
_SETTINGS = (
    "r", "alpha", "rank_dropout", "module_dropout", "rank_dropout_scale", "init_weights",
    "decompose_both", "decompose_factor",
)  # fmt: skip


class Options(MethodOptions):
    """LoKr's own settings."""

    rank: int = Field(
        default=8,
        ge=1,
        le=1024,
        title="Rank",
        description="R of the larger factor; one that is hardly wider than 2 R is kept whole.",
        json_schema_extra=SIMPLE,
    )
    alpha: float = Field(
        default=8, gt=0, le=4096, title="Alpha", description="The update is scaled by alpha / R."
    )
    decompose_both: bool = Field(
        default=False,
        title="Decompose both",
        description="The smaller factor is low-rank too, where it is wide enough.",
    )
    decompose_factor: int = Field(
        default=-1,
        ge=-1,
        le=4096,
        title="Factor",
        description="Size of the smaller factor; -1: near the square root, the fewest values.",
    )
    targets: tuple[Annotated[str, Field(max_length=100)], ...] = Field(
        default=(ALL_LINEAR,),
        max_length=100,
        title="Layers",
        description='Names of linear layers such as q_proj, or "all-linear".',
    )


def factorised(width: int, factor: int) -> tuple[int, int]:
    """Split a width into two whole factors, the way `peft` does.

    Args:
        width: D.
        factor: the first factor, or the nearest one below that divides D; -1: nearest to sqrt(D).

    Returns:
        (m, n) with m n = D; m is at most sqrt(D) unless it is the factor asked for.
    """
    if factor > 0 and width % factor == 0:
        return factor, width // factor
    largest = math.isqrt(width) if factor == -1 else min(factor, math.isqrt(width))
    m = next(size for size in range(largest, 0, -1) if width % size == 0)
    return m, width // m


class KroneckerLinear(nn.Module):
    """A frozen linear layer and its learned update, the Kronecker product of two factors.

    Of each factor either the matrix is there (`lokr_w1`) or its two parts (`lokr_w1_a`, `_b`).
    """

    def __init__(self, layer: LinearLayer, options: Options) -> None:
        """Put an update beside a layer; values come from `initialise`.

        Args:
            layer: nn.Linear, Conv1D or QuantisedLinear in its model.
            options: rank, alpha and how to factorise.
        """
        super().__init__()
        device = device_of(layer.module)
        self.base: Any = layer.module
        self.scale = options.alpha / options.rank
        first_out, second_out = factorised(layer.out_features, options.decompose_factor)
        first_in, second_in = factorised(layer.in_features, options.decompose_factor)
        self._shape_in = (first_in, second_in)
        first, second = (first_out, first_in), (second_out, second_in)
        shapes = {
            **_shapes("lokr_w1", first, options.rank if options.decompose_both else max(first)),
            **_shapes("lokr_w2", second, options.rank),
        }
        self.factor_names = tuple(shapes)
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.zeros(shape, device=device)))

    @property
    def products_per_token(self) -> int:
        """Multiplications that the update costs each token."""
        first_in, second_in = self._shape_in
        first, second = self._parts("lokr_w1"), self._parts("lokr_w2")
        between = second_in if len(second) == 1 else second[1].shape[0]  # beside M, then L
        before = 0 if len(second) == 1 else second[1].numel() * first_in
        of_first = sum(part.numel() for part in first) * between
        return before + of_first + second[0].numel() * first[0].shape[0]

    def forward(self, x: Tensor) -> Tensor:
        """Apply layer and update.

        Args:
            x: (..., D_in).

        Returns:
            (..., D_out).
        """
        y: Tensor = self.base(x)
        laid = x.to(y.dtype).reshape(-1, *self._shape_in)  # (tokens, M, N)
        # B2 before W1 and A2 after it: in between a token has only M R, then L R values.
        *after, last = (part.to(y.dtype) for part in self._parts("lokr_w2"))
        if after:
            laid = functional.linear(laid, last)
        laid = laid.transpose(1, 2)  # (tokens, N or R, M)
        for part in reversed(self._parts("lokr_w1")):
            laid = functional.linear(laid, part.to(y.dtype))
        laid = functional.linear(
            laid.transpose(1, 2), after[0] if after else last
        )  # (tokens, L, K)
        return torch.add(y, laid.reshape(y.shape), alpha=self.scale)

    def _parts(self, name: str) -> tuple[Tensor, ...]:
        """Give the matrix, or the two whose product it is."""
        if name in self.factor_names:
            return (self.get_parameter(name),)
        return self.get_parameter(f"{name}_a"), self.get_parameter(f"{name}_b")

    def update(self) -> Tensor:
        """Multiply out the learned update.

        Returns:
            (alpha / R) W1 kron W2, (D_out, D_in).
        """
        first, second = (
            _product([part.detach().float() for part in self._parts(name)])
            for name in ("lokr_w1", "lokr_w2")
        )
        return torch.kron(first, second) * self.scale


def _shapes(name: str, shape: tuple[int, int], rank: int) -> dict[str, tuple[int, int]]:
    """Choose between a matrix and two narrow ones, which must be worth it."""
    if rank >= max(shape) / 2:
        return {name: shape}
    return {f"{name}_a": (shape[0], rank), f"{name}_b": (rank, shape[1])}


def _product(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else parts[0] @ parts[1]


def attach(model: Any, options: Options) -> None:
    """Wrap the chosen linear layers.

    Args:
        model: a transformers causal language model, also on the meta device.
        options: LoKr's options.

    Raises:
        PlanError: no layer of that name, or a factor of nothing.
    """
    if options.decompose_factor == 0:
        raise PlanError(
            "No width is a multiple of 0",
            where="option decompose_factor",
            fix="Choose -1, or a factor from 1 on",
        )
    for layer in choose_layers(model, options.targets):
        put_module(model, layer.path, KroneckerLinear(layer, options))


def initialise(language_model: LanguageModel, options: Options, generator: torch.Generator) -> None:
    """Draw all but W1, or its first part, as Kaiming uniform; that one stays zero.

    Args:
        language_model: the model `attach` was called on.
        options: unused.
        generator: fixes the draw.
    """
    for _, layer in modules_of(language_model.model, KroneckerLinear):
        for name in layer.factor_names:
            if name in ("lokr_w1", "lokr_w1_a"):
                continue
            start = torch.empty(layer.get_parameter(name).shape)
            nn.init.kaiming_uniform_(start, a=math.sqrt(5), generator=generator)
            layer.get_parameter(name).data.copy_(start)


def merge(model: Any) -> None:
    """Fold the update into the weight: W <- W + (alpha / R) W1 kron W2, and unwrap.

    Args:
        model: the model `attach` was called on.
    """
    for path, layer in modules_of(model, KroneckerLinear):
        put_module(model, path, with_update(layer.base, layer.update()))


def export(language_model: LanguageModel, options: Options) -> PeftAdapter:
    """Name the tensors the way the `peft` library does.

    Args:
        language_model: a trained model.
        options: LoKr's options.

    Returns:
        Config and tensors: W1 (L, M) and W2 (K, N), or the two parts of them, of each layer.

    Raises:
        PlanError: the base is of a kind whose layers `peft` has no LoKr for.
    """
    layers = modules_of(language_model.model, KroneckerLinear)
    if any(is_transposed(layer.base) for _, layer in layers):
        raise PlanError(
            "peft has no LoKr for layers whose weights lie the other way round, such as GPT-2's",
            where="published form",
            fix="Publish it as merged",
        )
    tensors = {
        f"base_model.model.{path}.{name}": layer.get_parameter(name).detach()
        for path, layer in layers
        for name in layer.factor_names
    }
    config = {
        "peft_type": "LOKR",
        "r": options.rank,
        "alpha": options.alpha,
        "rank_dropout": 0.0,
        "module_dropout": 0.0,
        "decompose_both": options.decompose_both,
        "decompose_factor": options.decompose_factor,
        "target_modules": target_names(language_model.model, [path for path, _ in layers]),
        "init_weights": True,
    }
    return PeftAdapter(config, tensors)


def import_peft(model: Any, adapter: PeftAdapter) -> PeftImport | None:
    """Put a LoKr of the `peft` library in our words.

    Args:
        model: the bare base, also on the meta device.
        adapter: config and tensors as they lie in the folder.

    Returns:
        Options and tensors by parameter name; None for adapters that are none.

    Raises:
        ModelError: a setting that is not understood, or tensors that do not fit the base.
    """
    if adapter.config.get("peft_type") != "LOKR":
        return None
    found = tensors_by_layer(model, adapter, _FACTORS, _SETTINGS)
    options = {
        "rank": int(number_of(adapter, "r", 8)),
        "alpha": number_of(adapter, "alpha", 8),
        "decompose_both": bool(adapter.config.get("decompose_both")),
        "decompose_factor": int(number_of(adapter, "decompose_factor", -1)),
        "targets": target_names(model, found),
    }
    return PeftImport(options, by_parameter(found))


SPEC = MethodSpec(
    name="lokr",
    title="LoKr",
    family="re-parametrisation",
    summary="An update made of two small matrices, each copied over the other; smaller than LoRA.",
    paper="Yeh et al. 2023, arXiv 2309.14859; Edalati et al. 2022, arXiv 2212.10650",
    options=Options,
    schedule=Schedule(learning_rate=8e-3, epochs=6),
    rate_at_width=384,
    attach=attach,
    detach=partial(unwrap, kind=KroneckerLinear),
    when_to_choose="When the result must be far smaller than a LoRA adapter and still reach every "
    "direction of a layer. It needs a little longer to learn.",
    quality_place=33,
    precisions=("fp32", "bf16", "int8", "nf4"),
    initialise=initialise,
    merge=merge,
    export=export,
    import_peft=import_peft,
)
