"""Full fine-tuning: every weight learns.

W <- W - step for all W. The yardstick the other methods are measured against; needs memory for
gradients and two moments of every weight, and yields a whole model instead of an adapter.
"""

from typing import Any

from engine.method import MethodOptions, MethodSpec
from engine.plan import Schedule


class Options(MethodOptions):
    """Full fine-tuning has no options of its own."""


def attach(model: Any, options: Options) -> None:
    """Let every weight learn.

    Args:
        model: a transformers causal language model.
        options: none.
    """
    model.requires_grad_(True)


def detach(model: Any) -> None:
    """Freeze every weight again; what was learned stays in the weights.

    Args:
        model: the model `attach` was called on.
    """
    model.requires_grad_(False)


def merge(model: Any) -> None:
    """Do nothing but freeze: the weights are the result already.

    Args:
        model: the model `attach` was called on.
    """
    detach(model)


SPEC = MethodSpec(
    name="full",
    title="Full fine-tuning",
    family="whole model",
    summary="All weights learn. Strongest where data is plentiful; costs the most memory.",
    paper="Howard and Ruder 2018, arXiv 1801.06146",
    options=Options,
    schedule=Schedule(learning_rate=3e-5, epochs=4),
    rate_at_width=4096,
    attach=attach,
    detach=detach,
    when_to_choose="When you have a thousand examples or more, a small base, and memory to spare. "
    "With little data it may forget what the base knew.",
    quality_place=2,
    least_rows=1000,
    merge=merge,
)
