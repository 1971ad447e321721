"""Prompts being read behind a context that they share: cache, mask and positions of a batch.

The context (task description, demonstrations, soft prompt) is read once; its keys and values are
copied into every batch. Prompts are left padded behind it, so the padding lies between context
and prompt; explicit positions make it invisible to the model.
"""

import contextlib
import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from engine.language_model import LanguageModel
from templates.errors import RunError

Ids = Sequence[int]


@contextlib.contextmanager
def evaluating(language_model: LanguageModel) -> Iterator[None]:
    """Switch a model to answering, and back to the mode it was in.

    Args:
        language_model: the model.

    Yields:
        Nothing; inside, no gradients are kept and the compute type is the model's own.
    """
    was_training = language_model.model.training
    language_model.model.eval()
    try:
        with torch.inference_mode(), language_model.autocast():
            yield
    finally:
        language_model.model.train(was_training)


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


def sees_everything(language_model: LanguageModel) -> bool:
    """Say whether every layer attends to all that was read.

    A sliding window counts columns, padding included: such models need rows of equal length.

    Args:
        language_model: the model.

    Returns:
        False where some layer has a sliding window or a recurrent state.
    """
    layers = DynamicCache(config=language_model.model.config).layers
    return all(type(layer) is DynamicLayer for layer in layers)


def can_read_side_by_side(language_model: LanguageModel) -> bool:
    """Say whether several texts may hang off one prompt, each hidden from the others.

    Args:
        language_model: the model.

    Returns:
        True where all layers see everything through a kernel that takes any mask.
    """
    kernel = language_model.model.config._attn_implementation
    return sees_everything(language_model) and kernel == "sdpa"


class Reading:
    """A batch of rows that have read the same context, and go on from there.

    Attributes:
        cache: keys and values of everything read; None before the first token.
        mask: (B, columns read) 1 where a token is real.
        lengths: (B, 1) real tokens read by each row.
    """

    def __init__(self, language_model: LanguageModel, context_ids: Ids) -> None:
        """Read the context, as one row.

        Args:
            language_model: the model, inside `evaluating`.
            context_ids: S token ids, possibly none.
        """
        self._language_model = language_model
        device = language_model.device
        self.cache: Any = None
        self.mask = torch.ones(1, 0, dtype=torch.long, device=device)
        self.lengths = torch.zeros(1, 1, dtype=torch.long, device=device)
        if context_ids:
            ids = torch.tensor([list(context_ids)], device=device)
            self.read(ids, torch.ones_like(ids), keep=1)

    def branch(self, num_copies: int) -> "Reading":
        """Copy the state, so that several texts can follow the same beginning.

        Args:
            num_copies: rows to make of each row.

        Returns:
            An independent reading with B x num_copies rows.
        """
        twin = copy.copy(self)
        twin.cache = copy.deepcopy(self.cache)
        if num_copies > 1:
            if twin.cache is not None:
                twin.cache.batch_repeat_interleave(num_copies)
            twin.mask = self.mask.repeat_interleave(num_copies, dim=0)
            twin.lengths = self.lengths.repeat_interleave(num_copies, dim=0)
        return twin

    def read_prompts(self, prompts: Sequence[Ids]) -> Tensor:
        """Read one prompt a row.

        Args:
            prompts: B prompts of any length from one token on.

        Returns:
            Logits of the token after each prompt, (B, V).
        """
        width = max(len(prompt) for prompt in prompts)
        ids = [[0] * (width - len(prompt)) + list(prompt) for prompt in prompts]
        mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        device = self._language_model.device
        tensors = torch.tensor(ids, device=device), torch.tensor(mask, device=device)
        return self.read(*tensors, keep=1)[:, -1]

    def read(self, ids: Tensor, mask: Tensor, *, keep: int) -> Tensor:
        """Go on reading.

        Args:
            ids: (B, Q) next tokens.
            mask: (B, Q) 1 where a token is real.
            keep: for how many of the last columns to compute logits.

        Returns:
            Logits in fp32, (B, keep, V), soft prompt rows left out.
        """
        positions = (self.lengths + mask.cumsum(1) - 1).clamp(min=0)
        self.mask = torch.cat([self.mask.expand(len(mask), -1), mask], dim=1)
        self.lengths = self.lengths + mask.sum(1, keepdim=True)
        return self._forward(ids, self.mask, positions, keep)

    def read_side_by_side(self, texts: Sequence[Ids]) -> Tensor:
        """Read several texts after each row, none of which sees another.

        Ends the reading: what comes after would see all of them.

        Args:
            texts: L texts; the same for every row.

        Returns:
            Logits at all their tokens, (B, Q, V) with Q the tokens of all texts in turn.
        """
        device = self._language_model.device
        batch_size = len(self.mask)
        owner = torch.tensor([n for n, text in enumerate(texts) for _ in text], device=device)
        depth = torch.tensor([at for text in texts for at in range(len(text))], device=device)
        ids = torch.tensor([token for text in texts for token in text], device=device)
        own = (owner[:, None] == owner) & (depth[:, None] >= depth)  # (Q, Q)
        width = len(ids)
        mask = torch.cat(
            [
                self.mask.bool()[:, None, None].expand(-1, 1, width, -1),
                own.expand(batch_size, 1, width, width),
            ],
            dim=-1,
        )  # (B, 1, Q, read + Q)
        return self._forward(ids.expand(batch_size, -1), mask, self.lengths + depth, width)

    def keep_rows(self, rows: Sequence[int]) -> None:
        """Forget all rows but these.

        Args:
            rows: places in the batch.
        """
        index = torch.tensor(list(rows), device=self.mask.device)
        self.cache.batch_select_indices(index)
        self.mask, self.lengths = self.mask[index], self.lengths[index]

    def _forward(self, ids: Tensor, mask: Tensor, positions: Tensor, keep: int) -> Tensor:
        output = self._language_model.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=keep,
        )
        self.cache = output.past_key_values
        logits: Tensor = output.logits[..., : self._language_model.vocabulary_size].float()
        return logits
