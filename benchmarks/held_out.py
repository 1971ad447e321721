"""The loss on held-out rows, computed the plainest way and the same way for every contestant."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

from benchmarks.workload import Row

_MOST_TOKENS_A_ROW = 64


@torch.no_grad()
def held_out_loss(model: Any, rows: Sequence[Row], prefix: Sequence[int] = ()) -> float:
    """Compute the mean cross-entropy of the ends of the rows' answers.

    One row and few logits at a time, so that it is never what needs the most memory. In training
    mode, since none of these has dropout, and the 4-bit layers of bitsandbytes repack themselves
    at the first evaluation and then give no gradients.

    Args:
        model: a causal language model, or what `peft` made of one.
        rows: held-out rows.
        prefix: ids before every row.

    Returns:
        Nats a token.
    """
    model.train()
    total, count = 0.0, 0
    for row in rows:
        num_seen = min(len(row.ids) - row.num_prompt, _MOST_TOKENS_A_ROW)
        ids = torch.tensor([[*prefix, *row.ids]])
        logits = model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            use_cache=False,
            logits_to_keep=num_seen + 1,
        ).logits[0, -num_seen - 1 : -1]
        total += float(
            functional.cross_entropy(logits.float(), ids[0, -num_seen:], reduction="sum")
        )
        count += num_seen
    return total / count
