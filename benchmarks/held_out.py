"""The loss on held-out rows, computed the plainest way and the same way for every contestant."""

from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.workload import Row

_ROWS_AT_ONCE = 8
_IGNORED = -100


@torch.no_grad()
def held_out_loss(model: Any, rows: Sequence[Row], prefix: Sequence[int] = ()) -> float:
    """Compute the mean cross-entropy of the rows' answers.

    The model stays in training mode: none of these has dropout, and the 4-bit layers of
    bitsandbytes repack themselves at the first evaluation and then give no gradients.

    Args:
        model: a causal language model, or what `peft` made of one.
        rows: held-out rows.
        prefix: ids before every row.

    Returns:
        Nats a token.
    """
    total, count = 0.0, 0
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        batch = rows[start : start + _ROWS_AT_ONCE]
        width = max(len(row.ids) for row in batch)
        ids, mask, labels = [], [], []
        for row in batch:
            padding = width - len(row.ids)
            seen = [_IGNORED] * row.num_prompt + list(row.ids[row.num_prompt :])
            ids.append([*prefix, *row.ids, *[0] * padding])
            mask.append([1] * (len(prefix) + len(row.ids)) + [0] * padding)
            labels.append([_IGNORED] * len(prefix) + seen + [_IGNORED] * padding)
        loss = model(
            input_ids=torch.tensor(ids),
            attention_mask=torch.tensor(mask),
            labels=torch.tensor(labels),
            use_cache=False,
        ).loss
        num_seen = sum(len(row.ids) - row.num_prompt for row in batch)
        total += float(loss) * num_seen
        count += num_seen
    return total / count
