"""Which faster ways of training a loaded model are right for it: tried out, never assumed.

A few tiny rows are read alone by the plain model, and then packed into one row. The logits must be
equal; and they must not be where all rows are taken for one, else a model that never looks at
where rows end would pass.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from engine.attention import packed_mask
from engine.batches import collate
from engine.encode import Encoded
from engine.language_model import FastPaths, LanguageModel
from engine.loss import supervised_logits

# Of the root mean square of the logits: rounding stays far below, reading other rows far above.
_SAME_RATIO = {"fp32": 5e-5, "bf16": 0.03, "int8": 0.03, "nf4": 0.03}
_ROWS = ((1, 5), (0, 9), (1, 6), (0, 6), (1, 7))  # which of two texts, and its first tokens
_SMALL_WINDOW = 4
_KNOWN_LAYERS = {"full_attention", "sliding_attention"}


def choose_fast_paths(language_model: LanguageModel) -> FastPaths:
    """Try out on a model, before a method is attached, what makes training it faster.

    Args:
        language_model: freshly loaded; left as it was.

    Returns:
        What was proven, and a sentence on what was not.
    """
    plain = replace(language_model, paths=FastPaths(), num_virtual_tokens=0)
    was_training = plain.model.training
    plain.model.eval()
    try:
        with torch.no_grad(), _small_windows(plain.model.config.get_text_config(), plain.model):
            return _proven(plain)
    except Exception as error:  # a model's own code may raise anything: it is trained as it is
        return FastPaths(notices=(_notice("a short cut", error),))
    finally:
        plain.model.train(was_training)


def may_pack(config: Any) -> bool:
    """Say whether a row of this architecture could lie behind another one at all.

    Args:
        config: a transformers config.

    Returns:
        False where layers look at more than what stands before a token, in a fixed window.
    """
    text = config.get_text_config()
    chunked = getattr(text, "attention_chunk_size", None)
    return not chunked and set(getattr(text, "layer_types", None) or ()) <= _KNOWN_LAYERS


def _proven(plain: LanguageModel) -> FastPaths:
    texts = [_text(plain, 9, 3), _text(plain, 7, 41)]
    alone = [_logits(plain, [text]) for text in texts]
    head = _head_apart(plain.model.config.get_text_config())
    if not _is_same(_logits(replace(plain, paths=head), texts[:1]), alone[0], plain):
        return FastPaths(notices=(_notice("calling its output head apart"),))
    rows = [_beginning(texts[which], length) for which, length in _ROWS]
    expected = torch.cat([alone[which][: length - 1] for which, length in _ROWS])
    packed = replace(head, packs=True)
    try:
        found = _logits(replace(plain, paths=packed), rows)
        as_one = _logits(replace(plain, paths=packed), rows, as_one_row=True)
        if (
            may_pack(plain.model.config)
            and _is_same(found, expected, plain)
            and not _is_same(as_one, expected, plain)
        ):
            return packed
    except Exception as error:
        return replace(head, notices=(_notice("packing examples", error),))
    return replace(head, notices=(_notice("packing examples"),))


def _logits(
    language_model: LanguageModel, rows: list[Encoded], *, as_one_row: bool = False
) -> Tensor:
    batch = collate(rows, language_model)
    if as_one_row:
        batch = replace(batch, mask=packed_mask([batch.num_tokens], language_model.device))
    return supervised_logits(language_model, batch)[0]


def _is_same(found: Tensor, expected: Tensor, language_model: LanguageModel) -> bool:
    difference = (found - expected).square().mean().sqrt()
    return bool(
        difference <= _SAME_RATIO[language_model.precision] * expected.square().mean().sqrt()
    )


def _head_apart(config: Any) -> FastPaths:
    """Read from the config what the model does to its head's output, as far as it is known."""
    return FastPaths(
        head_apart=True,
        logit_scale=float(getattr(config, "logit_scale", None) or 1.0)
        / float(getattr(config, "logits_scaling", None) or 1.0),
        logit_cap=float(getattr(config, "final_logit_softcapping", None) or 0.0),
    )


def _text(language_model: LanguageModel, num_tokens: int, start: int) -> Encoded:
    size = language_model.vocabulary_size
    return Encoded(tuple((start + 7 * at) % size for at in range(num_tokens)), (True,) * num_tokens)


def _beginning(text: Encoded, num_tokens: int) -> Encoded:
    return Encoded(text.ids[:num_tokens], text.supervised[:num_tokens])


@contextlib.contextmanager
def _small_windows(config: Any, model: Any) -> Iterator[None]:
    """Shrink sliding windows meanwhile, so that tiny rows are longer than they are."""
    window = getattr(config, "sliding_window", None)
    holders = [
        holder
        for holder in [config, *model.modules()]
        if window and getattr(holder, "sliding_window", None) == window
    ]
    for holder in holders:
        holder.sliding_window = _SMALL_WINDOW
    try:
        yield
    finally:
        for holder in holders:
            holder.sliding_window = window


def _notice(what: str, error: Exception | None = None) -> str:
    reason = f" ({type(error).__name__})" if error else ""
    return f"{what} was not proven to give this base's own logits{reason}: it is trained without"
