"""Quantisers against examples worked out by hand, against bitsandbytes, and what they promise."""

from collections.abc import Callable
from pathlib import Path

import bitsandbytes.functional
import pytest
import torch
from torch import Tensor, nn

from engine.layers import linear_layers
from engine.quantise import NF4Linear
from engine.reference_quantisers import (
    WAYS,
    Groups,
    Quantised,
    absmax,
    int8_product,
    layer_errors,
    nf4,
    nf4_levels,
    output_errors,
    zero_point,
)
from templates.errors import ModelError
from tests.engine.tiny import ARCHITECTURES, tiny_model

# 127 / 5.4 = 23.5 codes a unit.
BY_HAND = torch.tensor([1.2, -0.5, -4.3, 1.2, -3.1, 0.8, 2.4, 5.4])


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_absmax_by_hand() -> None:
    found = absmax(BY_HAND)
    assert found.scales.item() == pytest.approx(23.5, abs=0.02)
    assert found.codes.tolist() == [[28, -12, -101, 28, -73, 19, 56, 127]]
    assert found.decoded()[0].item() == pytest.approx(28 / 23.5185, abs=1e-4)


def test_zero_point_by_hand() -> None:
    # From -4.3 to 5.4 are 9.7, so 26.29 codes a unit, and 0 is round(113.04) - 128.
    found = zero_point(BY_HAND)
    assert found.scales.item() == pytest.approx(26.289, abs=1e-3)
    assert found.zeros.item() == -15
    assert found.codes.tolist() == [[17, -28, -128, 17, -96, 6, 48, 127]]


@pytest.mark.parametrize("way", [absmax, zero_point])
@pytest.mark.parametrize("groups", ["tensor", "row", 5, 64])
def test_no_number_is_off_by_more_than_half_a_code_and_zero_stays(
    way: Callable[[Tensor, Groups], Quantised], groups: Groups
) -> None:
    x = drawn(6, 50)
    x[2] = 0
    x[3, 7] = 40
    found = way(x, groups)
    assert found.decoded().shape == x.shape
    assert (found.decoded()[x == 0] == 0).all()
    allowed = (0.501 / found.scales).expand_as(found.codes).flatten()[: x.numel()]
    # The largest of a range may lose half a code more to the rounding of its zero.
    allowed = allowed * (2 if way is zero_point else 1)
    assert ((found.decoded() - x).abs().flatten() <= allowed).all()


def test_smaller_groups_suffer_less_from_an_outlier() -> None:
    x = drawn(8, 64)
    x[0, 0] = 100
    errors = [float((absmax(x, groups).decoded() - x).norm()) for groups in ("tensor", "row", 16)]
    assert errors[0] > 2 * errors[1] > 2 * errors[2]


def test_zero_point_wastes_no_code_on_numbers_of_one_sign() -> None:
    x = drawn(1000).abs()
    errors = [float((way(x).decoded() - x).norm()) for way in (zero_point, absmax)]
    assert errors[0] < 0.6 * errors[1]


def test_the_levels_are_those_of_the_paper_and_the_kernels() -> None:
    paper = [-1, -0.7, -0.53, -0.39, -0.28, -0.18, -0.09, 0, 0.08, 0.16, 0.25, 0.34, 0.44, 0.56,
             0.72, 1]  # fmt: skip
    assert nf4_levels() == pytest.approx(paper, abs=0.006)
    _, state = bitsandbytes.functional.quantize_4bit(drawn(64, 64), quant_type="nf4")
    assert nf4_levels() == pytest.approx(state.code.tolist(), abs=1e-6)


def test_four_bits_are_those_of_the_kernels() -> None:
    x = drawn(64, 128)
    codes, state = bitsandbytes.functional.quantize_4bit(
        x.view(-1, 64), blocksize=64, quant_type="nf4"
    )
    kernel = bitsandbytes.functional.dequantize_4bit(codes, state).view_as(x)
    assert torch.allclose(nf4(x), kernel, atol=1e-6)
    layer = NF4Linear(x, None)
    double = nf4(x, is_double=True)
    # The kernels keep scales as 8-bit floats and we as 8-bit whole numbers: both cost little.
    assert (double - layer.dequantised(torch.float32)).norm() < 0.02 * x.norm()
    assert 0 < (double - nf4(x)).norm() < 0.02 * x.norm()
    error = float((nf4(x) - x).norm() / x.norm())
    assert 0.08 < error < 0.1, "of normal numbers in blocks of 64"


def test_outliers_are_multiplied_as_they_are() -> None:
    x, weight = drawn(20, 96), drawn(32, 96, seed=1)
    x[:, 5] *= 60
    exact = x @ weight.T
    plain = int8_product(x, weight, float("inf"))
    apart = int8_product(x, weight)
    assert (plain - exact).norm() > 4 * (apart - exact).norm()
    assert torch.allclose(int8_product(x, weight, 0.0), exact), "all are outliers"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_layer_of_a_model_is_looked_at(tmp_path: Path, architecture: str) -> None:
    model = tiny_model(tmp_path, architecture)
    hooks = [len(module._forward_pre_hooks) for module in model.model.modules()]
    found = list(layer_errors(model, "the parcel did not arrive"))
    assert [one.path for one in found] == [layer.path for layer in linear_layers(model.model)]
    assert all(0 < one.errors["int8, a scale a row"] < one.errors["NF4"] < 0.3 for one in found)
    assert hooks == [len(module._forward_pre_hooks) for module in model.model.modules()]
    with pytest.raises(ModelError, match="no tokens"):
        list(layer_errors(model, ""))


def test_a_base_without_layers_is_refused(tmp_path: Path) -> None:
    model = tiny_model(tmp_path, "llama")
    model.model.model.layers = nn.ModuleList()
    with pytest.raises(ModelError, match="no linear layers"):
        list(layer_errors(model, "a text"))


def test_every_way_is_compared() -> None:
    errors = output_errors(drawn(20, 96), drawn(32, 96, seed=1))
    assert errors.keys() == WAYS.keys()
    assert errors["int8, a scale a row"] < errors["int8, a scale for all"] < errors["NF4"] < 0.12
    assert output_errors(torch.zeros(2, 8), torch.zeros(3, 8)) == dict.fromkeys(WAYS, 0.0)
