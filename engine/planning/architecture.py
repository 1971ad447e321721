"""What a base with a method on it is made of, counted on the meta device: no weight is read."""

import math
from dataclasses import dataclass
from typing import Any

from torch import nn

from engine.base_model import BaseFolder, load_skeleton
from engine.experts import experts_of, experts_per_token
from engine.layers import blocks_of, final_norm, linear_layers
from engine.method import MethodOptions, MethodSpec, count_parameters, trainable
from engine.plan import BITS, Precision
from engine.quantise import BLOCK_SIZE, KINDS

_SCALE_BYTES = 4  # fp32
_SCALES_PER_BLOCK = 256  # double quantisation: one fp32 scale for so many 8-bit scales
_NF4_TABLES_BYTES = 256 * 4 + 16 * 4 + 4  # of each layer: scale codes, NF4 levels, offset


@dataclass(frozen=True)
class Architecture:
    """Counts by role, with the method attached.

    Attributes:
        config: the base's transformers config.
        num_parameters: base and method.
        num_trainable: what learns.
        largest_learned: values of the largest tensor that learns.
        frozen_bytes: what the frozen weights take in the planned precision.
        frozen_linear: weights of frozen linear layers.
        learned_linear: weights of linear layers that learn, the method's own included.
        added_linear: weights of linear layers that the method adds. Both count multiplications a
            token, where a method's layer says how many (`products_per_token`).
        quantised_linear: weights held in 8 or 4 bits.
        expert_weights: weights of experts in 3-D, which are never quantised; what a token passes
            of them is among the linear layers' weights.
        num_layers: blocks.
        num_stem_layers: the lowest of them, in and below which nothing learns.
        stem_linear: weights of their linear layers.
        width: D.
        attention_width: heads times head width.
        head_weights: of the output head, which may share the embedding.
        head_learns: whether they learn.
    """

    config: Any
    num_parameters: int
    num_trainable: int
    largest_learned: int
    frozen_bytes: int
    frozen_linear: int
    learned_linear: int
    added_linear: int
    quantised_linear: int
    expert_weights: int
    num_layers: int
    num_stem_layers: int
    stem_linear: int
    width: int
    attention_width: int
    head_weights: int
    head_learns: bool

    @property
    def vocabulary_size(self) -> int:
        """Rows of the output head."""
        return int(self.config.vocab_size)

    @property
    def context_tokens(self) -> int:
        """Positions the base knows."""
        return int(getattr(self.config, "max_position_embeddings", None) or 2048)


def look_at(
    base: BaseFolder, spec: MethodSpec, options: MethodOptions, precision: Precision
) -> Architecture:
    """Count a base with a method on it.

    Args:
        base: from `locate_base`.
        spec: the method.
        options: its options.
        precision: how the frozen weights will be held.

    Returns:
        The counts.
    """
    model = load_skeleton(base)
    base_parameters = {id(value) for value in model.parameters()}
    linear = {
        id(value): value.numel()
        for layer in linear_layers(model)
        for value in layer.module.parameters()
        if value.dim() > 1
    }
    num_rows = {
        id(value): layer.out_features
        for layer in linear_layers(model)
        for value in layer.module.parameters()
        if value.dim() > 1
    }
    experts = [weight for _, module in experts_of(model) for weight in module.parameters()]
    products = linear | {
        id(weight): weight.numel() * experts_per_token(model.config) // len(weight)
        for weight in experts
    }
    spec.attach(model, options)
    learned = trainable(model)
    learned_ids = {id(value) for value in learned.values()}
    head = model.get_output_embeddings().weight
    embedding = {id(value) for value in model.get_input_embeddings().parameters()}
    tables = {id(head), *embedding}
    blocks = blocks_of(model)[1]
    behind = [model.get_output_embeddings(), *([norm] if (norm := final_norm(model)) else [])]
    if learned_ids <= {id(value) for module in behind for value in module.parameters()} - embedding:
        stem = blocks
    else:
        stem = blocks[: 0 if embedding & learned_ids else _num_frozen(blocks)]
    frozen_bytes = sum(
        value.nbytes  # of the method's own: held as it makes them
        if id(value) not in base_parameters
        else frozen_weight_bytes(
            value.numel(),
            "bf16" if precision in KINDS and id(value) not in linear else precision,
            num_rows.get(id(value), 0),
        )
        for value in model.parameters()
        if id(value) not in learned_ids
    )
    learned_linear = sum(
        products.get(id(value), value.numel())
        for value in learned.values()
        if value.dim() > 1
        and id(value) not in tables
        and (id(value) in products or id(value) not in base_parameters)
    )
    more_products = _products_beyond_weights(model)
    config = model.config
    num_heads = int(config.num_attention_heads)
    head_width = int(getattr(config, "head_dim", None) or config.hidden_size // num_heads)
    return Architecture(
        config=config,
        num_parameters=count_parameters(model.parameters()),
        num_trainable=count_parameters(learned.values()),
        largest_learned=max((value.numel() for value in learned.values()), default=0),
        frozen_bytes=frozen_bytes,
        frozen_linear=sum(size for key, size in products.items() if key not in learned_ids),
        learned_linear=learned_linear + more_products,
        added_linear=sum(
            value.numel()
            for value in model.parameters()
            if value.dim() > 1 and id(value) not in base_parameters and id(value) not in tables
        )
        + more_products,
        quantised_linear=sum(linear.values()) if precision in KINDS else 0,
        expert_weights=sum(weight.numel() for weight in experts),
        num_layers=int(config.num_hidden_layers),
        num_stem_layers=len(stem),
        stem_linear=sum(
            products.get(id(value), 0) for block in stem for value in block.parameters()
        ),
        width=int(config.hidden_size),
        attention_width=num_heads * head_width,
        head_weights=head.numel(),
        head_learns=id(head) in learned_ids,
    )


def _products_beyond_weights(model: nn.Module) -> int:
    """Count what factors multiplied with each other cost a token beyond one product a value."""
    more = 0
    for module in model.modules():
        products = getattr(module, "products_per_token", None)
        if isinstance(products, int):
            own = module.parameters(recurse=False)
            more += products - sum(value.numel() for value in own if value.dim() > 1)
    return more


def _num_frozen(blocks: list[nn.Module]) -> int:
    """Count the blocks before the first in which something learns."""
    learning = [any(value.requires_grad for value in block.parameters()) for block in blocks]
    return learning.index(True) if True in learning else 0


def frozen_weight_bytes(num_weights: int, precision: Precision, num_rows: int = 0) -> int:
    """Compute what one frozen tensor takes; at int8 and nf4 a linear layer's weight.

    At int8 a row shares one fp32 scale. Dettmers et al. 2022, arXiv 2208.07339. At nf4 a block of
    64 weights is 32 bytes of codes and one 8-bit scale, 256 scales share an fp32 one: 4.127 bits a
    weight. Dettmers et al. 2023, arXiv 2305.14314. Both as engine.quantise stores them.

    Args:
        num_weights: how many.
        precision: how they are held.
        num_rows: D_out, at int8.

    Returns:
        Bytes.
    """
    if precision == "int8":
        return num_weights + _SCALE_BYTES * num_rows
    if precision != "nf4":
        return num_weights * BITS[precision] // 8
    blocks = math.ceil(num_weights / BLOCK_SIZE)
    scales = blocks + _SCALE_BYTES * math.ceil(blocks / _SCALES_PER_BLOCK)
    return blocks * BLOCK_SIZE // 2 + scales + _NF4_TABLES_BYTES
