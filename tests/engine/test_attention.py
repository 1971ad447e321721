import pytest
import torch
from torch import Tensor

from engine.attention import PackedRows, packed_mask, packed_rows

CPU = torch.device("cpu")


class Layer:
    training = True
    is_causal = True


def drawn(num_tokens: int, heads: int, width: int) -> Tensor:
    """As a linear layer leaves it: (1, H, S, D) over memory in the order (S, H, D)."""
    values = torch.randn(1, num_tokens, heads, width, dtype=torch.float64)
    return values.transpose(1, 2).requires_grad_()


def one_by_one(
    query: Tensor, key: Tensor, value: Tensor, lengths: tuple[int, ...], window: int
) -> Tensor:
    """The formula, row by row."""
    repeats = query.shape[1] // key.shape[1]
    key, value = (part.repeat_interleave(repeats, dim=1) for part in (key, value))
    mixed = []
    split = (part.split(lengths, dim=2) for part in (query, key, value))
    for asked, seen, told in zip(*split, strict=True):
        at = torch.arange(asked.shape[2])
        distance = at[:, None] - at
        hidden = (distance < 0) | (distance >= window if window else distance < 0)
        scores = (asked @ seen.transpose(-1, -2)) * query.shape[-1] ** -0.5
        mixed.append(scores.masked_fill(hidden, -torch.inf).softmax(-1) @ told)
    return torch.cat(mixed, dim=2).transpose(1, 2)


@pytest.mark.parametrize("window", [0, 4, 300])
@pytest.mark.parametrize("groups", [4, 2, 1])
@pytest.mark.parametrize("value_width", [6, 8])  # only where widths are equal it may be fused
@pytest.mark.parametrize(
    "lengths",
    [
        (7,),
        (5, 9),
        (6, 6),
        (9, 5, 1),
        (60, 61, 61, 70, 100, 100, 120, 3, 3),
        (400, 401, 900),
        (780, 780),
    ],
    ids=str,
)
def test_each_row_attends_to_itself_alone(
    lengths: tuple[int, ...], groups: int, window: int, value_width: int
) -> None:
    torch.manual_seed(0)
    size = sum(lengths)
    parts = drawn(size, 4, 8), drawn(size, groups, 8), drawn(size, groups, value_width)
    mask = packed_mask(lengths, CPU)
    found = packed_rows(Layer, *parts, mask, sliding_window=window or None)[0]
    expected = one_by_one(*parts, lengths, window)
    torch.testing.assert_close(found, expected)
    upstream = torch.randn_like(found)
    gradients = torch.autograd.grad((found * upstream).sum(), parts)
    for one, other in zip(
        gradients, torch.autograd.grad((expected * upstream).sum(), parts), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_long_rows_keep_no_weights() -> None:
    kept = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    parts = [drawn(1000, 4, 8).detach().float().requires_grad_() for _ in range(3)]
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        packed_rows(Layer, *parts, packed_mask((400, 600), CPU))
    assert max(kept) == 4 * 1000 * 8


def test_rows_of_like_lengths_share_a_grid() -> None:
    rows = PackedRows((3, 3, 20, 60, 61, 75, 76, 100, 300, 310, 400, 400))
    shapes = [(grid.lengths, grid.num_tokens, grid.offset) for grid in rows.grids]
    assert shapes == [
        ((3, 3, 20), 32, 0),
        ((60, 61, 75), 80, 26),
        ((76,), 76, 222),
        ((100,), 100, 298),
        ((300,), 300, 398),
        ((310,), 310, 698),
        ((400, 400), 400, 1008),
    ]


def test_products_stay_in_the_type_that_autocast_asks_for() -> None:
    parts = [drawn(12, 4, 8).detach().float().requires_grad_() for _ in range(3)]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = packed_rows(Layer, *parts, packed_mask((5, 7), CPU))[0]
    assert found.dtype == torch.bfloat16
    found.float().sum().backward()
    expected = one_by_one(*parts, (5, 7), 0)
    torch.testing.assert_close(found.float(), expected, atol=0.03, rtol=0.03)
    assert all(part.grad.dtype == torch.float32 for part in parts)


@pytest.mark.parametrize("lengths", [(30, 40), (500, 800)])
def test_dropout_leaves_the_same_weights_out_in_both_passes(lengths: tuple[int, ...]) -> None:
    """Then the gradient of a value is what it adds to the answers, whatever was left out."""
    torch.manual_seed(0)
    size = sum(lengths)
    query, key, value = drawn(size, 2, 4), drawn(size, 2, 4), drawn(size, 2, 4)
    mask = packed_mask(lengths, CPU)

    def mixed(value: Tensor) -> Tensor:
        torch.manual_seed(3)
        return packed_rows(Layer, query, key, value, mask, dropout=0.5)[0]

    found = mixed(value)
    upstream = torch.randn_like(found)
    (gradient,) = torch.autograd.grad((found * upstream).sum(), value)
    change = torch.randn_like(value)
    gained = ((mixed(value + change) - found) * upstream).sum()
    torch.testing.assert_close((gradient * change).sum(), gained)
    plain = packed_rows(Layer, query, key, value, mask)[0]
    assert not torch.allclose(found, plain)
    kept = torch.stack([mixed(value), plain]).detach()
    assert torch.equal(kept[0], found), "fixed by the seed of the step"


@pytest.mark.parametrize("asked", ["softcap", "s_aux", "position_bias"])
def test_what_is_not_computed_here_is_refused(asked: str) -> None:
    parts = [drawn(5, 2, 4)] * 3
    with pytest.raises(NotImplementedError, match=asked):
        packed_rows(Layer, *parts, packed_mask((5,), CPU), **{asked: 1.0})
    with pytest.raises(NotImplementedError, match="packed rows"):
        packed_rows(Layer, *parts, torch.ones(1, 1, 5, 5))
