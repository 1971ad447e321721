"""How much a forward pass leaves behind for the backward pass, found without computing anything.

The real model code runs once on fake tensors, which have shapes but no content, while every tensor
that autograd keeps is counted. So the figure holds for any architecture, method and attention
kernel, and follows when one of them changes; no formula has to.
"""

from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from transformers import AutoModelForCausalLM

from engine.activation_functions import fuse_activation_functions
from engine.batches import collate
from engine.encode import Encoded
from engine.experts import ONE_BY_ONE, experts_of
from engine.language_model import FastPaths, LanguageModel
from engine.loss import read_batch
from engine.method import MethodOptions, MethodSpec, trainable
from engine.plan import Precision


def activation_bytes(
    config: Any,
    spec: MethodSpec,
    options: MethodOptions,
    precision: Precision,
    *,
    num_rows: int,
    row_tokens: int,
    packed: bool,
) -> int:
    """Count what autograd keeps of one micro-batch, weights and output head left out.

    Args:
        config: the base's transformers config.
        spec: the method.
        options: its options.
        precision: of the base; quantised layers keep what bf16 ones keep.
        num_rows: examples.
        row_tokens: of each of them, soft prompt included.
        packed: whether they are packed into one row, as the trainer does where it can.

    Returns:
        Bytes.
    """
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    with FakeTensorMode():
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
        model.requires_grad_(False)
        fuse_activation_functions(model)
        if experts_of(model):  # the library's own products of experts refuse fake fp32 tensors
            model.config._experts_implementation = ONE_BY_ONE
        spec.attach(model, options)
        for parameter in trainable(model).values():
            parameter.data = parameter.data.float()
        model.train()
        weights = {_identity(value) for value in [*model.parameters(), *model.buffers()]}
        kept: dict[int, int] = {}
        held = []  # alive until the end, so that no two storages share an identity

        def keep(tensor: Tensor) -> Tensor:
            held.append(tensor)
            if _identity(tensor) not in weights:
                kept[_identity(tensor)] = tensor.untyped_storage().nbytes()
            return tensor

        language_model = LanguageModel(model, None, precision, paths=FastPaths(packs=packed))
        item = Encoded((0,) * row_tokens, (False,) * (row_tokens - 1) + (True,))
        with torch.autograd.graph.saved_tensors_hooks(keep, _same):
            batch = collate([item] * num_rows, language_model)
            output = read_batch(language_model, batch, model.base_model)
        del output
    return sum(kept.values())


def _identity(tensor: Tensor) -> int:
    """Name a storage: fake ones have no address."""
    return int(StorageWeakRef(tensor.untyped_storage()).cdata)


def _same(tensor: Tensor) -> Tensor:
    return tensor
