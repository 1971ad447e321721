"""Items -> batches of like length -> tensors, packed where the model was proven to read that."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.attention import packed_mask
from engine.encode import Encoded
from engine.language_model import LanguageModel

_BATCHES_PER_WINDOW = 16


@dataclass(frozen=True)
class Batch:
    """Some examples as tensors, and which of their hidden states predict a supervised token.

    Packed: one row that holds all examples behind each other (B = 1), of which none sees another.
    Padded: one row an example, padded on the right, where causal attention never looks.

    Attributes:
        ids: (B, T) token ids; virtual tokens first in every example.
        positions: (B, T) of each token in its example.
        mask: what the model takes as attention mask: row lengths (1, 1, 1, R) int32 where packed,
            else (B, T), 1 where a token is real.
        lengths: tokens of each of the R examples, virtual ones included.
        predicting: (S,) places in the flattened (B T) hidden states, rising.
        targets: (S,) the token that each of them predicts.
    """

    ids: Tensor
    positions: Tensor
    mask: Tensor
    lengths: tuple[int, ...]
    predicting: Tensor
    targets: Tensor

    @property
    def is_packed(self) -> bool:
        """Whether all examples share one row."""
        return self.mask.dim() == 4

    @property
    def num_supervised(self) -> int:
        """Tokens the loss sees."""
        return len(self.targets)

    @property
    def num_tokens(self) -> int:
        """Real tokens, padding not counted."""
        return sum(self.lengths)


def collate(items: Sequence[Encoded], language_model: LanguageModel) -> Batch:
    """Build the tensors of one micro-batch.

    The first token of an example has nothing before it that could predict it: the loss does not
    see it, unless a soft prompt stands there.

    Args:
        items: R encoded examples; of rising length, they are read faster.
        language_model: gives device, virtual tokens and whether to pack.

    Returns:
        The batch on the model's device.
    """
    prefix = language_model.virtual_token_ids
    lengths = [len(prefix) + len(item.ids) for item in items]
    packs = language_model.paths.packs
    width = 0 if packs else max(lengths)
    ids: list[int] = []
    positions: list[int] = []
    predicting: list[int] = []
    targets: list[int] = []
    for item, length in zip(items, lengths, strict=True):
        padding = [0] * (width - length)
        first = len(ids) + len(prefix)  # where the item's own tokens begin
        for place, seen in enumerate(item.supervised):
            if seen and (place or prefix):
                predicting.append(first + place - 1)
                targets.append(item.ids[place])
        ids += [*prefix, *item.ids, *padding]
        positions += [*range(length), *padding]
    device = language_model.device
    num_rows = 1 if packs else len(items)
    if packs:
        mask = packed_mask(lengths, device)
    else:
        real = torch.arange(width, device=device) < torch.tensor(lengths, device=device)[:, None]
        mask = real.long()
    return Batch(
        ids=torch.tensor(ids, device=device).view(num_rows, -1),
        positions=torch.tensor(positions, device=device).view(num_rows, -1),
        mask=mask,
        lengths=tuple(lengths),
        predicting=torch.tensor(predicting, dtype=torch.long, device=device),
        targets=torch.tensor(targets, dtype=torch.long, device=device),
    )


def micro_batches(lengths: Sequence[int], most_tokens: int, *, packed: bool) -> list[range]:
    """Cut examples into what is in memory at once, none above a budget of tokens.

    Args:
        lengths: tokens of each example, rising.
        most_tokens: the budget, padding included; an example above it stands alone.
        packed: whether examples lie behind each other, so that there is no padding.

    Returns:
        Consecutive ranges of example numbers; each example once.
    """
    cuts = [0]
    tokens = 0
    for number, length in enumerate(lengths):
        tokens += length
        wide = tokens if packed else (number + 1 - cuts[-1]) * length
        if wide > most_tokens and number > cuts[-1]:
            cuts.append(number)
            tokens = length
    ends = [*cuts[1:], len(lengths)]
    return [range(start, end) for start, end in zip(cuts, ends, strict=True)]


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
