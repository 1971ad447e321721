"""Activation functions that compute and keep less than the ones a model came with."""

from typing import Any

from torch import nn
from transformers.activations import FastGELUActivation, NewGELUActivation

from engine.layers import put_module

# Both write 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) in eight operators, of which four
# keep a tensor as wide as the block's inner layer; one operator keeps x alone.
_WRITTEN_OUT = (NewGELUActivation, FastGELUActivation)


def fuse_activation_functions(model: Any) -> None:
    """Exchange activation functions that are written out for the one operator that is the same.

    The tanh form of GELU: Hendrycks and Gimpel, 2016, https://arxiv.org/abs/1606.08415, section 2.

    Args:
        model: a transformers model on any device; changed in place, no weight of it is.
    """
    for path, module in list(model.named_modules()):
        if isinstance(module, _WRITTEN_OUT):
            put_module(model, path, nn.GELU(approximate="tanh"))
