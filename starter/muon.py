"""The optimizer of the starter model: Muon for the hidden matrices, AdamW for everything else."""

import math
from collections.abc import Callable, Container, Mapping

import torch
from torch import Tensor, nn

from engine.plan import Schedule

_MOMENTUM = 0.95


class Muon(torch.optim.AdamW):
    """AdamW, but matrices in a group marked "orthogonal" learn by Muon (Jordan et al., 2024).

    Muon: momentum whose update is made orthogonal by Newton-Schulz steps. One optimizer and not
    two, so that the trainer saves and restores the state of both.

    Attributes:
        product_dtype: of the products in these steps.
    """

    product_dtype = torch.bfloat16

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every weight once.

        Args:
            closure: as for every optimizer of torch.

        Returns:
            What the closure returned.
        """
        for group in self.param_groups:
            if group.get("orthogonal"):
                for weight in group["params"]:
                    if weight.grad is not None:
                        self._update_matrix(weight, weight.grad, group["lr"])
                        weight.grad = None  # AdamW passes over what has no gradient
        loss: float | None = super().step(closure)
        return loss

    def _update_matrix(self, weight: Tensor, gradient: Tensor, rate: float) -> None:
        state = self.state[weight]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(weight)
        state["momentum"].lerp_(gradient, 1 - _MOMENTUM)
        moved = gradient.lerp(state["momentum"], _MOMENTUM)
        update = orthogonalised(moved.to(self.product_dtype)).to(weight.dtype)
        weight.add_(update, alpha=-rate * math.sqrt(max(1.0, weight.shape[0] / weight.shape[1])))


def orthogonalised(matrix: Tensor, num_steps: int = 5) -> Tensor:
    """Bring all singular values near 1 and keep the singular vectors.

    Args:
        matrix: (D_out, D_in).
        num_steps: Newton-Schulz steps.

    Returns:
        The new matrix, of the same type.
    """
    x = matrix
    if x.shape[0] > x.shape[1]:
        x = x.T
    x = x / (x.norm() + 1e-7)
    for _ in range(num_steps):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    result: Tensor = x.T if matrix.shape[0] > matrix.shape[1] else x
    return result


def muon(
    learned: Mapping[str, nn.Parameter],
    schedule: Schedule,
    *,
    adamw_rate_ratio: float,
    circuit: Container[str] = (),
    circuit_rate_ratio: float = 1.0,
    product_dtype: torch.dtype = torch.bfloat16,
) -> Muon:
    """Make the optimizer for the parameters of a Llama.

    Args:
        learned: parameters by name.
        schedule: gives the weight decay.
        adamw_rate_ratio: rate of embedding and norms, as a multiple of that of the matrices.
        circuit: names of matrices that learn at a rate of their own.
        circuit_rate_ratio: that rate, as a multiple.
        product_dtype: of the optimizer's own products.

    Returns:
        The optimizer.
    """
    hidden = {name for name, value in learned.items() if value.ndim == 2 and "layers." in name}
    slower = {name for name in hidden if name in circuit}

    def some(names: Container[str]) -> list[nn.Parameter]:
        return [value for name, value in learned.items() if name in names]

    optimizer = Muon(
        [
            {"params": some(hidden - slower), "orthogonal": True},
            {"params": some(slower), "orthogonal": True, "rate_ratio": circuit_rate_ratio},
            {"params": some(learned.keys() - hidden), "rate_ratio": adamw_rate_ratio},
        ],
        lr=0.0,
        betas=(0.9, 0.95),
        weight_decay=schedule.weight_decay,
        fused=True,
    )
    optimizer.product_dtype = product_dtype
    return optimizer
