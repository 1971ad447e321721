"""Beam search: several answers to a prompt are followed, and the best one is given.

As in transformers: an answer's score is the mean log-probability of its tokens, and a prompt is
done when no answer that is still growing can overtake the finished ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.answering.answer import Answer, Ending
from engine.answering.reading import Ids, Reading


@dataclass(frozen=True)
class Beam:
    """A finished answer.

    Attributes:
        ids: its tokens, the end token left out.
        score: mean log-probability a token, the end token counted.
    """

    ids: tuple[int, ...]
    score: float


def follow_beams(
    reading: Reading,
    prompts: Sequence[Ids],
    limits: Sequence[int],
    ending: Ending,
    num_beams: int,
    adapters: Ids | None = None,
) -> list[Beam]:
    """Find the best answer to each prompt.

    Args:
        reading: without rows, inside `evaluating`; has room for N times `num_beams`.
        prompts: N prompts.
        limits: the most tokens of each answer.
        ending: what ends an answer.
        num_beams: how many to follow a prompt.
        adapters: N numbers of adapters, for a model that has some.

    Returns:
        N answers.
    """
    searches = [
        _Search(limit, ending, prompt[-1], num_beams)
        for prompt, limit in zip(prompts, limits, strict=True)
    ]
    going = searches
    logits = reading.add(prompts, adapters)
    while True:
        logs = logits.log_softmax(dim=-1).split([len(search.scores) for search in going])
        rows, first = [], 0
        for search, own in zip(going, logs, strict=True):
            rows += [first + source for source in search.grow(own)]
            first += len(own)
        reading.select(rows)
        going = [search for search in going if search.growing]
        if not going:
            return [search.finished[0] for search in searches]
        logits = reading.step([ids[-1] for search in going for ids in search.growing])


class _Search:
    """The answers to one prompt."""

    def __init__(self, limit: int, ending: Ending, anchor: int, num_beams: int) -> None:
        self.growing: list[list[int]] = [[]]
        self.scores = torch.zeros(1)
        self.finished: list[Beam] = []
        self._limit, self._ending, self._anchor, self._num_beams = limit, ending, anchor, num_beams

    def grow(self, logs: Tensor) -> list[int]:
        """Take the best next tokens, given (B, V); says which answers they follow."""
        totals = (logs + self.scores.to(logs.device)[:, None]).flatten()
        # Enough that as many as are followed remain where the others all end.
        count = max(2, 1 + len(self._ending.end_ids)) * self._num_beams
        best = totals.topk(min(count, len(totals)))
        kept: list[tuple[float, int, list[int]]] = []
        for place, (total, index) in enumerate(
            zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ):
            source, token = divmod(index, logs.shape[1])
            ids = [*self.growing[source], token]
            if not self._has_ended(ids):
                kept.append((total, source, ids))
            elif place < self._num_beams:
                own = ids[:-1] if token in self._ending.end_ids else ids
                self.finished.append(Beam(tuple(own), total / len(ids)))
        self.finished.sort(key=lambda beam: -beam.score)
        del self.finished[self._num_beams :]
        del kept[self._num_beams :]
        if len(self.finished) == self._num_beams and kept:
            total, _, ids = kept[0]
            if total / len(ids) <= self.finished[-1].score:
                kept = []
        self.scores = torch.tensor([total for total, _, _ in kept])
        self.growing = [ids for _, _, ids in kept]
        return [source for _, source, _ in kept]

    def _has_ended(self, ids: list[int]) -> bool:
        if ids[-1] in self._ending.end_ids or len(ids) >= self._limit:
            return True
        return self._ending.stops(Answer(self._ending, self._anchor, ids))
