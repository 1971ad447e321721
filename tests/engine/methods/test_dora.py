"""DoRA: the paper's formula, its gradient with the length held constant, and `peft`."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from engine.layers import LinearLayer
from engine.methods.dora import DoraLinear
from engine.methods.lora import Update
from engine.quantise import NF4Linear
from tests.engine.methods.low_rank import exported, in_peft, logits_of, tuned_model
from tests.engine.tiny import ARCHITECTURES


def dora_layer(base: nn.Module) -> DoraLinear:
    torch.manual_seed(1)
    layer = DoraLinear(LinearLayer("", base.requires_grad_(False), 6, 5), Update(2, 4, 2.0, 0.0))
    for value in (layer.lora_A, layer.lora_B, layer.lora_magnitude_vector):
        value.data = torch.randn(value.shape)
    return layer


def by_the_paper(layer: DoraLinear, weight: Tensor, x: Tensor) -> Tensor:
    direction = weight + layer.scale * layer.lora_B @ layer.lora_A
    lengths = direction.norm(dim=1, keepdim=True).detach()
    return x @ (layer.lora_magnitude_vector.unsqueeze(1) * direction / lengths).T + layer.base.bias


@pytest.mark.parametrize("kind", ["linear", "conv1d", "nf4"])
def test_values_and_gradients_are_those_of_the_paper(kind: str) -> None:
    torch.manual_seed(0)
    base: nn.Module = Conv1D(5, 6) if kind == "conv1d" else nn.Linear(6, 5)
    nn.init.normal_(base.bias)
    if kind == "nf4":
        base = NF4Linear(base.weight, base.bias)
    layer = dora_layer(base)
    weight = base.dequantised(torch.float32) if kind == "nf4" else base.weight
    weight = weight.T if kind == "conv1d" else weight
    x = torch.randn(3, 4, 6, requires_grad=True)
    learned = [x, layer.lora_A, layer.lora_B, layer.lora_magnitude_vector]
    ours, theirs = layer(x), by_the_paper(layer, weight, x)
    torch.testing.assert_close(ours, theirs)
    found, expected = (torch.autograd.grad(y.square().sum(), learned) for y in (ours, theirs))
    for own, other in zip(found, expected, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-3)
    merged = layer.merged(weight)
    torch.testing.assert_close(x @ merged.T + base.bias, theirs)


def test_the_lengths_follow_what_changes_between_two_answers() -> None:
    layer = dora_layer(nn.Linear(6, 5)).eval()
    x = torch.randn(2, 6)
    layer(x)
    layer.lora_B.data.mul_(-2)  # as a checkpoint that is loaded: no version is counted up
    torch.testing.assert_close(layer(x), by_the_paper(layer, layer.base.weight, x))


def test_a_row_of_zeros_stays_a_number() -> None:
    base = nn.Linear(6, 5)
    base.weight.data[2] = 0
    layer = dora_layer(base)
    layer.lora_B.data.zero_()
    layer.lora_magnitude_vector.data.copy_(base.weight.norm(dim=1))
    x = torch.randn(2, 6)
    torch.testing.assert_close(layer(x), base(x))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_peft_computes_the_same(tmp_path: Path, architecture: str) -> None:
    tuned = tuned_model(tmp_path, architecture, "dora", rank=4)
    exported(tmp_path, tuned, "dora", rank=4)
    theirs = logits_of(in_peft(tmp_path, architecture))
    assert torch.allclose(logits_of(tuned.model), theirs, atol=1e-4)
