"""Attention tuning: the projections of the attention learn in full, everything else is frozen.

W <- W - step for W in {W_q, W_k, W_v, W_o} of every block, or the fused ones that hold several of
them, with their biases; feed-forward layers, norms and embeddings stay. About a third of a block's
weights in a usual model: gradients and moments take a third of full fine-tuning's memory.
Touvron et al. 2022, "Three things everyone should know about Vision Transformers",
arXiv 2203.09795.
"""

from typing import Any

from engine.layers import attention_layers
from engine.method import MethodOptions, MethodSpec
from engine.methods import full
from engine.plan import Schedule
from templates.errors import PlanError


class Options(MethodOptions):
    """Attention tuning has no options of its own."""


def attach(model: Any, options: Options) -> None:
    """Let the attention's projections learn.

    Args:
        model: a transformers causal language model, also on the meta device.
        options: none.

    Raises:
        PlanError: the model has no attention that could be found.
    """
    layers = attention_layers(model)
    if not layers:
        raise PlanError(
            "No attention was found in this base",
            where="method attn",
            fix="Choose lora, or full fine-tuning",
        )
    for layer in layers:
        layer.module.requires_grad_(True)


SPEC = MethodSpec(
    name="attn",
    title="Attention tuning",
    family="selective",
    summary="The attention's projections learn in full; all other weights stay as they are.",
    paper="Touvron et al. 2022, arXiv 2203.09795",
    options=Options,
    # Fewer weights learn than in full fine-tuning, so each has further to go.
    schedule=Schedule(learning_rate=1e-4, epochs=4),
    rate_at_width=4096,
    attach=attach,
    detach=full.detach,
    when_to_choose="When full fine-tuning would do well, but takes too much memory or forgets too "
    "much of what the base knew.",
    quality_place=31,
    least_rows=500,
    merge=full.merge,
)
