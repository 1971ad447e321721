import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from engine.quantise import NF4Linear, dequantise_linear, quantise_linear


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradient_is_that_of_the_decoded_weight_also_after_an_evaluation(
    dtype: torch.dtype,
) -> None:
    layer = NF4Linear(torch.randn(48, 100), torch.randn(48))
    x = torch.randn(5, 100, dtype=dtype, requires_grad=True)
    with torch.no_grad():
        layer(x)
    y = layer(x)
    y.backward(torch.ones_like(y))
    weight = layer.dequantised(dtype)
    assert x.grad is not None
    assert torch.allclose(x.grad, torch.ones(5, 48, dtype=dtype) @ weight, rtol=1e-2)
    assert torch.allclose(y, nn.functional.linear(x, weight) + layer.bias.to(dtype), atol=1e-4)


def test_gpt2_layers_lie_the_other_way_round() -> None:
    conv = Conv1D(24, 64)
    layer = quantise_linear(conv)
    assert (layer.in_features, layer.out_features) == (64, 24)
    x = torch.randn(3, 64)
    assert torch.allclose(layer(x), conv(x), atol=0.3)


def test_dequantised_layer_computes_the_same() -> None:
    layer = NF4Linear(torch.randn(48, 64), torch.randn(48))
    plain = dequantise_linear(layer, torch.float32)
    x = torch.randn(3, 64)
    assert torch.allclose(layer(x), plain(x), atol=1e-5)
