"""How likely a model finds each of some labels: every prompt is read once, for all labels."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.answering.opening import open_reading, rows_at_once
from engine.answering.reading import Ids, Progress, Reading, check_room, evaluating, rows_to_read
from engine.language_model import LanguageModel

_MOST_LOGITS = 64_000_000  # fp32 numbers in one forward pass: 256 MB
_MOST_TOKENS_IN_A_BATCH = 2048


def score_labels(
    language_model: LanguageModel,
    context_ids: Ids,
    prompts: Sequence[Ids],
    labels: Sequence[Ids],
    *,
    batch_size: int = 64,
    adapters: Ids | None = None,
    progress: Progress | None = None,
) -> NDArray[np.float64]:
    """Score every label after every prompt; the whole label counts, stop sequence included.

    Each prompt is read once. All labels then hang off its end side by side, each seeing the
    prompt and itself only.

    Args:
        language_model: the model; left in the mode it was in.
        context_ids: tokens that stand before every prompt, soft prompt and opening included.
        prompts: N prompts.
        labels: L completions as token ids.
        batch_size: most prompts at once; fewer where they are long.
        adapters: N numbers of row adapters, for a model that has some.
        progress: called with prompts done and N.

    Returns:
        Sums of log-probabilities, (N, L).
    """
    longest_label = max(len(label) for label in labels)
    context, rests = rows_to_read(language_model, context_ids, prompts, adapters)
    check_room(language_model, context, rests, longest_label)
    owners = [0] * len(prompts) if adapters is None else adapters
    scores = np.empty((len(prompts), len(labels)))
    most_ahead = sum(len(label) - 1 for label in labels)
    num_tokens = max(len(rest) for rest in rests) + most_ahead
    num_rows = rows_at_once(language_model, batch_size, num_tokens)
    num_done = 0
    with evaluating(language_model):
        reading = open_reading(language_model, context, num_rows, num_tokens)
        for rows in _batches(rests, num_rows, any_lengths=reading.takes_any_lengths):
            first = reading.add([rests[row] for row in rows], [owners[row] for row in rows])
            scores[rows] = _score_batch(reading, first, labels, language_model.vocabulary_size)
            num_done += len(rows)
            if progress is not None:
                progress(num_done, len(prompts))
    return scores


def _batches(prompts: Sequence[Ids], num_rows: int, *, any_lengths: bool) -> Iterator[list[int]]:
    """Row numbers in batches of like length, the longest first: memory runs out early or never."""
    batch: list[int] = []
    for row in sorted(range(len(prompts)), key=lambda row: -len(prompts[row])):
        longest = len(prompts[batch[0]]) if batch else 0
        is_full = len(batch) == num_rows or (len(batch) + 1) * longest > _MOST_TOKENS_IN_A_BATCH
        if batch and (is_full or not (any_lengths or len(prompts[row]) == longest)):
            yield batch
            batch = []
        batch.append(row)
    yield batch


def _score_batch(
    reading: Reading, logits: Tensor, labels: Sequence[Ids], vocabulary_size: int
) -> NDArray[np.float64]:
    """Sum log-probabilities: of first tokens by logits (B, V), of the others after each other."""
    first = logits.log_softmax(dim=-1)[:, [label[0] for label in labels]]
    scores = first.cpu().numpy().astype(np.float64)  # (B, L)
    # The last token of a label predicts nothing that counts, so it is never read.
    longer = [number for number, label in enumerate(labels) if len(label) > 1]
    most_tokens = max(1, _MOST_LOGITS // (len(logits) * vocabulary_size))
    for group in _group(labels, longer, most_tokens):
        texts = [labels[number][:-1] for number in group]
        targets = [token for number in group for token in labels[number][1:]]
        gained = _log_probabilities(reading.look_ahead(texts), targets).cpu().numpy()  # (B, Q)
        column = 0
        for number, text in zip(group, texts, strict=True):
            scores[:, number] += gained[:, column : column + len(text)].sum(axis=1)
            column += len(text)
    reading.select([])
    return scores


def _group(labels: Sequence[Ids], longer: Sequence[int], most_tokens: int) -> list[list[int]]:
    """Label numbers in groups whose tokens fit into one pass; at least one label a group."""
    groups: list[list[int]] = []
    used = 0
    for number in longer:
        size = len(labels[number]) - 1
        if not groups or used + size > most_tokens:
            groups.append([])
            used = 0
        groups[-1].append(number)
        used += size
    return groups


def _log_probabilities(logits: Tensor, targets: Sequence[int]) -> Tensor:
    """Pick log p(target) from logits (B, Q, V) for Q targets: (B, Q)."""
    index = torch.tensor(list(targets), device=logits.device).expand(len(logits), -1)
    chosen = logits.gather(-1, index[..., None])[..., 0]
    return chosen - logits.logsumexp(dim=-1)
