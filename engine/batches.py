"""Items -> batches of like length -> tensors, with as little padding as the draw allows."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.encode import Encoded
from engine.language_model import LanguageModel

IGNORED = -100
_BATCHES_PER_WINDOW = 16


@dataclass(frozen=True)
class Batch:
    """Left-padded, so that all answers end at the right edge and few logits are computed.

    Attributes:
        ids: (B, T) token ids; virtual tokens first.
        mask: (B, T) 1 where a token is real.
        positions: (B, T) position of each real token, 0 on padding.
        labels: (B, T) the token itself where supervised, else -100.
    """

    ids: Tensor
    mask: Tensor
    positions: Tensor
    labels: Tensor

    @property
    def num_supervised(self) -> int:
        """Tokens the loss sees."""
        return int((self.labels != IGNORED).sum())

    @property
    def num_tokens(self) -> int:
        """Real tokens, padding not counted."""
        return int(self.mask.sum())

    @property
    def num_logits(self) -> int:
        """Columns at the right edge whose logits predict some supervised token."""
        supervised = (self.labels != IGNORED).any(dim=0)
        first = int(supervised.nonzero()[0])
        return int(self.labels.shape[1] - first + 1)


def collate(items: Sequence[Encoded], language_model: LanguageModel) -> Batch:
    """Build the tensors of one micro-batch.

    Args:
        items: B encoded examples.
        language_model: gives device and virtual tokens.

    Returns:
        The batch on the model's device.
    """
    prefix = language_model.virtual_token_ids
    rows = [[*prefix, *item.ids] for item in items]
    width = max(len(row) for row in rows)
    ids, mask, labels = [], [], []
    for row, item in zip(rows, items, strict=True):
        padding = width - len(row)
        ids.append([0] * padding + row)
        mask.append([0] * padding + [1] * len(row))
        seen = [False] * len(prefix) + list(item.supervised)
        targets = [id_ if flag else IGNORED for id_, flag in zip(row, seen, strict=True)]
        labels.append([IGNORED] * padding + targets)
    device = language_model.device
    mask_tensor = torch.tensor(mask, device=device)
    return Batch(
        ids=torch.tensor(ids, device=device),
        mask=mask_tensor,
        positions=(mask_tensor.cumsum(1) - 1).clamp(min=0),
        labels=torch.tensor(labels, device=device),
    )


def epoch_batches(
    lengths: Sequence[int], batch_size: int, *, seed: int, epoch: int
) -> list[list[int]]:
    """Draw the batches of one epoch; equal arguments give equal batches.

    Shuffled, then sorted by length inside windows of a few batches: random enough to learn
    from, and little padding.

    Args:
        lengths: tokens of each item.
        batch_size: items a batch; the last one may be smaller.
        seed: the plan's seed.
        epoch: 0-based.

    Returns:
        Item numbers, batch by batch; every item once.
    """
    draw = random.Random(f"{seed}/{epoch}")  # noqa: S311 - a reproducible draw, no secret
    order = list(range(len(lengths)))
    draw.shuffle(order)
    window = batch_size * _BATCHES_PER_WINDOW
    batches = []
    for start in range(0, len(order), window):
        part = sorted(order[start : start + window], key=lambda item: lengths[item])
        batches += [part[at : at + batch_size] for at in range(0, len(part), batch_size)]
    draw.shuffle(batches)
    return batches
