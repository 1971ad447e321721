"""LOMO: every weight learns, and no gradient is kept.

W <- W - rate clip(dL/dW) for all W, each in the backward pass as soon as its own gradient is
there. Full fine-tuning in little more than the memory of the weights: without AdamW's two moments
and with the gradient of one tensor at a time. The step is plain gradient descent, so it needs a
far larger rate than AdamW and learns a little less from as many steps.
Lv et al. 2023, "Full Parameter Fine-tuning for Large Language Models with Limited Resources",
arXiv 2306.09782.
"""

from dataclasses import replace

from engine.methods import full
from engine.optimizers import LOMO
from engine.plan import Schedule

Options = full.Options

SPEC = replace(
    full.SPEC,
    name="lomo",
    title="LOMO",
    summary="All weights learn and nothing is kept for it: full tuning where that would not fit.",
    paper="Lv et al. 2023, arXiv 2306.09782",
    schedule=Schedule(learning_rate=1.0, epochs=4),
    rate_at_width=0,
    when_to_choose="When all weights shall learn and full fine-tuning does not fit into memory. "
    "It learns a little less from as many rows.",
    quality_place=4,
    optimizer=LOMO,
)
