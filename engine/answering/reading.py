"""Rows of text being read behind a context that they share: what every way of reading can do."""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from engine.language_model import LanguageModel
from templates.errors import RunError

Ids = Sequence[int]
Progress = Callable[[int, int], None]


class Reading(ABC):
    """Rows that have read the same context, and go on from there.

    A way of reading is made by `engine.answering.opening.open_reading`, inside `evaluating`.

    Attributes:
        num_rows: B rows that are being read.
        takes_more: whether rows may be added while others are being read.
        takes_any_lengths: whether rows that are added together may differ in length.
    """

    num_rows: int = 0
    takes_more: bool
    takes_any_lengths: bool

    @abstractmethod
    def add(self, prompts: Sequence[Ids], adapters: Ids | None = None) -> Tensor:
        """Begin more rows, behind those that are there.

        Args:
            prompts: M prompts of one token or more.
            adapters: M numbers of adapters, for a model that has some; default 0, none.

        Returns:
            Logits of the token after each prompt, (M, V) in fp32, soft prompt left out.
        """

    @abstractmethod
    def step(self, tokens: Ids) -> Tensor:
        """Read one more token a row.

        Args:
            tokens: B token ids.

        Returns:
            Logits of the token after it, (B, V).
        """

    @abstractmethod
    def select(self, rows: Sequence[int]) -> None:
        """Go on with these rows in this order.

        Args:
            rows: numbers of rows; a row may be named several times, or not at all.
        """

    @abstractmethod
    def look_ahead(self, texts: Sequence[Ids]) -> Tensor:
        """Read several texts after each row, none of which sees another, and forget them again.

        Args:
            texts: L texts of one token or more; the same for every row.

        Returns:
            Logits at all their tokens, (B, Q, V) with Q the tokens of all texts in turn.
        """


@contextlib.contextmanager
def evaluating(language_model: LanguageModel) -> Iterator[None]:
    """Switch a model to answering, and back to the mode it was in.

    Args:
        language_model: the model.

    Yields:
        Nothing; inside, no gradients are kept and the compute type is the model's own.
    """
    was_training = language_model.model.training
    if was_training:
        language_model.model.eval()
    try:
        with torch.inference_mode(), language_model.autocast():
            yield
    finally:
        if was_training:
            language_model.model.train()


def share(context_ids: Ids, prompts: Sequence[Ids]) -> tuple[list[int], list[list[int]]]:
    """Move what all prompts have in common into the context; each keeps one token at least.

    Args:
        context_ids: the context so far.
        prompts: N prompts.

    Returns:
        The longer context and the shorter prompts.
    """
    first = min(prompts, key=len)
    same = 0
    while same < len(first) - 1 and all(prompt[same] == first[same] for prompt in prompts):
        same += 1
    if not first:
        return list(context_ids[:-1]), [[*context_ids[-1:], *prompt] for prompt in prompts]
    return [*context_ids, *first[:same]], [list(prompt[same:]) for prompt in prompts]


def rows_to_read(
    language_model: LanguageModel, context_ids: Ids, prompts: Sequence[Ids], adapters: Ids | None
) -> tuple[list[int], list[list[int]]]:
    """Say what is read once for all rows, and what every row reads.

    Args:
        language_model: the model; has row adapters where some are given.
        context_ids: the context so far.
        prompts: N prompts.
        adapters: N numbers of adapters. What a token means to one is nothing to another, so a row
            then reads all by itself, behind its adapter's virtual tokens.

    Returns:
        Context and prompts.
    """
    if adapters is None:
        return share(context_ids, prompts)
    assert language_model.row_adapters is not None
    begin = language_model.row_adapters.virtual_ids
    return [], [
        [*begin(adapter), *context_ids, *prompt]
        for adapter, prompt in zip(adapters, prompts, strict=True)
    ]


def routed(
    language_model: LanguageModel, adapters: Ids, rows: Tensor
) -> contextlib.AbstractContextManager[None]:
    """Let a forward pass use the adapters of its tokens.

    Args:
        language_model: the model, with row adapters or without.
        adapters: by row; none while the context is read, which is for no adapter.
        rows: (N,) row of each token.

    Returns:
        A context manager around the pass.
    """
    known = language_model.row_adapters
    if known is None:
        return contextlib.nullcontext()
    return known.routed(torch.tensor(adapters or [0], device=rows.device)[rows])


def check_room(
    language_model: LanguageModel, context_ids: Ids, prompts: Sequence[Ids], answer_tokens: int
) -> None:
    """Refuse what would run over the context window.

    Args:
        language_model: gives the window.
        context_ids: what stands before every prompt, soft prompt included.
        prompts: the prompts.
        answer_tokens: room an answer needs.

    Raises:
        RunError: there is nothing to read, or no room for an answer.
    """
    window = language_model.context_tokens + language_model.num_virtual_tokens
    lengths = [len(context_ids) + len(prompt) for prompt in prompts]
    if min(lengths) == 0:
        raise RunError(
            "A prompt is empty: there is nothing to answer",
            where=f"item {lengths.index(0) + 1}",
            fix="Give the row some text, or use a template with fixed words",
        )
    longest = max(lengths)
    if longest + answer_tokens > window:
        raise RunError(
            f"A prompt of {longest} tokens leaves no room for an answer of {answer_tokens} in "
            f"the context of {window}",
            where=f"item {lengths.index(longest) + 1}",
            fix="Shorten the text, or choose a base with a longer context",
        )
