"""Experts of a mixture, which transformers keeps as 3-D weights: found, and applied one by one.

Each of E experts is a gated FFN: y = W_down (f(W_gate x) * W_up x), with W_gate over W_up in one
weight (E, 2 I, D), and W_down (E, D, I). A router sends every token to K of them.
Shazeer et al. 2017, "Outrageously Large Neural Networks: The Sparsely-Gated Mixture-of-Experts
Layer", arXiv 1701.06538.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn import functional
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

ONE_BY_ONE = "one_by_one"
WEIGHTS = ("gate_up_proj", "down_proj")


def experts_of(model: Any) -> list[tuple[str, Any]]:
    """List the modules that hold experts as 3-D weights of the form above.

    Args:
        model: a transformers causal language model, on any device.

    Returns:
        Dotted path and module, in module order.
    """
    return [(path, module) for path, module in model.named_modules() if _is_plain(module)]


def experts_per_token(config: Any) -> int:
    """Say to how many experts a token is sent.

    Args:
        config: a transformers config.

    Returns:
        K, where the config says it in the usual word; else 1.
    """
    named = getattr(config, "num_experts_per_tok", None)
    return named if isinstance(named, int) else 1


def _is_plain(module: nn.Module) -> bool:
    weights = [getattr(module, name, None) for name in WEIGHTS]
    return (
        all(isinstance(weight, Tensor) and weight.dim() == 3 for weight in weights)
        and getattr(module, "has_gate", False)
        and not any(
            getattr(module, other, True)
            for other in ("is_transposed", "has_bias", "has_post_expert_norm")
        )
    )


def apply_one_by_one(
    experts: Any, x: Tensor, chosen: Tensor, shares: Tensor, updates: Any = None
) -> Tensor:
    """Compute what the chosen experts say to every token.

    Args:
        experts: one of `experts_of`.
        x: (T, D).
        chosen: (T, K), the experts of each token.
        shares: (T, K), by which their answers are weighted.
        updates: of the weights, by name; none: the frozen ones alone.

    Returns:
        (T, D).
    """
    num_chosen = chosen.shape[-1]
    order = chosen.flatten().argsort(stable=True)  # (T K,), by expert
    counts = _counts(chosen, len(experts.down_proj))
    inside = _product(experts, "gate_up_proj", x[order // num_chosen], counts, updates)
    said = _product(experts, "down_proj", experts._apply_gate(inside), counts, updates)
    weighted = said * shares.flatten()[order].unsqueeze(-1)
    back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=x.device))
    return weighted[back].view(*chosen.shape, -1).sum(1).to(x.dtype)


def _product(experts: Any, name: str, x: Tensor, counts: Sequence[int], updates: Any) -> Tensor:
    weight = getattr(experts, name)
    x = x.to(weight.dtype)
    y = linear_one_by_one(x, weight, counts)
    return y if updates is None else updates[name](y, x, counts)


def linear_one_by_one(x: Tensor, weight: Tensor, counts: Sequence[int]) -> Tensor:
    """Apply to the rows of each expert its own weight.

    Args:
        x: (N, D_in), the rows of the first expert first.
        weight: (E, D_out, D_in).
        counts: rows of each expert.

    Returns:
        (N, D_out).
    """
    parts = zip(x.split(list(counts)), weight.unbind(), strict=True)
    return torch.cat([functional.linear(part, own) for part, own in parts if len(part)])


def _counts(chosen: Tensor, num_experts: int) -> list[int]:
    if isinstance(chosen, FakeTensor):  # has no values; what autograd keeps is as for one expert
        return [chosen.numel()] + [0] * (num_experts - 1)
    counts: list[int] = torch.bincount(chosen.flatten(), minlength=num_experts).tolist()
    return counts


ALL_EXPERTS_FUNCTIONS.register(ONE_BY_ONE, apply_one_by_one)
