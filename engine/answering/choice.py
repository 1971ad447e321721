"""How the next token is chosen."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Choice:
    """The likeliest token, a drawn one, or the likeliest of several whole answers.

    Attributes:
        temperature: 0 takes the likeliest; above, tokens are drawn, and the higher the bolder.
        top_p: draw from the likeliest tokens that together have this probability (Holtzman et al.
            2019, arXiv 1904.09751).
        seed: fixes the draws; each row has draws of its own, whatever is asked beside it.
        num_beams: answers that are followed at once; 1 for one. Draws and beams exclude each other.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    num_beams: int = 1


GREEDY = Choice()


class Chooser:
    """Chooses tokens, and remembers where each row's draws have come to."""

    def __init__(self, choice: Choice) -> None:
        """Begin with no row.

        Args:
            choice: how to choose.
        """
        self._choice = choice
        self._draws: dict[int, random.Random] = {}

    def choose(self, logits: Tensor, rows: Sequence[int]) -> list[int]:
        """Choose the next token of some rows.

        Args:
            logits: (B, V).
            rows: B row numbers.

        Returns:
            B token ids.
        """
        if not self._choice.temperature:
            # NumPy looks through a row five times as fast as torch does.
            greedy: list[int] = logits.cpu().numpy().argmax(axis=-1).tolist()
            return greedy
        ratios = (logits.double() / self._choice.temperature).softmax(dim=-1)
        ordered, tokens = ratios.sort(dim=-1, descending=True)
        before = ordered.cumsum(dim=-1) - ordered
        ordered = ordered.masked_fill(before >= self._choice.top_p, 0.0)
        reached = ordered.cumsum(dim=-1)
        points = torch.tensor([[self._draw(row)] for row in rows], dtype=torch.float64)
        places = torch.searchsorted(
            reached, points.to(reached.device) * reached[:, -1:], right=True
        )
        last = (ordered > 0).sum(dim=-1, keepdim=True) - 1
        drawn: list[int] = tokens.gather(-1, places.minimum(last))[:, 0].tolist()
        return drawn

    def _draw(self, row: int) -> float:
        if row not in self._draws:
            self._draws[row] = random.Random(f"{self._choice.seed}/{row}")  # noqa: S311 - no secret
        return self._draws[row].random()
