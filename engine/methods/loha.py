"""LoHa: the elementwise product of two low-rank updates beside chosen linear layers.

y = W x + (alpha / R) ((A1 B1) * (A2 B2)) x, with W (D_out, D_in) frozen, A1, A2 (D_out, R) and
B1, B2 (R, D_in) learned. With twice LoRA's values at the same R the update reaches rank R^2. A2
starts at zero, so the model starts as the base; merged, it costs nothing at inference.

The product is never multiplied out for a batch while R^2 is small. Row-wise and column-wise
products of the factors give the same update as one of rank R^2:
(A1 B1) * (A2 B2) = A B, A[i, (r, s)] = A1[i, r] A2[i, s], B[(r, s), j] = B1[r, j] B2[s, j].
Hyeon-Woo et al. 2021, "FedPara: Low-Rank Hadamard Product for Communication-Efficient Federated
Learning", arXiv 2108.06098.
"""

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
    check_rank,
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

_FACTORS = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
# Of the library, read below or of no consequence for what a trained adapter computes.
_SETTINGS = ("r", "alpha", "rank_dropout", "module_dropout", "init_weights")
# As in the authors' code: one factor carries the size of the update, so that with AdamW the step
# of the update does not shrink with the width.
_SPREADS = {"hada_w1_a": 0.1, "hada_w1_b": 1.0, "hada_w2_b": 1.0}


class Options(MethodOptions):
    """LoHa's own settings."""

    rank: int = Field(
        default=8,
        ge=1,
        le=256,
        title="Rank",
        description="R of each of the two factors; their product has a rank of up to R times R.",
        json_schema_extra=SIMPLE,
    )
    alpha: float = Field(
        default=8, gt=0, le=4096, title="Alpha", description="The update is scaled by alpha / R."
    )
    targets: tuple[Annotated[str, Field(max_length=100)], ...] = Field(
        default=(ALL_LINEAR,),
        max_length=100,
        title="Layers",
        description='Names of linear layers such as q_proj, or "all-linear".',
    )


class HadamardLinear(nn.Module):
    """A frozen linear layer and its learned update, the Hadamard product of two low-rank ones."""

    def __init__(self, layer: LinearLayer, options: Options) -> None:
        """Put an update beside a layer; values come from `initialise`.

        Args:
            layer: nn.Linear, Conv1D or QuantisedLinear in its model.
            options: rank and alpha.
        """
        super().__init__()
        rank, device = options.rank, device_of(layer.module)
        self.base: Any = layer.module
        self.scale = options.alpha / rank
        self.hada_w1_a = nn.Parameter(torch.empty(layer.out_features, rank, device=device))
        self.hada_w1_b = nn.Parameter(torch.empty(rank, layer.in_features, device=device))
        self.hada_w2_a = nn.Parameter(torch.zeros(layer.out_features, rank, device=device))
        self.hada_w2_b = nn.Parameter(torch.empty(rank, layer.in_features, device=device))
        self._is_wide = rank**2 * (layer.in_features + layer.out_features) > (
            layer.in_features * layer.out_features
        )

    @property
    def factors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """A1 (D_out, R), B1 (R, D_in), A2 and B2 likewise."""
        return self.hada_w1_a, self.hada_w1_b, self.hada_w2_a, self.hada_w2_b

    @property
    def products_per_token(self) -> int:
        """Multiplications that the update costs each token."""
        rank, out_features = self.hada_w1_b.shape[0], self.hada_w1_a.shape[0]
        in_features = self.hada_w1_b.shape[1]
        if self._is_wide:
            return in_features * out_features
        return rank**2 * (in_features + out_features)

    def forward(self, x: Tensor) -> Tensor:
        """Apply layer and update.

        Args:
            x: (..., D_in).

        Returns:
            (..., D_out).
        """
        y: Tensor = self.base(x)
        flat, x = y.flatten(0, -2), x.to(y.dtype)
        if self._is_wide:
            wide: Tensor = _WideProduct.apply(x.flatten(0, -2), *self.factors)  # type: ignore[no-untyped-call]
            return torch.add(flat, wide, alpha=self.scale).view_as(y)
        a1, b1, a2, b2 = self.factors
        columns = (a1[:, :, None] * a2[:, None, :]).flatten(1).to(y.dtype)  # (D_out, R^2)
        rows = (b1[:, None] * b2[None]).flatten(0, 1).to(y.dtype)  # (R^2, D_in)
        narrow = functional.linear(x, rows).flatten(0, -2)
        return torch.addmm(flat, narrow, columns.T, alpha=self.scale).view_as(y)

    def update(self) -> Tensor:
        """Multiply out the learned update.

        Returns:
            (alpha / R) (A1 B1) * (A2 B2), (D_out, D_in).
        """
        a1, b1, a2, b2 = (factor.detach().float() for factor in self.factors)
        return (a1 @ b1) * (a2 @ b2) * self.scale


