"""Cross-entropy on the supervised tokens, and only on them."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from engine.batches import IGNORED, Batch
from engine.language_model import LanguageModel


def supervised_logits(language_model: LanguageModel, batch: Batch) -> tuple[Tensor, Tensor]:
    """Compute logits only where a supervised token is predicted.

    Args:
        language_model: the model.
        batch: left-padded, B x T.

    Returns:
        Logits (S, V) in fp32 and their target tokens (S,), S supervised tokens.
    """
    columns = batch.num_logits
    with language_model.autocast():
        logits = language_model.model(
            input_ids=batch.ids,
            attention_mask=batch.mask,
            position_ids=batch.positions,
            use_cache=False,
            logits_to_keep=columns,
        ).logits  # (B, columns, V)
    targets = batch.labels[:, -columns:][:, 1:]  # position t predicts token t + 1
    seen = targets != IGNORED
    return logits[:, :-1][seen].float(), targets[seen]


def loss_sum(language_model: LanguageModel, batch: Batch) -> Tensor:
    """Sum the cross-entropy over supervised tokens.

    Args:
        language_model: the model.
        batch: left-padded, B x T.

    Returns:
        A scalar; divide by the tokens of the whole optimizer step for exact accumulation.
    """
    logits, targets = supervised_logits(language_model, batch)
    return functional.cross_entropy(logits, targets, reduction="sum")


@torch.no_grad()
def evaluate_loss(
    language_model: LanguageModel,
    batches: list[Batch],
    *,
    should_stop: Callable[[], bool] = lambda: False,
) -> tuple[float, float] | None:
    """Score a split.

    Args:
        language_model: the model; left in the mode it was in.
        batches: the split.
        should_stop: asked before every batch; True abandons the evaluation.

    Returns:
        Mean cross-entropy per supervised token, and the share of tokens guessed right; None where
        it was abandoned.
    """
    was_training = language_model.model.training
    language_model.model.eval()
    scores = None
    total, right, count = 0.0, 0, 0
    for batch in batches:
        if should_stop():
            break
        logits, targets = supervised_logits(language_model, batch)
        total += float(functional.cross_entropy(logits, targets, reduction="sum"))
        right += int((logits.argmax(dim=-1) == targets).sum())
        count += len(targets)
    else:
        scores = total / count, right / count
    language_model.model.train(was_training)
    return scores
