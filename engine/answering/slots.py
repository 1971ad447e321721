"""Keys and values of many rows side by side, and the attention that reads them.

Each row has a slot of its own that begins with its first token, so a token's column is its place
in the text: a sliding window needs no care, and a row may come or go without touching another.
What all rows share is kept once. A pass gives its tokens as one line without any padding.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import AttentionInterface

from engine.attention import with_prefix

SLOTS = "slots"
# Switches aside, attention may be asked for things not done here: sinks, learned biases.
_UNDERSTOOD = {"softcap", "position_ids", "cache_position"}
# What one more call of the attention kernel costs: so many columns read, or scores computed.
_COLUMNS_A_CALL, _SCORES_A_CALL = 512, 8192


class NotUnderstoodError(Exception):
    """A model attends in a way that slots cannot serve; the caller reads it another way."""


@dataclass
class Slots:
    """Keys and values by layer.

    Attributes:
        num_slots: N rows at most.
        num_columns: K tokens a row at most.
        keys: by layer, (N, G, K, D) for G key heads; made when a layer is first seen.
        values: as keys.
        shared: by layer, keys and values (1, G, S, D) that every row sees before its own.
        start: by layer, as shared, but copied to the first columns of every slot.
    """

    num_slots: int
    num_columns: int
    keys: dict[int, Tensor] = field(default_factory=dict)
    values: dict[int, Tensor] = field(default_factory=dict)
    shared: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    start: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def write(self, layer: int, key: Tensor, value: Tensor, slots: Tensor, columns: Tensor) -> None:
        """Put the tokens of a pass where they belong.

        Args:
            layer: its number.
            key: (1, G, T, D).
            value: as key.
            slots: (T,) row of each token.
            columns: (T,) its place in the row.
        """
        if layer not in self.keys:
            self.keys[layer] = self._empty(key, self.start.get(layer, (None, None))[0])
            self.values[layer] = self._empty(value, self.start.get(layer, (None, None))[1])
        self.keys[layer][slots, :, columns] = key[0].transpose(0, 1)
        self.values[layer][slots, :, columns] = value[0].transpose(0, 1)

    def move(self, sources: Tensor, targets: Tensor, num_columns: int) -> None:
        """Copy rows into other slots, as if all at once.

        Args:
            sources: (M,) slots to copy.
            targets: (M,) slots to overwrite.
            num_columns: how many columns hold anything.
        """
        for kept in (*self.keys.values(), *self.values.values()):
            kept[targets, :, :num_columns] = kept[sources, :, :num_columns]

    def _empty(self, like: Tensor, start: Tensor | None) -> Tensor:
        # Zeros: what was never written is masked, and a mask does not hide a NaN.
        shape = self.num_slots, like.shape[1], self.num_columns, like.shape[3]
        empty = torch.zeros(shape, dtype=like.dtype, device=like.device)
        if start is not None:
            empty[:, :, : start.shape[2]] = start
        return empty


class RowGroup(NamedTuple):
    """Rows of a pass that are attended together, padded to the longest of them.

    Attributes:
        rows: their places in the pass.
        tokens: their tokens in the line.
        num_queries: Q, the most tokens of one of them in this pass.
        end: K, columns of their slots that are looked at.
    """

    rows: slice
    tokens: slice
    num_queries: int
    end: int


def row_groups(queries: Sequence[int], ends: Sequence[int]) -> tuple[RowGroup, ...]:
    """Cut the rows of a pass, in their order, where padding would cost more than one more call.

    Args:
        queries: tokens of each row in the pass.
        ends: columns that each row looks at.

    Returns:
        Groups that hold every row once.
    """
    most_waste = _COLUMNS_A_CALL if max(queries) == 1 else _SCORES_A_CALL
    offsets = [0, *accumulate(queries)]
    groups: list[RowGroup] = []
    first = needed = 0
    widest = (0, 0)
    for row, (count, end) in enumerate(zip(queries, ends, strict=True)):
        wider = max(widest[0], count), max(widest[1], end)
        computed = (row + 1 - first) * wider[0] * wider[1]
        if row > first and computed - needed - count * end > most_waste:
            groups.append(_row_group(first, row, offsets, widest))
            first, needed, wider = row, 0, (count, end)
        needed += count * end
        widest = wider
    return (*groups, _row_group(first, len(queries), offsets, widest))


def _row_group(first: int, last: int, offsets: Sequence[int], widest: tuple[int, int]) -> RowGroup:
    return RowGroup(slice(first, last), slice(offsets[first], offsets[last]), *widest)


@dataclass
class Pass:
    """One forward pass over T tokens of several rows.

    Attributes:
        memory: where keys and values go; None: they are kept in `read` instead.
        slots: (T,) row of each token.
        columns: (T,) its place in the row's slot.
        first: the first row of the pass; the rows are consecutive.
        num_rows: B.
        queries: (T,) place of each token among those of its row in this pass.
        groups: which rows are attended together.
        masks: by sliding window, (B, 1, Q, K) to add to the scores, Q and K of the whole pass, B
            possibly 1; None: each row begins with this pass, and sees itself up to each token.
        windows: sliding window by layer; None where a layer sees everything.
        read: by layer, keys and values of the pass.
    """

    memory: Slots | None
    slots: Tensor
    columns: Tensor
    first: int
    num_rows: int
    queries: Tensor
    groups: tuple[RowGroup, ...]
    masks: Mapping[int | None, Tensor | None]
    windows: tuple[int | None, ...]
    read: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)


def attend_in_slots(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    slots_pass: Pass | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attend; called by the models of transformers.

    Args:
        module: the attention layer.
        query: (1, H, T, D).
        key: (1, G, T, D), H a multiple of G.
        value: as key.
        attention_mask: always None; the pass knows who sees whom.
        scaling: of the scores; default 1 / sqrt(D).
        dropout: unused; nobody learns here.
        slots_pass: the pass; models hand it through.
        **others: what only some architectures ask for.

    Returns:
        (1, T, H, D), and no weights.

    Raises:
        NotUnderstoodError: the model hands no pass through, or asks for more than is done here.
    """
    asked = {name for name, given in others.items() if isinstance(given, Tensor | float)}
    asked -= _UNDERSTOOD
    if slots_pass is None or asked or attention_mask is not None:
        raise NotUnderstoodError(", ".join(sorted(asked)))
    now, layer = slots_pass, int(module.layer_idx)
    query, key = query.to(value.dtype), key.to(value.dtype)
    scale = scaling or query.shape[-1] ** -0.5
    softcap = others.get("softcap")
    mask = now.masks[now.windows[layer]]
    if now.memory is None:  # one row that nobody has to find again by slot
        key, value = with_prefix(module, key, value, (0,))
        now.read[layer] = key, value
        causal = mask is None and len(now.slots) > 1
        mixed, _ = _attend(query, key, value, mask, scale, softcap, causal=causal)
        return mixed.transpose(1, 2), None
    key, value = with_prefix(module, key, value, ())  # of single rows, where they begin
    now.memory.write(layer, key, value, now.slots, now.columns)
    rows = slice(now.first, now.first + now.num_rows)
    keys, values = now.memory.keys[layer][rows], now.memory.values[layer][rows]
    line = query[0].transpose(0, 1)  # (T, H, D)
    parts = [
        _attend_together(line, keys, values, mask, group, now, scale, softcap)
        for group in now.groups
    ]
    mixed, sums = (
        torch.cat(part) if len(parts) > 1 else part[0] for part in zip(*parts, strict=True)
    )
    if now.memory.shared:
        before, before_sum = _attend(query, *now.memory.shared[layer], None, scale, softcap)
        share = torch.sigmoid(before_sum[0].transpose(0, 1) - sums)[..., None].to(mixed.dtype)
        mixed = torch.lerp(mixed, before[0].transpose(0, 1), share)
    return mixed[None], None


