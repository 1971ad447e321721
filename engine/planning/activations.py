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

from engine.language_model import LanguageModel
from engine.method import MethodOptions, MethodSpec, trainable
from engine.plan import Precision


def activation_bytes(
    config: Any,
    spec: MethodSpec,
    options: MethodOptions,
    precision: Precision,
    *,
    batch_size: int,
    num_tokens: int,
    num_columns: int,
    padded: bool,
) -> int:
    """Count what autograd keeps of one micro-batch, weights and logits left out.

    Args:
        config: the base's transformers config.
        spec: the method.
        options: its options.
        precision: of the base; 4-bit layers keep what bf16 ones keep.
        batch_size: B.
        num_tokens: T, soft prompt and padding included.
        num_columns: at the right edge, where logits are computed.
        padded: whether rows differ in length; then each attention layer keeps a (B, T, T) mask.

    Returns:
        Bytes.
    """
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    with FakeTensorMode():
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
        model.requires_grad_(False)
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

        ids = torch.zeros(batch_size, num_tokens, dtype=torch.long)
        mask = torch.ones_like(ids)
        language_model = LanguageModel(model, None, precision)
        with torch.autograd.graph.saved_tensors_hooks(keep, _same), language_model.autocast():
            output = model(
                input_ids=ids,
                attention_mask=mask if padded else None,
                position_ids=mask.cumsum(1) - 1,
                use_cache=False,
                logits_to_keep=num_columns,
            )
        del output
    return sum(kept.values())


def _identity(tensor: Tensor) -> int:
    """Name a storage: fake ones have no address."""
    return int(StorageWeakRef(tensor.untyped_storage()).cdata)


def _same(tensor: Tensor) -> Tensor:
    return tensor
