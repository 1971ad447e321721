"""Attention over packed rows: examples lie behind each other in one row, and none sees another.

Rows of one length, and short ones, are laid side by side in a grid; a row that is alone is read
where it lies. Grids of short rows are batched matrix products, whose attention weights are kept for
the backward pass: they train faster on processors than the fused kernel does. Longer rows go
through that kernel, which keeps no weights: twice as fast at some thousand tokens. What it cannot
do, windows and dropout, is done block by block, each block only with what stands before it, and
again in the backward pass where rows are long (Dao et al. 2022, arXiv 2205.14135).

Shapes: S tokens of all rows, H heads over G groups of n = H / G, D and E widths of a key and a
value; in a grid R rows of T tokens.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from itertools import accumulate, groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import AttentionInterface

PACKED_ROWS = "packed_rows"
# What some models hand to their kernel and this one would leave out.
_UNKNOWN_HERE = ("softcap", "s_aux", "position_bias")
_ALIKE_TOKENS = 32  # shorter rows share a grid: padding them costs less than another product
_QUERIES_AT_ONCE = 384
_LONG_ROW_TOKENS = 768
_FUSED_TOKENS_IN_FP32 = 256  # from here on the fused kernel is as fast; in other types where long
_FUSED = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_FUSED_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


class _Run(NamedTuple):
    """Rows of one length that follow each other: their place in a grid and among the tokens."""

    first_row: int
    num_rows: int
    num_tokens: int
    offset: int


class _Grid(NamedTuple):
    """Rows side by side, padded on the right."""

    num_rows: int
    num_tokens: int
    runs: tuple[_Run, ...]

    @property
    def is_padded(self) -> bool:
        return len(self.runs) > 1

    @property
    def is_long(self) -> bool:
        return self.num_tokens >= _LONG_ROW_TOKENS


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
        parts = [part[0].to(dtype) for part in (query, key, value)]
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
        kept: list[Tensor] = []
        has_fused = False
        left_out = _LeftOut(dropout, generator)
        mixed = _packed_like(query, value.shape[2], value)  # (H, S, E)
        for grid in rows.grids:
            queries, keys, values = (_lay(part, grid, len(key)) for part in (query, key, value))
            if _fuses(grid, queries, values, window, dropout):
                seen = (part.expand(queries.shape) for part in (keys, values))
                answer, normalisers = _FUSED(queries, *seen, 0.0, True, scale=scale)
                kept.append(normalisers)
                has_fused = True
                _take_up(answer, grid, mixed)
                continue
            answers = []
            for block in _blocks(grid, window):
                weights = _weights(queries, keys, block, rows, window, scale)
                if not grid.is_long:
                    kept.append(weights)
                known = values[:, 0, block.first_key : block.end]
                found = torch.bmm(left_out.of(weights), known)  # (G R, n b, E)
                answers.append(found.unflatten(1, (-1, block.size)))
            _take_up(_joined(answers), grid, mixed)
        ctx.save_for_backward(query, key, value, mixed if has_fused else None, *kept)
        return mixed.transpose(0, 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, mixed, *kept = ctx.saved_tensors
        rows, window, scale, dropout, state = ctx.settings
        generator = torch.Generator(query.device)
        if state is not None:
            generator.set_state(state)
        left_out, kept_parts = _LeftOut(dropout, generator), iter(kept)
        gradient = gradients[0].transpose(0, 1)  # (H, S, E)
        found = [_packed_like(part, part.shape[2], part) for part in (query, key, value)]
        for grid in rows.grids:
            queries, keys, values = (_lay(part, grid, len(key)) for part in (query, key, value))
            upstream = _lay(gradient, grid, len(key))  # (G R, n, T, E)
            if _fuses(grid, queries, values, window, dropout):
                spread = (part.expand(queries.shape) for part in (keys, values))
                answer, normalisers = _lay(mixed, grid, len(key)), next(kept_parts)
                step, *of_heads = _FUSED_BACKWARD(
                    upstream, queries, *spread, answer, normalisers, 0.0, True, scale=scale
                )
                laid = step, *(part.sum(1, keepdim=True) for part in of_heads)
                for part, target in zip(laid, found, strict=True):
                    _take_up(part, grid, target)
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
                _take_up(part, grid, target)
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
    """Cut the rows, in their order, wherever the length changes, unless they are short."""
    runs: list[_Run] = []
    offset = 0
    for length, alike in groupby(lengths):
        num_rows = len(list(alike))
        if runs and max(length, runs[-1].num_tokens) > _ALIKE_TOKENS:
            yield _grid(runs)
            runs = []
        first_row = runs[-1].first_row + runs[-1].num_rows if runs else 0
        runs.append(_Run(first_row, num_rows, length, offset))
        offset += num_rows * length
    if runs:
        yield _grid(runs)


def _grid(runs: list[_Run]) -> _Grid:
    num_rows = sum(run.num_rows for run in runs)
    return _Grid(num_rows, max(run.num_tokens for run in runs), tuple(runs))


def _scaled_product(scale: float, left: Tensor, right: Tensor) -> Tensor:
    return torch.baddbmm(left.new_zeros(()), left, right, beta=0, alpha=scale)


def _joined(parts: list[Tensor]) -> Tensor:
    """Put the queries of all blocks, (G R, n, b, D), behind each other."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def _lay(packed: Tensor, grid: _Grid, num_groups: int) -> Tensor:
    """Lay (H, S, D) side by side: (G R, n, T, D); padding is 0, so that it spoils nothing."""
    heads = packed.unflatten(0, (num_groups, -1))  # (G, n, S, D)
    if grid.num_rows == 1:  # as it lies
        alone: Tensor = heads[:, :, grid.runs[0].offset :][:, :, : grid.num_tokens]
        return alone
    shape = (num_groups, grid.num_rows, heads.shape[1], grid.num_tokens, packed.shape[2])
    laid = packed.new_zeros(shape) if grid.is_padded else packed.new_empty(shape)
    for run in grid.runs:
        rows = heads[:, :, run.offset : run.offset + run.num_rows * run.num_tokens]
        place = laid[:, run.first_row : run.first_row + run.num_rows, :, : run.num_tokens]
        place.copy_(rows.unflatten(2, (run.num_rows, -1)).transpose(1, 2))
    return laid.flatten(0, 1)


def _take_up(laid: Tensor, grid: _Grid, packed: Tensor) -> None:
    """Write what `_lay` laid back to its place in (H, S, D)."""
    sides = laid.unflatten(0, (-1, grid.num_rows))  # (G, R, n, T, D)
    heads = packed.unflatten(0, (len(sides), -1))  # (G, n, S, D)
    for run in grid.runs:
        rows = sides[:, run.first_row : run.first_row + run.num_rows, :, : run.num_tokens]
        place = heads[:, :, run.offset : run.offset + run.num_rows * run.num_tokens]
        place.unflatten(2, (run.num_rows, -1)).copy_(rows.transpose(1, 2))


def _generator_of(device: torch.device) -> torch.Generator:
    if device.type == "cuda":
        return torch.cuda.default_generators[device.index or 0]
    return torch.default_generator


def _packed_like(heads: Tensor, width: int, like: Tensor) -> Tensor:
    """Make an empty (H, S, width) that lies in memory as a linear layer left it: (S, H, width)."""
    return like.new_empty(heads.shape[1], len(heads), width).transpose(0, 1)


AttentionInterface.register(PACKED_ROWS, packed_rows)
