"""LoRA+: LoRA whose B learns faster than its A.

y = W x + (alpha / R) B A x as in LoRA; A (R, D_in) learns at the schedule's rate, B (D_out, R) at
a multiple of it. B starts at zero and A does not, so at one rate for both a wide layer learns
hardly anything from A; with B ahead both take part. The schedule's rate is therefore lower here.
Hayou et al. 2024, "LoRA+: Efficient Low Rank Adaptation of Large Models", arXiv 2402.12354.
"""

from dataclasses import replace
from functools import partial

from pydantic import Field

from engine.methods import lora
from engine.optimizers import NewOptimizer, adamw
from engine.plan import Schedule


class Options(lora.Options):
    """LoRA+'s settings: those of LoRA and how far B is ahead."""

    rate_ratio: float = Field(
        default=16,
        ge=1,
        le=1024,
        title="Rate of B",
        description="B learns at so many times the learning rate. 1: plain LoRA.",
    )


def optimizer_for(options: Options) -> NewOptimizer:
    """Let B learn at another rate.

    Args:
        options: gives the multiple.

    Returns:
        Makes AdamW with a rate for B.
    """
    return partial(adamw, rate_ratios={"lora_B": options.rate_ratio})


SPEC = replace(
    lora.SPEC,
    name="lora_plus",
    title="LoRA+",
    summary="LoRA whose second matrix learns faster than its first; gets there in fewer steps.",
    paper="Hayou et al. 2024, arXiv 2402.12354",
    options=Options,
    # A quarter of LoRA's for A, and so four times LoRA's for B.
    schedule=Schedule(learning_rate=5e-5, epochs=6),
    when_to_choose="When LoRA learns too slowly on a large base, or the task is far from what the "
    "base knows. What it publishes is an ordinary LoRA adapter.",
    quality_place=24,
    precisions=("fp32", "bf16", "int8", "nf4"),
    optimizer_for=optimizer_for,
    import_peft=None,
)
