import bitsandbytes.functional
import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from engine.plan import Precision
from engine.quantise import (
    Int8Linear,
    NF4Linear,
    QuantisedLinear,
    dequantise_linear,
    quantise_linear,
)
from engine.reference_quantisers import absmax, int8_product


@pytest.mark.parametrize("shape", [(64, 96), (96, 64), (48, 100), (7, 33), (512, 256)])
def test_error_is_that_of_nf4_whatever_the_shape(shape: tuple[int, int]) -> None:
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    layer = NF4Linear(weight, None)
    error = (layer.dequantised(torch.float32) - weight).norm() / weight.norm()
    assert 0.08 < error < 0.1


def test_bytes_per_weight_are_a_good_half() -> None:
    layer = NF4Linear(torch.randn(512, 512), None)
    assert layer.num_bytes() * 8 / 512**2 == pytest.approx(4.15, abs=0.05)


def test_levels_are_the_sixteen_normal_quantiles() -> None:
    weight = torch.linspace(-1, 1, 64 * 64).reshape(64, 64)
    block = NF4Linear(weight.T.contiguous(), None)
    levels = block.scales.code.tolist()
    golden = [-1, -0.7, -0.53, -0.39, -0.28, -0.18, -0.09, 0, 0.08, 0.16, 0.25, 0.34, 0.44, 0.56,
              0.72, 1]  # fmt: skip
    assert levels == pytest.approx(golden, abs=0.01)


def test_int8_codes_are_those_of_the_reference() -> None:
    weight = torch.randn(48, 100, generator=torch.Generator().manual_seed(0))
    weight[7] = 0  # any scale would do, but none of it may become NaN
    layer = Int8Linear(weight, None)
    reference = absmax(weight, "row")
    assert torch.equal(layer.codes, reference.codes)
    assert torch.allclose(layer.dequantised(torch.float32), reference.decoded(), atol=1e-6)
    assert layer.codes[:7].abs().amax(1).eq(127).all() and not layer.codes[7].any()
    error = (layer.dequantised(torch.float32) - weight).norm() / weight.norm()
    assert 0.004 < error < 0.01


def test_int8_codes_are_those_that_bitsandbytes_loads_a_base_with() -> None:
    weight = torch.randn(48, 100, generator=torch.Generator().manual_seed(0))
    codes, largest, _ = bitsandbytes.functional.int8_vectorwise_quant(weight)
    layer = Int8Linear(weight, None)
    apart = (layer.codes.int() - codes.int()).abs()
    assert apart.max() <= 1 and apart.sum() <= 5  # where a weight lies between two codes
    assert torch.allclose(layer.scales.view(-1) * 127, largest)


def test_with_outliers_in_the_input_it_is_as_right_as_without() -> None:
    draw = torch.Generator().manual_seed(0)
    weight, x = torch.randn(64, 96, generator=draw), torch.randn(20, 96, generator=draw)
    x[:, 5] *= 60
    weight[:, 5] = 0  # else the outlier's own part would hide what happens to the others
    exact = x @ weight.T
    errors = [
        float((y - exact).norm() / exact.norm())
        for y in (
            Int8Linear(weight, None)(x),
            int8_product(x, weight),
            int8_product(x, weight, float("inf")),
        )
    ]
    assert errors[0] < 0.01 and errors[0] < errors[1] < errors[2] / 5


@pytest.mark.parametrize("kind", [Int8Linear, NF4Linear])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradient_is_that_of_the_decoded_weight_also_after_an_evaluation(
    dtype: torch.dtype, kind: type[QuantisedLinear]
) -> None:
    torch.manual_seed(0)
    layer = kind(torch.randn(48, 100), torch.randn(48))
    x = torch.randn(5, 100, dtype=dtype, requires_grad=True)
    before = torch.autograd.grad(layer(x).sum(), x)[0]
    layer.eval()
    with torch.no_grad():
        layer(x)
    layer.train()
    y = layer(x)
    y.backward(torch.ones_like(y))
    assert x.grad is not None and torch.equal(x.grad, before)
    weight = layer.dequantised(torch.float32)
    dense = x.detach().float().requires_grad_()
    expected = nn.functional.linear(dense, weight, layer.bias)
    expected.sum().backward()
    assert dense.grad is not None
    tolerance = 1e-4 if dtype == torch.float32 else 0.02 * float(expected.detach().abs().max())
    assert torch.allclose(x.grad.float(), dense.grad, rtol=0, atol=tolerance)
    assert torch.allclose(y.float(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("precision", ["int8", "nf4"])
def test_gpt2_layers_lie_the_other_way_round(precision: Precision) -> None:
    conv = Conv1D(24, 64)
    layer = quantise_linear(conv, precision)
    assert (layer.in_features, layer.out_features) == (64, 24)
    x = torch.randn(3, 64)
    assert torch.allclose(layer(x), conv(x), atol=0.3)


@pytest.mark.parametrize("kind", [Int8Linear, NF4Linear])
def test_dequantised_layer_computes_the_same(kind: type[QuantisedLinear]) -> None:
    layer = kind(torch.randn(48, 64), torch.randn(48))
    plain = dequantise_linear(layer, torch.float32)
    x = torch.randn(3, 64)
    assert torch.allclose(layer(x), plain(x), atol=1e-5)