class _WideProduct(torch.autograd.Function):
    """x ((A1 B1) * (A2 B2))^T, the (D_out, D_in) products made anew in the backward pass.

    For a rank whose square is beyond the layer's width: autograd would keep three such products.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, *factors: Tensor) -> Tensor:
        ctx.save_for_backward(x, *factors)
        a1, b1, a2, b2 = (factor.to(x.dtype) for factor in factors)
        return functional.linear(x, (a1 @ b1) * (a2 @ b2))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        x, *factors = ctx.saved_tensors
        a1, b1, a2, b2 = (factor.to(x.dtype) for factor in factors)
        first, second = a1 @ b1, a2 @ b2
        of_x = gradient @ (first * second) if ctx.needs_input_grad[0] else None
        of_update = gradient.T @ x  # (D_out, D_in)
        of_first, of_second = of_update * second, of_update * first
        of_factors = (of_first @ b1.T, a1.T @ of_first, of_second @ b2.T, a2.T @ of_second)
        return of_x, *(
            value.to(factor.dtype) for value, factor in zip(of_factors, factors, strict=True)
        )


def attach(model: Any, options: Options) -> None:
    """Wrap the chosen linear layers.

    Args:
        model: a transformers causal language model, also on the meta device.
        options: LoHa's options.

    Raises:
        PlanError: no layer of that name, or a rank above a layer's width.
    """
    layers = choose_layers(model, options.targets)
    for layer in layers:
        check_rank(layer, options.rank)
    for layer in layers:
        put_module(model, layer.path, HadamardLinear(layer, options))


def initialise(language_model: LanguageModel, options: Options, generator: torch.Generator) -> None:
    """Draw A1, B1 and B2 from normal distributions; A2 stays zero.

    Args:
        language_model: the model `attach` was called on.
        options: unused.
        generator: fixes the draw.
    """
    for _, layer in modules_of(language_model.model, HadamardLinear):
        for name, spread in _SPREADS.items():
            factor = getattr(layer, name)
            factor.data.copy_(torch.randn(factor.shape, generator=generator) * spread)


def merge(model: Any) -> None:
    """Fold the update into the weight: W <- W + (alpha / R) (A1 B1) * (A2 B2), and unwrap.

    Args:
        model: the model `attach` was called on.
    """
    for path, layer in modules_of(model, HadamardLinear):
        put_module(model, path, with_update(layer.base, layer.update()))


def export(language_model: LanguageModel, options: Options) -> PeftAdapter:
    """Name the tensors the way the `peft` library does.

    Args:
        language_model: a trained model.
        options: LoHa's options.

    Returns:
        Config and tensors: A1, A2 (D_out, R), B1, B2 (R, D_in) of each layer.

    Raises:
        PlanError: the base is of a kind whose layers `peft` has no LoHa for.
    """
    layers = modules_of(language_model.model, HadamardLinear)
    if any(is_transposed(layer.base) for _, layer in layers):
        raise PlanError(
            "peft has no LoHa for layers whose weights lie the other way round, such as GPT-2's",
            where="published form",
            fix="Publish it as merged",
        )
    tensors = {
        f"base_model.model.{path}.{name}": getattr(layer, name).detach()
        for path, layer in layers
        for name in _FACTORS
    }
    config = {
        "peft_type": "LOHA",
        "r": options.rank,
        "alpha": options.alpha,
        "rank_dropout": 0.0,
        "module_dropout": 0.0,
        "target_modules": target_names(language_model.model, [path for path, _ in layers]),
        "init_weights": True,
    }
    return PeftAdapter(config, tensors)


def import_peft(model: Any, adapter: PeftAdapter) -> PeftImport | None:
    """Put a LoHa of the `peft` library in our words.

    Args:
        model: the bare base, also on the meta device.
        adapter: config and tensors as they lie in the folder.

    Returns:
        Options and tensors by parameter name; None for adapters that are none.

    Raises:
        ModelError: a setting that is not understood, or tensors that do not fit the base.
    """
    if adapter.config.get("peft_type") != "LOHA":
        return None
    found = tensors_by_layer(model, adapter, _FACTORS, _SETTINGS)
    options = {
        "rank": int(number_of(adapter, "r", 8)),
        "alpha": number_of(adapter, "alpha", 8),
        "targets": target_names(model, found),
    }
    return PeftImport(options, by_parameter(found))


SPEC = MethodSpec(
    name="loha",
    title="LoHa",
    family="re-parametrisation",
    summary="Two low-rank updates multiplied entry by entry: a far higher rank from few values.",
    paper="Hyeon-Woo et al. 2021, arXiv 2108.06098",
    options=Options,
    schedule=Schedule(learning_rate=1e-3, epochs=6),
    rate_at_width=384,
    attach=attach,
    detach=partial(unwrap, kind=HadamardLinear),
    when_to_choose="When LoRA of a small rank learns too little and a larger rank would be too "
    "large to keep. Training takes a little longer.",
    quality_place=32,
    precisions=("fp32", "bf16", "int8", "nf4"),
    initialise=initialise,
    merge=merge,
    export=export,
    import_peft=import_peft,
)
