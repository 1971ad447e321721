"""Does what was written compute what was measured? Logits on a few real examples decide.

Rounding to bf16 can be as large as what a weak training did, so it must not hide a fault. Each
step that should change nothing (merging in fp32, reading back) is held to `check_same`; only the
one that rounds is held to `check_rounded`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.batches import collate
from engine.encode import Encoded, encode_all
from engine.language_model import LanguageModel
from engine.loss import supervised_logits
from engine.plan import Limits
from engine.publishing.publication import SMALL_SHARE
from templates.errors import RunError
from templates.example import Example
from templates.template import Template

_NUM_ITEMS, _ITEMS_AT_ONCE = 8, 2
# Largest difference of a logit as a share of the largest logit. A merged bf16 weight is rounded
# once more than its parts: measured 0.016 on the starter, 0.07 on 16 layers of random weights.
_SAME_RATIO, _ROUNDED_RATIO = 1e-4, 0.1


@dataclass(frozen=True)
class Witness:
    """What a model says to a few real examples.

    Attributes:
        items: the examples as token ids.
        logits: at their S supervised tokens, (S, V) on the CPU.
    """

    items: list[Encoded]
    logits: Tensor


@torch.no_grad()
def witness(
    language_model: LanguageModel, examples: Sequence[Example], template: Template, limits: Limits
) -> Witness:
    """Ask a model.

    Args:
        language_model: a model in evaluation mode.
        examples: real items with answers; the first few that fit are used.
        template: their wording.
        limits: the longest item of the run.

    Returns:
        Token ids and logits.
    """
    encoded, _ = encode_all(
        language_model,
        examples[: 8 * _NUM_ITEMS],
        template,
        max_length_tokens=limits.max_length_tokens,
        too_long="cut",
    )
    items = encoded[:_NUM_ITEMS]
    logits = [
        supervised_logits(
            language_model, collate(items[start : start + _ITEMS_AT_ONCE], language_model)
        )[0].cpu()
        for start in range(0, len(items), _ITEMS_AT_ONCE)
    ]
    return Witness(items, torch.cat(logits))


def largest_difference(one: Witness, other: Witness) -> float:
    """Compare what two models said.

    Args:
        one: a model's logits.
        other: another's.

    Returns:
        The largest difference of a logit.

    Raises:
        RunError: they were asked different token ids.
    """
    if one.items != other.items:
        raise RunError(
            "The published tokenizer reads the examples differently from the one in training",
            fix="Publish again; if it stays so, report it with the name of the base",
        )
    return float((one.logits - other.logits).abs().max())


def check_same(measured: Witness, published: Witness) -> float:
    """Compare what may differ by the order of additions alone, in any precision.

    Args:
        measured: before a step that should change nothing.
        published: after it.

    Returns:
        The largest difference of a logit.

    Raises:
        RunError: token ids differ, or logits do.
    """
    return _check(measured, published, _SAME_RATIO * _largest_logit(measured))


def check_rounded(measured: Witness, published: Witness, *, effect: float) -> float:
    """Compare where weights were rounded to bf16 once more.

    Too coarse to prove a merge: what it lets pass is told in `parity_sentence`.

    Args:
        measured: from the tuned model.
        published: from the rounded one.
        effect: largest difference of a logit that training made.

    Returns:
        The largest difference of a logit.

    Raises:
        RunError: token ids differ, or logits differ by more than rounding.
    """
    rounding = _ROUNDED_RATIO * _largest_logit(measured)
    return _check(measured, published, max(rounding, SMALL_SHARE * effect))


def _check(measured: Witness, published: Witness, limit: float) -> float:
    difference = largest_difference(measured, published)
    if not difference <= limit:  # also where either is not a number
        raise RunError(
            f"The published model does not compute what was measured: logits differ by "
            f"{difference:.2g}, rounding explains {limit:.2g}",
            fix="Nothing was published; try the other form, and report it with the plan",
        )
    return difference


def _largest_logit(measured: Witness) -> float:
    return max(1.0, float(measured.logits.abs().max()))
