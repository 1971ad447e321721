"""AdaLoRA: low-rank updates that share a budget of ranks out among the layers while they learn.

y = W x + (alpha / R) B diag(e) A x, with W (D_out, D_in) frozen, A (R, D_in), B (D_out, R) and the
singular values e (R, 1) learned. A penalty keeps the rows of A, and the columns of B, orthogonal
and of length one, so that e alone says how much a direction does. After every step the least
important singular values of all layers together are set to zero, ever more of them, until the
budget is what was asked for. e starts at zero, so the model starts as the base; merged, it costs
nothing at inference, and it is published as a plain LoRA without the directions that are zero.
Zhang et al. 2023, "AdaLoRA: Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning", arXiv
2303.10512.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn

from engine.language_model import LanguageModel
from engine.layers import LinearLayer, modules_of
from engine.lora_adapter import read_adalora
from engine.methods import lora
from engine.methods.lora import LoraLinear, Update
from engine.optimizers import ADAMW, NewOptimizer
from engine.plan import SIMPLE, Schedule

_BETA = 0.85  # of both running means; the paper's value
_FACTORS = ("lora_A", "lora_B", "lora_E")


class Options(lora.Options):
    """AdaLoRA's settings: those of LoRA and the budget."""

    rank: int = Field(
        default=12,
        ge=1,
        le=lora.LARGEST_RANK,
        title="Rank at the start",
        description="R: what every layer begins with; half as much again as the budget is usual.",
        json_schema_extra=SIMPLE,
    )
    target_rank: int = Field(
        default=8,
        ge=1,
        le=lora.LARGEST_RANK,
        title="Average rank at the end",
        description="The budget, per layer: layers that matter more keep more of it.",
        json_schema_extra=SIMPLE,
    )
    alpha: float = Field(
        default=24,
        gt=0,
        le=lora.LARGEST_ALPHA,
        title="Alpha",
        description="The update is scaled by alpha / R.",
    )
    warmup_share: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        title="Share before",
        description="The share of the steps before the first direction is given up.",
    )
    settled_share: float = Field(
        default=0.4,
        ge=0,
        lt=1,
        title="Share after",
        description="The share of the steps that follow when the budget is reached.",
    )
    orthogonality: float = Field(
        default=0.1,
        ge=0,
        le=100,
        title="Orthogonality",
        description="Weight of the penalty on directions that overlap or grow.",
    )

    def adapter_servers(self) -> tuple[str, ...]:
        """Say who beside `peft` can load the adapter unmerged.

        Returns:
            None: each layer is published with a rank and an alpha of its own.
        """
        return ()

    @field_validator("target_rank")
    @classmethod
    def _check_budget(cls, target: int, info: ValidationInfo) -> int:
        if target > info.data.get("rank", target):
            raise ValueError(f"It has to be at most the rank at the start, {info.data['rank']}")
        return target

    @field_validator("settled_share")
    @classmethod
    def _check_shares(cls, settled: float, info: ValidationInfo) -> float:
        if settled + info.data.get("warmup_share", 0) >= 1:
            raise ValueError("Before and after together have to be less than 1")
        return settled

    def budget_ratio(self, done_ratio: float) -> float:
        """Say how much of what is given up in the end is still kept.

        Args:
            done_ratio: the share of the run's steps that are done.

        Returns:
            1 before, 0 after, in between a cubic that falls fast at first (equation 12).
        """
        left = 1 - self.settled_share - done_ratio
        return min(1.0, max(0.0, left / (1 - self.settled_share - self.warmup_share))) ** 3


class AdaLoraLinear(LoraLinear):
    """A frozen linear layer and its update as singular values and vectors."""

    def __init__(self, layer: LinearLayer, update: Update) -> None:
        """Put an update beside a layer; values come from `initialise`.

        Args:
            layer: nn.Linear, Conv1D or QuantisedLinear, with D_in and D_out.
            update: rank, alpha, scale and dropout.
        """
        super().__init__(layer, update)
        self.lora_E = nn.Parameter(torch.zeros(update.rank, 1, device=self.lora_A.device))

    def factors(self) -> tuple[Tensor, Tensor]:
        """Give the two matrices that are multiplied.

        Returns:
            diag(e) A (R, D_in) and B (D_out, R).
        """
        return self.lora_A * self.lora_E, self.lora_B

    def peft_tensors(self) -> dict[str, Tensor]:
        """Name what is left as the `peft` library names a LoRA.

        Returns:
            diag(e) A and B without the directions whose singular value is zero; one is kept.
        """
        narrow, wide = (factor.detach() for factor in self.factors())
        kept = self.lora_E.detach().flatten() != 0
        kept[0] |= not kept.any()
        return {"lora_A.weight": narrow[kept], "lora_B.weight": wide[:, kept]}


class _Layer(NamedTuple):
    """What one layer learns: R directions, each a row of A, a column of B and a value of e."""

    lora_A: nn.Parameter
    lora_B: nn.Parameter
    lora_E: nn.Parameter


