"""Reading with padding, for architectures that keep their attention to themselves.

The context (task description, demonstrations, soft prompt) is read once; its keys and values are
copied into every batch. Prompts are left padded behind it, so the padding lies between context
and prompt; explicit positions make it invisible to the model.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from engine.answering.reading import Ids, Reading, routed
from engine.language_model import LanguageModel


class PaddedReading(Reading):
    """Rows of a batch in a cache of the library; a new batch begins when the last one is done."""

    takes_more = False

    def __init__(self, language_model: LanguageModel, context_ids: Ids) -> None:
        """Read the context, as one row.

        Args:
            language_model: the model, inside `evaluating`.
            context_ids: S token ids, possibly none.
        """
        self._language_model = language_model
        # A sliding window counts columns, padding included; a recurrent state reads padding.
        self.takes_any_lengths = _sees_everything(language_model)
        config = language_model.model.config
        # Linear biases by distance are counted from a plain mask.
        self._side_by_side = (
            self.takes_any_lengths
            and config._attn_implementation == "sdpa"
            and not getattr(config, "alibi", False)
        )
        self._cache: Any = None
        self._mask = torch.ones(1, 0, dtype=torch.long, device=language_model.device)
        self._lengths = torch.zeros(1, 1, dtype=torch.long, device=language_model.device)
        self._adapters: list[int] = []  # by row
        if context_ids:
            self._read(self._tensor([context_ids]), keep=1)
        self._context = self._cache, self._mask, self._lengths

    def add(self, prompts: Sequence[Ids], adapters: Ids | None = None) -> Tensor:
        """Begin a batch, instead of the one before.

        Args:
            prompts: M prompts of one token or more.
            adapters: M numbers of adapters, 0 for none.

        Returns:
            Logits of the token after each prompt, (M, V).
        """
        self.num_rows = len(prompts)
        cache, mask, lengths = self._context
        self._cache = copy.deepcopy(cache)
        if self._cache is not None:
            self._cache.batch_repeat_interleave(self.num_rows)
        self._adapters = list(adapters or [0] * self.num_rows)
        self._mask = mask.expand(self.num_rows, -1)
        self._lengths = lengths.expand(self.num_rows, -1)
        width = max(len(prompt) for prompt in prompts)
        ids = [[0] * (width - len(prompt)) + list(prompt) for prompt in prompts]
        real = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        return self._read(self._tensor(ids), self._tensor(real), keep=1)[:, -1]

    def step(self, tokens: Ids) -> Tensor:
        """Read one more token a row.

        Args:
            tokens: B token ids.

        Returns:
            Logits of the token after it, (B, V).
        """
        return self._read(self._tensor([[token] for token in tokens]), keep=1)[:, -1]

    def select(self, rows: Sequence[int]) -> None:
        """Go on with these rows in this order.

        Args:
            rows: numbers of rows; a row may be named several times, or not at all.
        """
        self.num_rows = len(rows)
        if not rows or list(rows) == list(range(len(self._mask))):
            return
        index = self._tensor(rows)
        self._cache.reorder_cache(index)
        self._mask, self._lengths = self._mask[index], self._lengths[index]
        self._adapters = [self._adapters[row] for row in rows]

    def look_ahead(self, texts: Sequence[Ids]) -> Tensor:
        """Read several texts after each row in a copy of the cache.

        Args:
            texts: L texts of one token or more; the same for every row.

        Returns:
            Logits at all their tokens, (B, Q, V).
        """
        kept = self._cache, self._mask, self._lengths
        logits = []
        for group in [texts] if self._side_by_side else [[text] for text in texts]:
            self._cache = copy.deepcopy(kept[0])
            if self._side_by_side:
                logits.append(self._read_side_by_side(group))
            else:
                ids = self._tensor([group[0]] * self.num_rows)
                logits.append(self._read(ids, keep=ids.shape[1]))
            self._cache, self._mask, self._lengths = kept
        return torch.cat(logits, dim=1)

    def _read(self, ids: Tensor, real: Tensor | None = None, *, keep: int) -> Tensor:
        """Read (B, Q) tokens, those that are not real left out; logits (B, keep, V)."""
        mask = torch.ones_like(ids) if real is None else real
        positions = (self._lengths + mask.cumsum(1) - 1).clamp(min=0)
        self._mask = torch.cat([self._mask, mask], dim=1)
        self._lengths = self._lengths + mask.sum(1, keepdim=True)
        return self._forward(ids, self._mask, positions, keep)

    def _read_side_by_side(self, texts: Sequence[Ids]) -> Tensor:
        owner = self._tensor([number for number, text in enumerate(texts) for _ in text])
        depth = self._tensor([at for text in texts for at in range(len(text))])
        ids = self._tensor([token for text in texts for token in text])
        own = (owner[:, None] == owner) & (depth[:, None] >= depth)  # (Q, Q)
        width = len(ids)
        mask = torch.cat(
            [
                self._mask.bool()[:, None, None].expand(-1, 1, width, -1),
                own.expand(self.num_rows, 1, width, width),
            ],
            dim=-1,
        )  # (B, 1, Q, read + Q)
        return self._forward(ids.expand(self.num_rows, -1), mask, self._lengths + depth, width)

    def _forward(self, ids: Tensor, mask: Tensor, positions: Tensor, keep: int) -> Tensor:
        rows = torch.arange(len(ids), device=ids.device).repeat_interleave(ids.shape[1])
        with routed(self._language_model, self._adapters, rows):
            output = self._language_model.model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=keep,
            )
        self._cache = output.past_key_values
        logits: Tensor = output.logits[..., : self._language_model.vocabulary_size].float()
        return logits

    def _tensor(self, numbers: Sequence[Any]) -> Tensor:
        return torch.tensor(numbers, device=self._language_model.device)


def _sees_everything(language_model: LanguageModel) -> bool:
    layers = DynamicCache(config=language_model.model.config).layers
    return all(type(layer) is DynamicLayer for layer in layers)
