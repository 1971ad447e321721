"""The fused activation functions are the ones that models wrote out, and keep less."""

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers.activations import FastGELUActivation, NewGELUActivation

from engine.activation_functions import fuse_activation_functions
from engine.base_model import load_base, locate_base
from tests.engine.architectures import random_model
from tests.engine.tiny import tiny_tokenizer


def _kept_bytes(function: nn.Module) -> int:
    kept = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    x = torch.randn(64, 64, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = function(x * 1)
    del result
    return sum(kept.values())


@pytest.mark.parametrize("written_out", [NewGELUActivation, FastGELUActivation])
def test_a_fused_function_gives_the_same_values_and_gradients(written_out: type[nn.Module]) -> None:
    model = nn.Sequential(nn.Linear(4, 4), written_out())
    stock = written_out()
    fuse_activation_functions(model)
    assert type(model[1]) is nn.GELU
    points = torch.cat([torch.linspace(-12, 12, 4001), torch.tensor([0.0, -100.0, 100.0])])
    found, expected = points.clone().requires_grad_(), points.clone().requires_grad_()
    one, other = model[1](found), stock(expected)
    torch.testing.assert_close(one, other, rtol=1e-6, atol=2e-6)
    one.sum().backward()
    other.sum().backward()
    torch.testing.assert_close(found.grad, expected.grad, rtol=1e-6, atol=2e-6)
    assert 2 * _kept_bytes(model[1]) < _kept_bytes(stock)


def test_a_loaded_base_has_them_and_answers_as_the_stock_model(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    stock = random_model("gpt2", vocab_size=len(tokenizer)).model
    stock.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = load_base(locate_base(str(tmp_path)), "fp32").model
    assert not any(isinstance(module, NewGELUActivation) for module in model.modules())
    ids = torch.arange(1, 9).view(1, -1)
    torch.testing.assert_close(model(ids).logits, stock(ids).logits, rtol=1e-5, atol=1e-5)