class RankAllocator(torch.optim.AdamW):
    """AdamW that keeps directions orthogonal and gives up those that matter least.

    What a value matters is |w dL/dw|, smoothed, times how much that varies (equations 8 to 11); a
    direction matters as much as its singular value and the means over its two vectors together.
    The running means lie with AdamW's own moments, so that checkpoints hold them.
    """

    def __init__(
        self, learned: Mapping[str, nn.Parameter], schedule: Schedule, *, options: Options
    ) -> None:
        """Begin with all directions.

        Args:
            learned: parameters by name.
            schedule: gives the weight decay.
            options: the budget.
        """
        super().__init__(
            list(learned.values()), lr=0.0, weight_decay=schedule.weight_decay, fused=True
        )
        self._options = options
        paths = dict.fromkeys(name.rpartition(".")[0] for name in learned)
        self._layers = [
            _Layer(*(learned[f"{path}.{factor}"] for factor in _FACTORS)) for path in paths
        ]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Learn, then set to zero what the budget has no room for.

        Args:
            closure: as for every optimizer of torch; not called.

        Returns:
            Nothing.
        """
        learning = [layer for layer in self._layers if layer.lora_E.grad is not None]
        for layer in learning:
            assert layer.lora_A.grad is not None and layer.lora_B.grad is not None
            self._straighten(layer.lora_A, layer.lora_A.grad)
            self._straighten(layer.lora_B.T, layer.lora_B.grad.T)
        super().step()
        for layer in learning:
            for value in layer:
                self._weigh(value)
        if learning:
            self._allocate(learning, self.param_groups[0].get("done_ratio", 0.0))
        return None

    def _straighten(self, directions: Tensor, gradient: Tensor) -> None:
        """Add the gradient of |D D^T - 1|^2 to that of D (R, width): 4 (D D^T - 1) D."""
        overlaps = directions @ directions.T
        overlaps.diagonal().sub_(1)
        gradient.addmm_(overlaps, directions, alpha=4 * self._options.orthogonality)

    def _weigh(self, value: nn.Parameter) -> None:
        """Add what a value matters at this step to its running means."""
        assert value.grad is not None
        state, now = self.state[value], (value * value.grad).abs()
        for name in ("importance", "uncertainty"):
            state.setdefault(name, torch.zeros_like(now))
        state["importance"].lerp_(now, 1 - _BETA)
        state["uncertainty"].lerp_((now - state["importance"]).abs(), 1 - _BETA)

    def _allocate(self, layers: list[_Layer], done_ratio: float) -> None:
        """Choose the directions to keep, until the budget is reached; then these stay chosen."""
        ranks = [len(layer.lora_E) for layer in layers]
        target = min(sum(ranks), self._options.target_rank * len(layers))
        given_up = (sum(ranks) - target) * (1 - self._options.budget_ratio(done_ratio))
        budget = sum(ranks) - math.floor(given_up)
        masks = [self.state[layer.lora_E].get("kept") for layer in layers]
        if any(mask is None for mask in masks) or sum(float(m.sum()) for m in masks) > target:
            scores = torch.cat([self._scores(layer) for layer in layers])
            chosen = torch.zeros_like(scores)
            chosen[scores.topk(budget).indices] = 1
            masks = list(chosen.unsqueeze(1).split(ranks))
        for layer, mask in zip(layers, masks, strict=True):
            self.state[layer.lora_E]["kept"] = mask.clone()
            layer.lora_E.mul_(mask)

    def _scores(self, layer: _Layer) -> Tensor:
        """Say how much each direction of a layer matters, (R,)."""
        of_a, of_b, of_e = (
            self.state[value]["importance"] * self.state[value]["uncertainty"] for value in layer
        )
        scores: Tensor = of_e.flatten() + of_a.mean(1) + of_b.mean(0)
        return scores


def optimizer_for(options: Options) -> NewOptimizer:
    """Let the ranks be shared out while the values learn.

    Args:
        options: the budget.

    Returns:
        Makes the optimizer.
    """
    return partial(RankAllocator, options=options)


def initialise(language_model: LanguageModel, options: Options, generator: torch.Generator) -> None:
    """Draw A and B with rows, and columns, of length one on average; e stays zero.

    Args:
        language_model: the model `attach` was called on.
        options: unused.
        generator: fixes the draw.
    """
    for _, layer in modules_of(language_model.model, AdaLoraLinear):
        for factor, width in (
            (layer.lora_A, layer.lora_A.shape[1]),
            (layer.lora_B, layer.lora_B.shape[0]),
        ):
            factor.data.copy_(torch.randn(factor.shape, generator=generator) / math.sqrt(width))


SPEC = replace(
    lora.SPEC,
    name="adalora",
    title="AdaLoRA",
    summary="LoRA that moves its ranks, while it learns, to the layers where they do most.",
    paper="Zhang et al. 2023, arXiv 2303.10512",
    options=Options,
    schedule=Schedule(learning_rate=6e-3, epochs=8),
    rate_at_width=384,
    when_to_choose="When the adapter has to be small and the run is long enough, some hundred "
    "steps, to find out where its ranks belong. What it publishes is an ordinary LoRA adapter.",
    quality_place=26,
    precisions=("fp32", "bf16", "int8", "nf4"),
    optimizer=replace(ADAMW, num_moments=4, update_bytes=60),
    attach=partial(lora.attach, kind=AdaLoraLinear),
    initialise=initialise,
    optimizer_for=optimizer_for,
    export_method="lora",
    import_peft=read_adalora,
)
