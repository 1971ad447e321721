"""Attention over packed rows: examples lie behind each other in one row, and none sees another.

Rows of like lengths are laid side by side in a grid; a row that is alone is read where it lies.
Grids of short rows are batched matrix products, whose attention weights are kept for the backward
pass: they train faster on processors than the fused kernel does. Longer rows go through that
kernel, which keeps no weights: twice as fast at some thousand tokens. What it cannot do, windows
and dropout, is done block by block, each block only with what stands before it, and again in the
backward pass where rows are long (Dao et al. 2022, arXiv 2205.14135).

Shapes: S tokens of all rows, H heads over G groups of n = H / G, D and E widths of a key and a
value; in a grid R rows of T tokens.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import AttentionInterface

PACKED_ROWS = "packed_rows"
# What some models hand to their kernel and this one would leave out.
_UNKNOWN_HERE = ("softcap", "s_aux", "position_bias")
# Rows share a grid where padding them costs less than another dozen of small operations.
_SHORT_ROW_TOKENS = 32
_ALIKE_ROW_TOKENS = 256
_ALIKE_RATIO = 1.25
_MULTIPLE = 16  # of tokens, in grids: what vector units take at once
_QUERIES_AT_ONCE = 384
_LONG_ROW_TOKENS = 768
_FUSED_TOKENS_IN_FP32 = 256  # from here on the fused kernel is as fast; in other types where long
_FUSED = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_FUSED_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class _Grid(NamedTuple):
    """Rows that follow each other, side by side, the shorter ones padded on the right."""

    lengths: tuple[int, ...]
    offset: int

    @property
    def num_rows(self) -> int:
        return len(self.lengths)

    @property
    def num_tokens(self) -> int:
        longest = max(self.lengths)
        return longest if self.num_rows == 1 else math.ceil(longest / _MULTIPLE) * _MULTIPLE

    @property
    def is_long(self) -> bool:
        return self.num_tokens >= _LONG_ROW_TOKENS


class _Places(NamedTuple):
    """Where the tokens of R rows lie in a grid of N = G R n T places, and the other way round."""

    laid: Tensor  # (N,) token times H plus head; padding repeats the row's last token
    packed: Tensor  # (S H,) places
    padding: Tensor  # places


class _Block(NamedTuple):
    """Queries that are attended together, and the first key that one of them sees."""

    start: int
    end: int
    first_key: int

    @property
    def size(self) -> int:
        return self.end - self.start


class PackedRows:
    """How the tokens of one packed batch fall into rows; made once, read by every layer."""

    def __init__(self, lengths: Sequence[int]) -> None:
        """Lay out.

        Args:
            lengths: tokens of each row, in their order; sorted ones are faster.
        """
        self.lengths = tuple(lengths)
        self.grids = tuple(_grids(self.lengths))
        self.starts = tuple(accumulate(self.lengths, initial=0))[:-1]
        self._biases: dict[tuple[Any, ...], Tensor] = {}
        self._places: dict[tuple[Any, ...], _Places] = {}

    def places(self, grid: _Grid, num_groups: int, num_heads: int, like: Tensor) -> _Places:
        """Find the way between the rows of a grid and its places.

        Args:
            grid: one of `grids`.
            num_groups: G.
            num_heads: n that share a key.
            like: gives the device.

        Returns:
            Indices of vectors.
        """
        key = (grid, num_groups, num_heads, like.device)
        if key not in self._places:
            size = grid.num_tokens
            of_rows = list(enumerate(grid.lengths))
            real = [row * size + column for row, length in of_rows for column in range(length)]
            padding = [
                row * size + column for row, length in of_rows for column in range(length, size)
            ]
            lengths = torch.tensor(grid.lengths, device=like.device)[:, None]  # (R, 1)
            columns = torch.arange(size, device=like.device).minimum(lengths - 1)  # (R, T)
            tokens = lengths.cumsum(0) - lengths + columns
            heads = torch.arange(num_groups * num_heads, device=like.device)
            heads = heads.view(num_groups, 1, num_heads, 1)
            laid = tokens[None, :, None] * heads.numel() + heads  # (G, R, n, T)
            places = torch.arange(laid.numel(), device=like.device).view(laid.shape)
            by_token = places.permute(1, 3, 0, 2).flatten(0, 1)  # (R T, G, n)
            self._places[key] = _Places(
                laid.flatten(), by_token[real].flatten(), by_token[padding].flatten()
            )
        return self._places[key]

    def bias(
        self, num_heads: int, num_queries: int, num_keys: int, window: int, like: Tensor
    ) -> Tensor:
        """Make what hides the keys that a query must not see; the last query sees the last key.

        Args:
            num_heads: n that share a key.
            num_queries: b.
            num_keys: w.
            window: keys that a query sees, itself included; 0: all before it.
            like: gives type and device.

        Returns:
            (n b, w), 0 where a query may look, else minus infinity.
        """
        key = (num_heads, num_queries, num_keys, window, like.dtype)
        if key not in self._biases:
            hidden = like.new_full((num_queries, num_keys), -math.inf)
            last = num_keys - num_queries
            bias = hidden.triu(last + 1)
            if window and num_keys > window:
                bias = bias + hidden.tril(last - window)
            bias = bias.repeat(num_heads, 1)
            if num_keys >= _LONG_ROW_TOKENS:  # cheap beside its block, and too large to keep
                return bias
            self._biases[key] = bias
        return self._biases[key]


def packed_mask(lengths: Sequence[int], device: torch.device) -> Tensor:
    """Write row lengths as the attention mask, which models hand through when it has 4 dimensions.

    Args:
        lengths: tokens of each of R rows.
        device: of the model.

    Returns:
        (1, 1, 1, R) int32.
    """
    mask = torch.tensor(lengths, dtype=torch.int32, device=device)[None, None, None]
    mask.packed_rows = PackedRows(lengths)  # type: ignore[attr-defined]
    return mask


@contextlib.contextmanager
def attending_to_packed_rows(model: Any) -> Iterator[None]:
    """Let a model read packed batches; outside it attends as ever.

    Args:
        model: a transformers causal language model.

    Yields:
        Nothing.
    """
    before = model.config._attn_implementation
    model.config._attn_implementation = PACKED_ROWS
    try:
        yield
    finally:
        model.config._attn_implementation = before


def packed_rows(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attend; called by the models of transformers.

    Args:
        module: the attention layer.
        query: (1, H, S, D).
        key: (1, G, S, D), H a multiple of G.
        value: (1, G, S, E).
        attention_mask: from `packed_mask`.
        scaling: of the scores; default 1 / sqrt(D).
        dropout: share of the weights left out in training.
        sliding_window: keys that a query sees, itself included; None: all before it.
        **others: what else the model has to say.

    Returns:
        (1, S, H, E), and no weights.

    Raises:
        NotImplementedError: the model asks for more than is done here.
    """
    rows = getattr(attention_mask, "packed_rows", None)
    unknown = [name for name in _UNKNOWN_HERE if others.get(name) is not None]
    if rows is None or unknown or not getattr(module, "is_causal", True):
        raise NotImplementedError(f"attention without packed rows, or with {unknown}")
    key, value = with_prefix(module, key, value, rows.starts)
    device = query.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else value.dtype
    with torch.autocast(device, enabled=False):
        parts = [part.squeeze(0).to(dtype) for part in (query, key, value)]
        scale = query.shape[-1] ** -0.5 if scaling is None else float(scaling)
        share = dropout if module.training else 0.0
        mixed = _PackedAttention.apply(  # type: ignore[no-untyped-call]
            *parts, rows, sliding_window or 0, scale, share
        )
    return mixed[None], None


