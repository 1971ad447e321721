"""Cross-entropy on the supervised tokens, and only on them.

Hidden states are picked before the output head, and the head is applied to a few hundred of them
at a time: their gradient is made in the same breath, so that all logits never stand side by side.
Where the head cannot be called apart, the model computes all logits and some are picked.
"""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from engine.attention import attending_to_packed_rows
from engine.batches import Batch
from engine.language_model import FastPaths, LanguageModel

_LOGITS_AT_ONCE = 8_000_000  # 32 MB in fp32


def logits_at_once(num_supervised: int, vocabulary_size: int) -> int:
    """Say for how many hidden states the logits stand in memory together.

    Args:
        num_supervised: S.
        vocabulary_size: V.

    Returns:
        At least one, at most S.
    """
    return max(1, min(num_supervised, _LOGITS_AT_ONCE // vocabulary_size))


def supervised_logits(language_model: LanguageModel, batch: Batch) -> tuple[Tensor, Tensor]:
    """Compute all logits that predict a supervised token.

    Args:
        language_model: the model.
        batch: from `collate`.

    Returns:
        Logits (S, V) in fp32 and their target tokens (S,), S supervised tokens.
    """
    if not language_model.paths.head_apart:
        return _picked_logits(language_model, batch), batch.targets
    head = language_model.model.get_output_embeddings()
    hidden = _predicting(language_model, batch)
    with language_model.autocast():
        logits = functional.linear(hidden, head.weight, head.bias)
    return _shaped(logits.float(), language_model.paths)[0], batch.targets


def loss_sum(language_model: LanguageModel, batch: Batch) -> Tensor:
    """Sum the cross-entropy over supervised tokens.

    Args:
        language_model: the model.
        batch: from `collate`.

    Returns:
        A scalar; divide by the tokens of the whole optimizer step for exact accumulation.
    """
    if not language_model.paths.head_apart:
        logits = _picked_logits(language_model, batch)
        return functional.cross_entropy(logits, batch.targets, reduction="sum")
    head = language_model.model.get_output_embeddings()
    hidden = _predicting(language_model, batch)
    dtype = _compute_dtype(language_model, hidden)
    loss: Tensor = _ChunkedCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden, head.weight, head.bias, batch.targets, language_model.paths, dtype
    )
    return loss


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
        for logits, targets in _logits_in_turn(language_model, batch):
            total += float(functional.cross_entropy(logits, targets, reduction="sum"))
            right += int((logits.argmax(dim=-1) == targets).sum())
            count += len(targets)
    else:
        scores = total / max(1, count), right / max(1, count)
    language_model.model.train(was_training)
    return scores


def read_batch(language_model: LanguageModel, batch: Batch, part: Any) -> Any:
    """Run the model, or its body alone, over a batch.

    Args:
        language_model: gives compute type and model.
        batch: from `collate`.
        part: `model`, or `model.base_model`, which leaves the head out.

    Returns:
        What that part returns.
    """
    inputs = {"input_ids": batch.ids, "attention_mask": batch.mask, "use_cache": False}
    if "position_ids" in inspect.signature(part.forward).parameters:
        inputs["position_ids"] = batch.positions
    with contextlib.ExitStack() as stack:
        stack.enter_context(language_model.autocast())
        if batch.is_packed:
            stack.enter_context(attending_to_packed_rows(language_model.model))
        if language_model.stem:
            stack.enter_context(language_model.stem.standing_in(batch.ids, batch.lengths))
        return part(**inputs)


def _predicting(language_model: LanguageModel, batch: Batch) -> Tensor:
    """Hidden states that predict a supervised token: (S, D)."""
    output = read_batch(language_model, batch, language_model.model.base_model)
    hidden: Tensor = output.last_hidden_state
    return hidden.flatten(0, 1).index_select(0, batch.predicting)


def _picked_logits(language_model: LanguageModel, batch: Batch) -> Tensor:
    logits: Tensor = read_batch(language_model, batch, language_model.model).logits
    return logits.flatten(0, 1).index_select(0, batch.predicting).float()


def _logits_in_turn(language_model: LanguageModel, batch: Batch) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits (C, V) in fp32 and targets (C,) of one chunk after the other, without gradients."""
    if not language_model.paths.head_apart:
        yield _picked_logits(language_model, batch), batch.targets
        return
    head = language_model.model.get_output_embeddings()
    hidden = _predicting(language_model, batch)
    hidden = hidden.to(_compute_dtype(language_model, hidden))
    weight = head.weight.to(hidden.dtype)
    size = logits_at_once(len(hidden), len(weight))
    for states, targets in zip(hidden.split(size), batch.targets.split(size), strict=True):
        logits = functional.linear(states, weight, _as(head.bias, hidden.dtype)).float()
        yield _shaped(logits, language_model.paths)[0], targets


def _shaped(logits: Tensor, paths: FastPaths) -> tuple[Tensor, Tensor | None]:
    """Do to the head's output what the model does, and tell the slope of its cap."""
    if paths.logit_scale != 1.0:
        logits = logits * paths.logit_scale
    if not paths.logit_cap:
        return logits, None
    bent = torch.tanh(logits / paths.logit_cap)
    return bent * paths.logit_cap, 1 - bent**2


def _compute_dtype(language_model: LanguageModel, hidden: Tensor) -> torch.dtype:
    return hidden.dtype if language_model.precision == "fp32" else torch.bfloat16


def _as(value: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if value is None else value.to(dtype)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Sum of -log softmax(h W^T + b)[target], its gradients made chunk by chunk on the way.

    d loss / d logits = softmax(logits) - onehot(target), times the slope of scale and cap.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        paths: FastPaths,
        dtype: torch.dtype,
    ) -> Tensor:
        learns = ctx.needs_input_grad
        of_hidden = torch.empty_like(hidden) if learns[0] else None
        of_weight = torch.zeros_like(weight) if learns[1] else None
        of_bias = torch.zeros_like(bias) if bias is not None and learns[2] else None
        cast_weight, cast_bias = weight.to(dtype), _as(bias, dtype)
        size = logits_at_once(len(hidden), len(weight))
        total = torch.zeros((), device=hidden.device)
        for start in range(0, len(hidden), size):
            chunk = slice(start, start + size)
            states, wanted = hidden[chunk].to(dtype), targets[chunk, None]
            product = functional.linear(states, cast_weight, cast_bias).float()
            logits, slope = _shaped(product, paths)
            found = logits.gather(1, wanted)
            highest = logits.amax(dim=-1, keepdim=True)
            step = logits.sub_(highest).exp_()
            normaliser = step.sum(dim=-1, keepdim=True)
            total += (normaliser.log() + highest - found).sum()
            if not any(learns):
                continue
            step.div_(normaliser)  # (C, V) softmax
            step.scatter_add_(1, wanted, torch.full_like(normaliser, -1.0))
            if slope is not None:
                step.mul_(slope)
            if paths.logit_scale != 1.0:
                step.mul_(paths.logit_scale)
            if of_bias is not None:
                of_bias += step.sum(0).to(of_bias.dtype)
            step = step.to(dtype)
            if of_hidden is not None:
                of_hidden[chunk] = step @ cast_weight
            if of_weight is not None and of_weight.dtype == dtype:
                of_weight.addmm_(step.T, states)
            elif of_weight is not None:
                of_weight += step.T @ states
        ctx.found = of_hidden, of_weight, of_bias
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        found, ctx.found = ctx.found, ()
        scaled = [part if part is None else part.mul_(gradients[0]) for part in found]
        return (*scaled, None, None, None)
