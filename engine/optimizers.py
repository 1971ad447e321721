"""How what learns is changed: AdamW, and LOMO, which keeps neither gradients nor moments.

There is no 8-bit Adam: on processors it takes many times as long as the fused one, and what it
saves is small beside what LOMO saves. `benchmarks/optimizers.py` measures the three.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
from torch import Tensor, nn

from engine.plan import Schedule

NewOptimizer = Callable[[Mapping[str, nn.Parameter], Schedule], torch.optim.Optimizer]


def adamw(
    learned: Mapping[str, nn.Parameter],
    schedule: Schedule,
    *,
    rate_ratios: Mapping[str, float] = MappingProxyType({}),
) -> torch.optim.Optimizer:
    """Make the optimizer of most runs: AdamW, a group for each multiple of the schedule's rate.

    Args:
        learned: parameters by name.
        schedule: gives the weight decay.
        rate_ratios: multiples by the last part of the name; 1 for all others.

    Returns:
        The optimizer; the trainer sets its learning rates at every step.
    """
    groups: dict[float, list[nn.Parameter]] = {}
    for name, value in learned.items():
        groups.setdefault(rate_ratios.get(name.rpartition(".")[2], 1.0), []).append(value)
    return torch.optim.AdamW(
        [{"params": values, "rate_ratio": ratio} for ratio, values in groups.items()],
        lr=0.0,
        weight_decay=schedule.weight_decay,
        fused=True,
    )


def begin_step(optimizer: torch.optim.Optimizer, rate: float, done_ratio: float) -> None:
    """Tell the optimizer the rate of the next step, in each group at its multiple, and its place.

    Args:
        optimizer: of what learns.
        rate: the schedule's.
        done_ratio: the share of the run's steps that are done after this one.
    """
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("rate_ratio", 1.0)
        group["done_ratio"] = done_ratio


class Lomo(torch.optim.Optimizer):
    """Low-memory optimization: w <- w - rate g inside the backward pass, where g is freed at once.

    The norm of all gradients is known only when the first of them are gone. So each of the n
    tensors is held to max_gradient_norm / sqrt(n): then that of all is never above the maximum.
    Micro-batches cannot be added up either: each changes the weights by its share of the step.
    Lv et al. 2023, "Full Parameter Fine-tuning for Large Language Models with Limited Resources",
    arXiv 2306.09782.
    """

    def __init__(self, learned: Mapping[str, nn.Parameter], schedule: Schedule) -> None:
        """Begin; there is nothing to keep from one step to the next.

        Args:
            learned: parameters by name.
            schedule: gives weight decay and the largest norm.
        """
        super().__init__(list(learned.values()), {"lr": 0.0, "weight_decay": schedule.weight_decay})
        self._largest_norm = schedule.max_gradient_norm / math.sqrt(max(1, len(learned)))
        self.zero_grad()

    @contextmanager
    def learning(self, batch_share: float) -> Iterator[None]:
        """Change every weight in the backward pass that is made inside.

        Args:
            batch_share: supervised tokens of the micro-batch over those of the step.

        Yields:
            Nothing.
        """
        self._square_sum = 0.0
        hooks = [
            weight.register_post_accumulate_grad_hook(self._rule(group, batch_share))
            for group in self.param_groups
            for weight in group["params"]
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
        self.gradient_norm += math.sqrt(self._square_sum)

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Do nothing: the weights are changed already.

        Args:
            closure: as for every optimizer of torch; not called.

        Returns:
            Nothing.
        """
        return None

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget what the last step met.

        Args:
            set_to_none: of gradients that are left, as where memory ran out.
        """
        super().zero_grad(set_to_none)
        self.gradient_norm = 0.0

    def _rule(self, group: dict[str, float], batch_share: float) -> Callable[[Tensor], None]:
        largest_norm = self._largest_norm * batch_share
        keep = 1 - group["lr"] * group["weight_decay"] * batch_share

        @torch.no_grad()
        def learn(weight: Tensor) -> None:
            gradient, weight.grad = weight.grad, None
            assert gradient is not None
            norm = float(torch.linalg.vector_norm(gradient))
            self._square_sum += norm**2
            if not math.isfinite(self.gradient_norm + self._square_sum):
                return  # nor is anything learned from what comes later in this step
            if keep != 1.0:
                weight.mul_(keep)
            weight.add_(gradient, alpha=-group["lr"] * min(1.0, largest_norm / max(norm, 1e-30)))

        return learn


def backward(loss: Tensor, optimizer: torch.optim.Optimizer, batch_share: float) -> None:
    """Make the gradients of a micro-batch; an optimizer that keeps none learns from them now.

    Args:
        loss: of the micro-batch, a scalar, already over the tokens of the whole step.
        optimizer: of what learns.
        batch_share: supervised tokens of the micro-batch over those of the step.
    """
    if isinstance(optimizer, Lomo):
        with optimizer.learning(batch_share):
            loss.backward()
    else:
        loss.backward()


def clip_gradients(optimizer: torch.optim.Optimizer, max_norm: float) -> float:
    """Hold the gradients of a step to a norm, where they are still there.

    Args:
        optimizer: of what learns.
        max_norm: the largest.

    Returns:
        The norm before; of gradients that are gone the sum over micro-batches, which is never
        below it. Not a number where a gradient was none.
    """
    if isinstance(optimizer, Lomo):
        return optimizer.gradient_norm
    parameters = [value for group in optimizer.param_groups for value in group["params"]]
    return float(nn.utils.clip_grad_norm_(parameters, max_norm))


@dataclass(frozen=True)
class OptimizerSpec:
    """An optimizer, and what it takes for each value that learns.

    Attributes:
        new: makes it.
        num_moments: fp32 values kept from step to step.
        keeps_gradients: whether those of all values stand side by side; else of one tensor.
        update_bytes: read and written at every step.
        notice: what the log of a run says of it; "" for nothing.
    """

    new: NewOptimizer
    num_moments: int
    keeps_gradients: bool
    update_bytes: int
    notice: str = ""


# AdamW reads value, gradient and two moments and writes all but the gradient; LOMO reads the
# gradient for its norm, then reads gradient and value and writes the value.
ADAMW = OptimizerSpec(adamw, num_moments=2, keeps_gradients=True, update_bytes=28)
LOMO = OptimizerSpec(Lomo, num_moments=0, keeps_gradients=False, update_bytes=16)
PAGED_ADAMW = replace(
    ADAMW,
    notice="A paged optimizer moves AdamW's moments out of a GPU's memory when it is short. This "
    "run has no GPU: plain AdamW is used, and its moments stay in memory",
)
