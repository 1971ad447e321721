"""Low-rank updates of experts that lie in 3-D weights: one for each expert.

y = W_e x + s B_e A_e x for expert e, with W (E, D_out, D_in) frozen, A (E, R, D_in) and
B (D_out, R, E) learned, B from zero. Only what the router sends to an expert passes its update, and
no updated weight is ever made. The `peft` library keeps the same numbers as A (E R, D_in) and
B (D_out, R E), on "target_parameters".
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from engine.experts import (
    WEIGHTS,
    apply_one_by_one,
    experts_of,
    experts_per_token,
    linear_one_by_one,
)
from engine.layers import LinearLayer, modules_of, put_module

EXPERTS = "experts"  # what they are called among the layers to choose from
NESTED = ".base_layer"  # where the library keeps the update of the first of the two weights


class ExpertUpdate(nn.Module):
    """What is learned beside one 3-D weight."""

    def __init__(self, weight: Tensor, rank: int, scale: float, num_chosen: int) -> None:
        """Put an update beside a weight; values come from `draw_experts`.

        Args:
            weight: (E, D_out, D_in).
            rank: R.
            scale: factor of B A.
            num_chosen: K, the experts of each token.
        """
        super().__init__()
        num_experts, wide, narrow = weight.shape
        self.scale = scale
        self.products_per_token = num_chosen * rank * (narrow + wide)
        self.lora_A = nn.Parameter(torch.empty(num_experts, rank, narrow, device=weight.device))
        self.lora_B = nn.Parameter(torch.zeros(wide, rank, num_experts, device=weight.device))

    def forward(self, y: Tensor, x: Tensor, counts: Sequence[int]) -> Tensor:
        """Add the update to what the frozen weight gives.

        Args:
            y: (N, D_out), the rows of the first expert first.
            x: (N, D_in).
            counts: rows of each expert.

        Returns:
            (N, D_out).
        """
        between = linear_one_by_one(x.to(y.dtype), self.lora_A.to(y.dtype), counts)  # (N, R)
        wide = self.lora_B.to(y.dtype).permute(2, 0, 1).contiguous()  # (E, D_out, R)
        update = linear_one_by_one(between, wide, counts)
        return y.add(update, alpha=self.scale)

    def update(self) -> Tensor:
        """Multiply out what was learned.

        Returns:
            s B A, (E, D_out, D_in).
        """
        return self.lora_B.detach().permute(2, 0, 1) @ self.lora_A.detach() * self.scale


class LoraExperts(nn.Module):
    """Frozen experts and the updates of their weights."""

    def __init__(self, experts: Any, rank: int, scale: float, num_chosen: int) -> None:
        """Put updates beside the weights.

        Args:
            experts: one of `experts_of`.
            rank: R.
            scale: factor of B A.
            num_chosen: K, the experts of each token.
        """
        super().__init__()
        self.base = experts
        self.updates = nn.ModuleDict(
            {
                name: ExpertUpdate(getattr(experts, name), rank, scale, num_chosen)
                for name in WEIGHTS
            }
        )

    def forward(self, x: Tensor, chosen: Tensor, shares: Tensor) -> Tensor:
        """Compute what the chosen experts say.

        Args:
            x: (T, D).
            chosen: (T, K), the experts of each token.
            shares: (T, K), by which their answers are weighted.

        Returns:
            (T, D).
        """
        return apply_one_by_one(self.base, x, chosen, shares, self.updates)

    def update_of(self, name: str) -> ExpertUpdate:
        """Give the update of one weight.

        Args:
            name: of the weight.

        Returns:
            What is learned beside it.
        """
        update = self.updates[name]
        assert isinstance(update, ExpertUpdate)
        return update

    def merge(self) -> Any:
        """Add the updates to the frozen weights, in fp32 and rounded once.

        Returns:
            The experts.
        """
        for name in WEIGHTS:
            weight = getattr(self.base, name)
            weight.data = (weight.float() + self.update_of(name).update()).to(weight.dtype)
        return self.base


def expert_weights(model: Any) -> list[LinearLayer]:
    """List the 3-D weights of experts, each as the linear layer that it is for one expert.

    Args:
        model: a transformers causal language model, on any device.

    Returns:
        Path of the weight, the module that holds it, D_in and D_out.
    """
    found = []
    for path, module in experts_of(model):
        for name in WEIGHTS:
            _, wide, narrow = getattr(module, name).shape
            found.append(LinearLayer(f"{path}.{name}", module, narrow, wide))
    return found


def wrap_experts(model: Any, weights: Sequence[LinearLayer], rank: int, scale: float) -> None:
    """Put updates beside chosen weights.

    Args:
        model: a transformers causal language model, also on the meta device.
        weights: some of `expert_weights`, both or none of a module.
        rank: R.
        scale: factor of B A.
    """
    num_chosen = experts_per_token(model.config)
    for path, module in {layer.path.rpartition(".")[0]: layer.module for layer in weights}.items():
        put_module(model, path, LoraExperts(module, rank, scale, num_chosen))


def draw_experts(model: Any, generator: torch.Generator) -> None:
    """Draw A of every expert as that of a linear layer, Kaiming uniform; B stays zero.

    Args:
        model: the model that `wrap_experts` was called on.
        generator: fixes the draw.
    """
    for _, update in modules_of(model, ExpertUpdate):
        start = torch.empty(update.lora_A.shape).flatten(0, 1)  # (E R, D_in)
        nn.init.kaiming_uniform_(start, a=math.sqrt(5), generator=generator)
        update.lora_A.data.copy_(start.view_as(update.lora_A))


def peft_experts(model: Any) -> tuple[list[str], dict[str, Tensor]]:
    """Name updates of experts the way the `peft` library does, without its prefix.

    Args:
        model: a trained model.

    Returns:
        The paths of the weights, and by name A (E R, D_in), B (D_out, R E): views of the model's.
    """
    paths, tensors = [], {}
    for path, experts in modules_of(model, LoraExperts):
        for name, place in zip(WEIGHTS, (f"{path}{NESTED}", path), strict=True):
            update = experts.update_of(name)
            paths.append(f"{path}.{name}")
            tensors[f"{place}.lora_A.weight"] = update.lora_A.detach().flatten(0, 1)
            tensors[f"{place}.lora_B.weight"] = update.lora_B.detach().flatten(1)
    return paths, tensors


def read_experts(
    model: Any, targets: Sequence[str], found: Mapping[str, Mapping[str, Tensor]], rank: int
) -> dict[str, Tensor] | None:
    """Put the library's updates of experts in our words; weights that it left out get zeros.

    Args:
        model: the bare base, also on the meta device.
        targets: the library's "target_parameters".
        found: A and B by the library's path.
        rank: R.

    Returns:
        Tensors by parameter name; None where shapes or names do not fit the base.
    """
    named = [name for name in WEIGHTS if any(target.endswith(name) for target in targets)]
    tensors: dict[str, Tensor] = {}
    taken = set()
    for path, experts in experts_of(model):
        places = {name: path for name in named}
        if len(named) > 1:
            places[WEIGHTS[0]] = f"{path}{NESTED}"
        for name in WEIGHTS:
            num_experts, wide, narrow = getattr(experts, name).shape
            parts = found.get(places.get(name, ""), {})
            a = parts.get("lora_A.weight", torch.zeros(num_experts * rank, narrow))
            b = parts.get("lora_B.weight", torch.zeros(wide, rank * num_experts))
            if a.shape != (num_experts * rank, narrow) or b.shape != (wide, rank * num_experts):
                return None
            place = f"{path}.updates.{name}"
            tensors[f"{place}.lora_A"] = a.float().view(num_experts, rank, narrow)
            tensors[f"{place}.lora_B"] = b.float().view(wide, rank, num_experts)
        taken |= {place for place in places.values() if place in found}
    return tensors if taken == found.keys() else None
