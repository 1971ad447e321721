"""The Muon optimizer, for matrices."""

from __future__ import annotations

import math

import torch


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal by Newton-Schulz steps (Jordan et al., 2024)."""

    def __init__(self, params: list[torch.Tensor], lr: float, momentum: float = 0.95) -> None:
        """Take 2-D weights only.

        Args:
            params: weights (D_out, D_in).
            lr: learning rate.
            momentum: share of the old direction that is kept.
        """
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @staticmethod
    def orthogonalize(matrix: torch.Tensor, num_steps: int = 5) -> torch.Tensor:
        """Return a matrix with the same singular vectors and singular values near 1."""
        x = matrix.bfloat16()
        if x.shape[0] > x.shape[1]:
            x = x.T
        x = x / (x.norm() + 1e-7)
        for _ in range(num_steps):
            square = x @ x.T
            x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
        result: torch.Tensor = x.T if matrix.shape[0] > matrix.shape[1] else x
        return result.to(matrix.dtype)

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Update every weight once."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                average = state.setdefault("momentum", torch.zeros_like(weight))
                average.lerp_(weight.grad, 1 - group["momentum"])
                update = self.orthogonalize(weight.grad.lerp(average, group["momentum"]))
                scale = math.sqrt(max(1.0, weight.shape[0] / weight.shape[1]))
                weight.add_(update, alpha=-group["lr"] * scale)
