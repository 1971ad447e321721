"""A tuned model as an ordinary model folder: plain layers, one type of number, no trace of us."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from engine.base_model import load_base, locate_base, stock_shapes
from engine.language_model import LanguageModel
from engine.layers import put_module
from engine.method import MethodSpec
from engine.plan import Precision
from engine.quantise import QuantisedLinear, dequantise_linear
from templates.errors import RunError


def hold_in_fp32(tuned: LanguageModel) -> LanguageModel:
    """Widen what is held in bf16, which is exact; quantised layers stay and decode to fp32.

    Args:
        tuned: the model; its weights are changed in place and may need twice the memory.

    Returns:
        The model, computing in fp32: what a merge computes can be compared without rounding.
    """
    for parameter in tuned.model.parameters():
        parameter.data = parameter.data.float()
    return replace(tuned, precision="fp32")


def merge_plain(tuned: LanguageModel, spec: MethodSpec) -> None:
    """Merge a tuned model, in place, into layers of the base's own kind.

    Args:
        tuned: the model; plain afterwards.
        spec: its method.
    """
    assert spec.merge is not None
    spec.merge(tuned.model)
    make_plain(tuned.model)


def write_merged(folder: Path, merged: LanguageModel, precision: Precision) -> LanguageModel:
    """Round a merged model to the type it is published in, and save it.

    Args:
        folder: an existing folder.
        merged: from `merge_plain`; changed in place.
        precision: how the base was held in training.

    Returns:
        The model as it was written.

    Raises:
        RunError: the architecture has no place for a tensor, so nobody could load it.
    """
    homeless = sorted(merged.model.state_dict().keys() - stock_shapes(merged.model.config).keys())
    if homeless:
        raise RunError(
            f"A {merged.model.config.model_type} model has no place for {homeless[0]}",
            where="form merged",
            fix="Publish the adapter",
        )
    written = replace(merged, precision=_published_precision(precision))
    dtype = torch.float32 if written.precision == "fp32" else torch.bfloat16
    for parameter in written.model.parameters():
        parameter.data = parameter.data.to(dtype)
    written.model.save_pretrained(folder)
    return written


def make_plain(model: nn.Module) -> None:
    """Decode the layers that are still quantised.

    Args:
        model: a merged model; changed in place.
    """
    for path, layer in list(model.named_modules()):
        if isinstance(layer, QuantisedLinear):
            put_module(model, path, dequantise_linear(layer, torch.float32))


def load_merged(folder: Path, precision: Precision) -> LanguageModel:
    """Open what `write_merged` wrote, through the door that every base goes through.

    Args:
        folder: with the tokenizer saved beside the weights.
        precision: how the base was held in training.

    Returns:
        The model in evaluation mode, computing as it did in training.
    """
    return load_base(locate_base(str(folder)), _published_precision(precision))


def _published_precision(precision: Precision) -> Precision:
    return "fp32" if precision == "fp32" else "bf16"