AttentionInterface.register(SLOTS, attend_in_slots)


def _attend_together(
    line: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None,
    group: RowGroup,
    now: Pass,
    scale: float,
    softcap: float | None,
) -> tuple[Tensor, Tensor]:
    """Attend from the tokens of one group's rows: mixtures (T, H, D) and sums (T, H)."""
    own = line[group.tokens]
    keys, values = keys[group.rows, :, : group.end], values[group.rows, :, : group.end]
    if mask is not None:
        mask = mask if len(mask) == 1 else mask[group.rows]
        mask = mask[:, :, : group.num_queries, : group.end]
    if group.num_queries == 1:
        mixed, sums = _attend(own[:, :, None], keys, values, mask, scale, softcap)
        return mixed[:, :, 0], sums[:, :, 0]
    places = now.slots[group.tokens] - now.first - group.rows.start
    queries = now.queries[group.tokens]
    block = own.new_zeros(len(keys), own.shape[1], group.num_queries, own.shape[2])
    block[places, :, queries] = own
    mixed, sums = _attend(block, keys, values, mask, scale, softcap, causal=mask is None)
    return mixed[places, :, queries], sums[places, :, queries]


def as_bias(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn who sees whom into what is added to scores.

    Args:
        visible: (B, Q, K), True where a query may look.
        dtype: of the scores.

    Returns:
        (B, 1, Q, K), 0 or minus infinity.
    """
    bias = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
    return bias.masked_fill_(~visible, -torch.inf)[:, None]


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scale: float,
    softcap: float | None,
    *,
    causal: bool = False,
) -> tuple[Tensor, Tensor]:
    """Attend from (B, H, Q, D) to (B, G, K, D), and say how much weight there was to share.

    Returns the mixture (B, H, Q, D) and the logarithm of the sum of exponentials (B, H, Q).
    """
    batch, heads, num_queries, width = query.shape
    groups = key.shape[1]
    many = heads // groups
    if many > 1 and num_queries > 1 and (causal or mask is not None):
        key, value = (part.repeat_interleave(many, dim=1) for part in (key, value))
    elif many > 1:  # every query sees the same: those of a group become rows of one product
        query = query.reshape(batch, groups, many * num_queries, width)
    if query.device.type == "cpu" and not softcap and key.shape[-1] == value.shape[-1]:
        # In fp32, copies and all, the kernel is up to 2.5 times as fast as in bf16.
        parts = query.float(), key.float(), value.float()
        bias = None if mask is None else mask.float()
        with _products_without_preparation():
            mixed, sums = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                *parts, 0.0, causal, attn_mask=bias, scale=scale
            )
        mixed = mixed.to(value.dtype)
    else:
        scores = (query @ key.transpose(-1, -2)).float() * scale
        if softcap:
            scores = (scores / softcap).tanh() * softcap
        if causal:
            scores += torch.full_like(scores[0, 0], -torch.inf).triu(1)
        if mask is not None:
            scores += mask
        sums = scores.logsumexp(dim=-1)
        mixed = (scores - sums[..., None]).exp().to(value.dtype) @ value
    return mixed.reshape(batch, heads, num_queries, -1), sums.reshape(batch, heads, num_queries)


@contextlib.contextmanager
def _products_without_preparation() -> Iterator[None]:
    """Keep the fused kernel's many small fp32 products off oneDNN, which prepares each anew."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