def with_prefix(
    module: Any, key: Tensor, value: Tensor, starts: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Exchange keys and values of virtual tokens, where the layer has learned some of its own.

    Args:
        module: the attention layer; its `learned_prefix` does it, if there is one.
        key: (B, G, S, D).
        value: as key.
        starts: places where virtual tokens begin, the same in all of the B rows.

    Returns:
        Keys and values in the same shapes.
    """
    learned = getattr(module, "learned_prefix", None)
    return (key, value) if learned is None else learned(key, value, starts)


class _PackedAttention(torch.autograd.Function):
    """softmax(scale Q K^T + bias) V of each row, with a backward pass of its own."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        rows: PackedRows,
        window: int,
        scale: float,
        dropout: float,
    ) -> Tensor:
        generator = _generator_of(query.device)
        state = generator.get_state() if dropout else None
        ctx.settings = rows, window, scale, dropout, state
        ctx.shapes = query.shape, key.shape, value.shape
        kept: list[Tensor] = []
        has_fused = False
        left_out = _LeftOut(dropout, generator)
        mixed = _packed_like(value, (*query.shape[:2], value.shape[2]))  # (H, S, E)
        for grid in rows.grids:
            laid = [_lay(part, rows, grid, len(key)) for part in (query, key, value)]
            queries, keys, values = laid
            kept += laid
            if _fuses(grid, queries, values, window, dropout):
                seen = (part.expand(queries.shape) for part in (keys, values))
                answer, normalisers = _FUSED(queries, *seen, 0.0, True, scale=scale)
                kept.append(normalisers)
                has_fused = True
                _take_up(answer, rows, grid, mixed)
                continue
            answers = []
            for block in _blocks(grid, window):
                weights = _weights(queries, keys, block, rows, window, scale)
                if not grid.is_long:
                    kept.append(weights)
                known = values[:, 0, block.first_key : block.end]
                found = torch.bmm(left_out.of(weights), known)  # (G R, n b, E)
                answers.append(found.unflatten(1, (-1, block.size)))
            _take_up(_joined(answers), rows, grid, mixed)
        ctx.save_for_backward(mixed if has_fused else None, *kept)
        return mixed.transpose(0, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        mixed, *kept = ctx.saved_tensors
        rows, window, scale, dropout, state = ctx.settings
        generator = torch.Generator(gradients[0].device)
        if state is not None:
            generator.set_state(state)
        left_out, kept_parts = _LeftOut(dropout, generator), iter(kept)
        gradient = gradients[0].transpose(0, 1)  # (H, S, E)
        found = [_packed_like(gradient, shape) for shape in ctx.shapes]
        num_groups = len(found[1])
        for grid in rows.grids:
            queries, keys, values = (next(kept_parts) for _ in range(3))
            upstream = _lay(
                gradient, rows, grid, num_groups, pads_with_zeros=True
            )  # (G R, n, T, E)
            if _fuses(grid, queries, values, window, dropout):
                spread = (part.expand(queries.shape) for part in (keys, values))
                answer, normalisers = _lay(mixed, rows, grid, num_groups), next(kept_parts)
                step, *of_heads = _FUSED_BACKWARD(
                    upstream, queries, *spread, answer, normalisers, 0.0, True, scale=scale
                )
                laid = step, *(part.sum(1, keepdim=True) for part in of_heads)
                for part, target in zip(laid, found, strict=True):
                    _take_up(part, rows, grid, target)
                continue
            of_queries: list[Tensor] = []
            of_key, of_value = _Sum(keys[:, 0]), _Sum(values[:, 0])
            for block in _blocks(grid, window):
                weights = (
                    _weights(queries, keys, block, rows, window, scale)
                    if grid.is_long
                    else next(kept_parts)
                )
                seen = slice(block.first_key, block.end)
                asked = queries[:, :, block.start : block.end].flatten(1, 2)  # (G R, n b, D)
                wanted = upstream[:, :, block.start : block.end].flatten(1, 2)
                used = left_out.of(weights)
                of_value.add(seen, torch.bmm(used.transpose(1, 2), wanted))
                of_weights = torch.bmm(wanted, values[:, 0, seen].transpose(1, 2))
                of_weights = left_out.again(of_weights)
                of_scores = torch._softmax_backward_data(of_weights, weights, -1, weights.dtype)
                step = _scaled_product(scale, of_scores, keys[:, 0, seen])
                of_queries.append(step.unflatten(1, (-1, block.size)))
                of_key.add(seen, _scaled_product(scale, of_scores.transpose(1, 2), asked))
            laid = _joined(of_queries), of_key.total[:, None], of_value.total[:, None]
            for part, target in zip(laid, found, strict=True):
                _take_up(part, rows, grid, target)
        return (*found, None, None, None, None)


def _fuses(grid: _Grid, queries: Tensor, values: Tensor, window: int, dropout: float) -> bool:
    """Say whether the fused kernel is right for a grid, and can do what is asked."""
    hides_keys = 0 < window < grid.num_tokens
    is_plain = not hides_keys and not dropout and queries.shape[-1] == values.shape[-1]
    least = _FUSED_TOKENS_IN_FP32 if queries.dtype == torch.float32 else _LONG_ROW_TOKENS
    return is_plain and grid.num_tokens >= least and queries.device.type == "cpu"


class _Sum:
    """What the blocks of a grid add to its keys or values; in fp32 where there are several."""

    def __init__(self, like: Tensor) -> None:
        self._like = like
        self.total = like

    def add(self, seen: slice, part: Tensor) -> None:
        """Add to some keys; the first block of several begins at 0."""
        if part.shape == self._like.shape and self.total is self._like:
            self.total = part
            return
        if self.total is self._like:
            self.total = torch.zeros_like(
                self._like, dtype=torch.promote_types(self._like.dtype, torch.float32)
            )
        self.total[:, seen] += part


class _LeftOut:
    """Dropout of attention weights; a generator in the same state leaves out the same ones."""

    def __init__(self, share: float, generator: torch.Generator) -> None:
        self._share, self._generator = share, generator
        self._mask: Tensor | None = None

    def of(self, weights: Tensor) -> Tensor:
        """Leave out some of the next block's weights and scale up the others."""
        if not self._share:
            return weights
        mask = torch.empty_like(weights).bernoulli_(1 - self._share, generator=self._generator)
        self._mask = mask.div_(1 - self._share)
        return weights * self._mask

    def again(self, weights: Tensor) -> Tensor:
        """Leave out the same as just before."""
        return weights if self._mask is None else weights * self._mask


def _weights(
    queries: Tensor, keys: Tensor, block: _Block, rows: PackedRows, window: int, scale: float
) -> Tensor:
    """Attention weights of one block: (G R, n b, w), softmax in fp32 inside the kernel."""
    asked = queries[:, :, block.start : block.end].flatten(1, 2)  # (G R, n b, D)
    seen = keys[:, 0, block.first_key : block.end].transpose(1, 2)  # (G R, D, w)
    bias = rows.bias(queries.shape[1], block.size, seen.shape[2], window, asked)
    scores = torch.baddbmm(bias, asked, seen, alpha=scale)
    return scores.softmax(dim=-1)


def _blocks(grid: _Grid, window: int) -> Iterator[_Block]:
    size = math.ceil(grid.num_tokens / math.ceil(grid.num_tokens / _QUERIES_AT_ONCE))
    for start in range(0, grid.num_tokens, size):
        end = min(start + size, grid.num_tokens)
        yield _Block(start, end, max(0, start - window + 1) if window else 0)


def _grids(lengths: Sequence[int]) -> Iterator[_Grid]:
    """Cut the rows, in their order, where their lengths become unlike."""
    offset, gathered = 0, list(lengths[:1])
    shortest = longest = lengths[0]
    for length in lengths[1:]:
        shortest, longest = min(shortest, length), max(longest, length)
        if not _are_alike(shortest, longest):
            yield _Grid(tuple(gathered), offset)
            offset, gathered = offset + sum(gathered), []
            shortest = longest = length
        gathered.append(length)
    yield _Grid(tuple(gathered), offset)


def _are_alike(shortest: int, longest: int) -> bool:
    if shortest == longest or longest <= _SHORT_ROW_TOKENS:
        return True
    return longest <= min(_ALIKE_ROW_TOKENS, _ALIKE_RATIO * shortest)


def _scaled_product(scale: float, left: Tensor, right: Tensor) -> Tensor:
    return torch.baddbmm(left.new_zeros(()), left, right, beta=0, alpha=scale)


def _joined(parts: list[Tensor]) -> Tensor:
    """Put the queries of all blocks, (G R, n, b, D), behind each other."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def _lay(
    packed: Tensor,
    rows: PackedRows,
    grid: _Grid,
    num_groups: int,
    *,
    pads_with_zeros: bool = False,
) -> Tensor:
    """Lay (H, S, D) side by side: (G R, n, T, D); else padding is a row's last token again."""
    heads = packed.unflatten(0, (num_groups, -1))  # (G, n, S, D)
    if grid.num_rows == 1:  # as it lies
        alone: Tensor = heads[:, :, grid.offset :][:, :, : grid.num_tokens]
        return alone
    places = rows.places(grid, num_groups, heads.shape[1], packed)
    laid = _by_token(packed, grid).index_select(0, places.laid)
    if pads_with_zeros and len(places.padding):
        laid.index_fill_(0, places.padding, 0)
    return laid.view(num_groups * grid.num_rows, heads.shape[1], grid.num_tokens, -1)


def _take_up(laid: Tensor, rows: PackedRows, grid: _Grid, packed: Tensor) -> None:
    """Write what `_lay` laid back to its place in (H, S, D), padding left out."""
    num_groups = len(laid) // grid.num_rows
    if grid.num_rows == 1:
        _lay(packed, rows, grid, num_groups).copy_(laid)
        return
    places = rows.places(grid, num_groups, laid.shape[1], packed)
    vectors = laid.reshape(-1, laid.shape[-1]).to(packed.dtype)
    torch.index_select(vectors, 0, places.packed, out=_by_token(packed, grid))


def _by_token(packed: Tensor, grid: _Grid) -> Tensor:
    """The vectors of a grid's tokens, (S H, D); of tensors that lie as (S, H, D) a view."""
    tokens = packed.transpose(0, 1)[grid.offset :][: sum(grid.lengths)]
    return tokens.reshape(-1, packed.shape[2])


def _generator_of(device: torch.device) -> torch.Generator:
    if device.type == "cuda":
        return torch.cuda.default_generators[device.index or 0]
    return torch.default_generator


def _packed_like(like: Tensor, shape: Sequence[int]) -> Tensor:
    """Make an empty (H, S, width) that lies in memory as a linear layer left it: (S, H, width)."""
    num_heads, num_tokens, width = shape
    return like.new_empty(num_tokens, num_heads, width).transpose(0, 1)


AttentionInterface.register(PACKED_ROWS, packed_rows)
