"""A tuned model as an ordinary model folder: plain layers, one type of number, no trace of us."""

from pathlib import Path

import torch
from torch import nn

from engine.base_model import load_base, locate_base
from engine.language_model import LanguageModel
from engine.layers import put_module
from engine.method import MethodSpec
from engine.plan import Precision
from engine.quantise import NF4Linear, dequantise_linear


def write_merged(folder: Path, tuned: LanguageModel, spec: MethodSpec) -> None:
    """Merge a tuned model, in place, and save it.

    Args:
        folder: an existing folder.
        tuned: the model; plain afterwards.
        spec: its method.
    """
    assert spec.merge is not None
    spec.merge(tuned.model)
    make_plain(tuned.model)
    dtype = torch.float32 if tuned.precision == "fp32" else torch.bfloat16
    for parameter in tuned.model.parameters():
        parameter.data = parameter.data.to(dtype)
    tuned.model.save_pretrained(folder)


def make_plain(model: nn.Module) -> None:
    """Decode the layers that are still held in 4 bits.

    Args:
        model: a merged model; changed in place.
    """
    for path, layer in list(model.named_modules()):
        if isinstance(layer, NF4Linear):
            put_module(model, path, dequantise_linear(layer, torch.float32))


def load_merged(folder: Path, precision: Precision) -> LanguageModel:
    """Open what `write_merged` wrote, through the door that every base goes through.

    Args:
        folder: with the tokenizer saved beside the weights.
        precision: how the base was held in training.

    Returns:
        The model in evaluation mode, computing as it did in training.
    """
    return load_base(locate_base(str(folder)), "fp32" if precision == "fp32" else "bf16")
