"""Reading without padding: the tokens of all rows are one line, and attention knows the rows.

For the architectures that hand their attention to an interface. Rows come and go at any time.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from engine.answering.reading import Ids, Reading, routed
from engine.answering.slots import SLOTS, NotUnderstoodError, Pass, Slots, as_bias, row_groups
from engine.language_model import LanguageModel

_MOST_TOKENS_IN_A_PASS = 2048
# A shorter context is copied to every row, which costs less than a second look at each step.
_LEAST_SHARED_TOKENS = 64
_LAYERS = (DynamicLayer, DynamicSlidingWindowLayer)
_LAYER_TYPES = {"full_attention", "sliding_attention"}


class PackedReading(Reading):
    """Rows in slots; a slot is a row's number."""

    takes_more = True
    takes_any_lengths = True

    def __init__(
        self, language_model: LanguageModel, context_ids: Ids, num_rows: int, num_tokens: int
    ) -> None:
        """Read the context, as one row.

        Args:
            language_model: the model, inside `evaluating`.
            context_ids: S token ids, possibly none.
            num_rows: rows at once.
            num_tokens: the most that a row will read, context not counted.
        """
        self._language_model = language_model
        self._device = language_model.device
        self._dtype = torch.float32 if language_model.precision == "fp32" else torch.bfloat16
        self._windows = _windows(language_model)
        num_context = len(context_ids)
        shares = num_context >= _LEAST_SHARED_TOKENS and set(self._windows) == {None}
        self._num_before = num_context if shares else 0
        self._num_start = num_context - self._num_before
        self._memory = Slots(num_rows, self._num_start + num_tokens)
        self._lengths: list[int] = []  # columns in use, by row
        self._adapters: list[int] = []  # by row
        if num_context:
            read = self._read_context(context_ids)
            self._memory.shared, self._memory.start = (read, {}) if shares else ({}, read)

    def add(self, prompts: Sequence[Ids], adapters: Ids | None = None) -> Tensor:
        """Begin more rows, as many in a pass as a pass should hold.

        Args:
            prompts: M prompts of one token or more.
            adapters: M numbers of adapters, 0 for none.

        Returns:
            Logits of the token after each prompt, (M, V).
        """
        self._adapters += [0] * len(prompts) if adapters is None else adapters
        logits, first = [], 0
        while first < len(prompts):
            last, num_tokens = first + 1, len(prompts[first])
            while last < len(prompts) and num_tokens + len(prompts[last]) <= _MOST_TOKENS_IN_A_PASS:
                num_tokens += len(prompts[last])
                last += 1
            logits.append(self._begin(prompts[first:last]))
            first = last
        return torch.cat(logits)

    def step(self, tokens: Ids) -> Tensor:
        """Read one more token a row.

        Args:
            tokens: B token ids.

        Returns:
            Logits of the token after it, (B, V).
        """
        columns = self._tensor(self._lengths)
        self._lengths = [length + 1 for length in self._lengths]
        rows = torch.arange(self.num_rows, device=self._device)
        keys = torch.arange(max(self._lengths), device=self._device)
        now = Pass(
            memory=self._memory,
            slots=rows,
            columns=columns,
            first=0,
            num_rows=self.num_rows,
            queries=torch.zeros_like(rows),
            groups=row_groups([1] * self.num_rows, self._lengths),
            masks=self._masks(keys <= columns[:, None, None], keys, columns[:, None]),
            windows=self._windows,
        )
        return self._run(self._tensor(tokens), columns, now)

    def select(self, rows: Sequence[int]) -> None:
        """Go on with these rows in this order; only those that change their place are copied.

        Args:
            rows: numbers of rows; a row may be named several times, or not at all.
        """
        moved = [(row, place) for place, row in enumerate(rows) if row != place]
        self._lengths = [self._lengths[row] for row in rows]
        self._adapters = [self._adapters[row] for row in rows]
        self.num_rows = len(rows)
        if moved:
            sources, targets = torch.tensor(moved, device=self._device).T
            self._memory.move(sources, targets, max(self._lengths))

    def look_ahead(self, texts: Sequence[Ids]) -> Tensor:
        """Read several texts after each row; the next token is written over them.

        Args:
            texts: L texts of one token or more; the same for every row.

        Returns:
            Logits at all their tokens, (B, Q, V).
        """
        owner = self._tensor([number for number, text in enumerate(texts) for _ in text])
        depth = self._tensor([at for text in texts for at in range(len(text))])
        ids = self._tensor([token for text in texts for token in text])
        place = torch.arange(len(ids), device=self._device)
        lengths = self._tensor(self._lengths)[:, None]  # (B, 1)
        end = max(self._lengths) + len(ids)
        keys = torch.arange(end, device=self._device)
        behind = keys - lengths  # (B, end): from 0 on a token of the texts, then older leftovers
        inside = behind.clamp(0, len(ids) - 1)
        visible = (owner[inside][:, None] == owner[:, None]) & (behind < len(ids))[:, None]
        visible = visible & (depth[inside][:, None] <= depth[:, None]) | (behind < 0)[:, None]
        positions = lengths + depth  # (B, Q)
        key_positions = torch.where(behind < 0, keys, lengths + depth[inside])  # (B, end)
        rows = torch.arange(self.num_rows, device=self._device)
        now = Pass(
            memory=self._memory,
            slots=rows.repeat_interleave(len(ids)),
            columns=(lengths + place).flatten(),
            first=0,
            num_rows=self.num_rows,
            queries=place.repeat(self.num_rows),
            groups=row_groups(
                [len(ids)] * self.num_rows, [length + len(ids) for length in self._lengths]
            ),
            masks=self._masks(visible, key_positions[:, None], positions),
            windows=self._windows,
        )
        logits = self._run(ids.repeat(self.num_rows), positions.flatten(), now)
        return logits.view(self.num_rows, len(ids), -1)

    def _begin(self, prompts: Sequence[Ids]) -> Tensor:
        """Read prompts in new rows; logits (M, V) at their ends."""
        start, first = self._num_start, self.num_rows
        sizes = self._tensor([len(prompt) for prompt in prompts])
        num_queries = max(len(prompt) for prompt in prompts)
        queries = self._tensor([at for prompt in prompts for at in range(len(prompt))])
        grid = start + torch.arange(num_queries, device=self._device)[None]  # (1, Q)
        keys = torch.arange(start + num_queries, device=self._device)
        rows = first + torch.arange(len(prompts), device=self._device)
        # Without a beginning that lies in the slots already, each row sees this pass only.
        now = Pass(
            memory=self._memory,
            slots=rows.repeat_interleave(sizes),
            columns=start + queries,
            first=first,
            num_rows=len(prompts),
            queries=queries,
            groups=row_groups(
                [len(prompt) for prompt in prompts], [start + len(prompt) for prompt in prompts]
            ),
            masks=self._masks(keys <= grid[..., None] if start else None, keys, grid),
            windows=self._windows,
        )
        ids = self._tensor([token for prompt in prompts for token in prompt])
        logits = self._run(ids, start + queries, now, keep=sizes.cumsum(0) - 1)
        self.num_rows += len(prompts)
        self._lengths += [start + len(prompt) for prompt in prompts]
        return logits

    def _read_context(self, context_ids: Ids) -> dict[int, tuple[Tensor, Tensor]]:
        columns = torch.arange(len(context_ids), device=self._device)
        now = Pass(
            memory=None,
            slots=torch.zeros_like(columns),
            columns=columns,
            first=0,
            num_rows=1,
            queries=columns,
            groups=(),
            masks=self._masks(None, columns, columns[None]),
            windows=self._windows,
        )
        # What stands before the rows is not yet known to `_run`.
        self._run(self._tensor(context_ids), columns - self._num_before, now, keep=columns[-1:])
        return now.read

    def _masks(
        self, visible: Tensor | None, keys: Tensor, queries: Tensor
    ) -> dict[int | None, Tensor | None]:
        """Make the mask of each kind of layer, where it needs one.

        `visible` (B, Q, K) says where a query may look; None: at what is not behind it. Positions
        are (K,) or (B, 1, K) of keys, and (B, Q) of queries.
        """
        masks: dict[int | None, Tensor | None] = {}
        for window in set(self._windows):
            reaches_all = window is None or keys.shape[-1] <= window
            if visible is None and reaches_all:
                masks[window] = None
                continue
            seen = keys <= queries[..., None] if visible is None else visible
            if window is not None and not reaches_all:
                seen = seen & (keys > queries[..., None] - window)
            masks[window] = as_bias(seen, self._dtype)
        return masks

    def _run(self, ids: Tensor, positions: Tensor, now: Pass, keep: Tensor | None = None) -> Tensor:
        """Logits (T, V) of tokens at positions (T,) behind what is shared, or only of some."""
        model = self._language_model.model
        kernel = model.config._attn_implementation
        model.config._attn_implementation = SLOTS
        try:
            with routed(self._language_model, self._adapters, now.slots):
                output = model(
                    input_ids=ids[None],
                    position_ids=self._num_before + positions[None],
                    slots_pass=now,
                    use_cache=False,
                    logits_to_keep=0 if keep is None else keep,
                )
        finally:
            model.config._attn_implementation = kernel
        logits: Tensor = output.logits[0, :, : self._language_model.vocabulary_size].float()
        return logits

    def _tensor(self, numbers: Sequence[int]) -> Tensor:
        return torch.tensor(numbers, device=self._device)


def reads_packed(language_model: LanguageModel) -> bool:
    """Say whether a model hands all its attention to an interface, by trying one token.

    Args:
        language_model: the model, inside `evaluating`.

    Returns:
        False where some layer keeps a state of its own, or attends in an unusual way.
    """
    config = language_model.model.config
    layers = DynamicCache(config=config).layers
    types = set(getattr(config, "layer_types", None) or _LAYER_TYPES)
    if not language_model.model._supports_attention_backend or not types <= _LAYER_TYPES:
        return False
    if not layers or any(type(layer) not in _LAYERS for layer in layers):
        return False
    try:
        reading = PackedReading(language_model, [0], 1, 1)
    except NotUnderstoodError:
        return False
    return len(reading._memory.start) == len(layers)


def _windows(language_model: LanguageModel) -> tuple[int | None, ...]:
    layers = DynamicCache(config=language_model.model.config).layers
    return tuple(getattr(layer, "sliding_window", None) for layer in layers)
