"""Answers from a model: greedy text, or the score of every label. Token ids in, no templates."""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.comparing.reading import (
    Ids,
    Reading,
    can_read_side_by_side,
    check_room,
    evaluating,
    sees_everything,
    share,
)
from engine.language_model import LanguageModel

Progress = Callable[[int, int], None]
_UNFINISHED = "\ufffd"  # what a decoder writes for a character whose bytes are not all there
_MOST_LOGITS = 64_000_000  # fp32 numbers in one forward pass: 256 MB


def generate(
    language_model: LanguageModel,
    context_ids: Ids,
    prompts: Sequence[Ids],
    *,
    stop: str,
    max_new_tokens: int,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> list[str]:
    """Answer greedily; an answer that reaches the end of the context window ends there.

    Args:
        language_model: the model; left in the mode it was in.
        context_ids: tokens that stand before every prompt, soft prompt and opening included.
        prompts: N prompts.
        stop: the text that ends an answer; "" leaves it to the end token.
        max_new_tokens: longest answer.
        batch_size: prompts at once.
        progress: called with prompts done and N.

    Returns:
        N answers without the stop text, stripped.
    """
    check_room(language_model, context_ids, prompts, 1)
    context, rests = share(context_ids, prompts)
    answers = [""] * len(prompts)
    with evaluating(language_model):
        opened = Reading(language_model, context)
        for rows in _batches(language_model, rests, batch_size, progress):
            batch = [rests[row] for row in rows]
            texts = _decode_batch(language_model, opened, batch, stop, max_new_tokens, len(context))
            for row, text in zip(rows, texts, strict=True):
                answers[row] = text
    return answers


def generate_pieces(
    language_model: LanguageModel,
    context_ids: Ids,
    prompt: Ids,
    *,
    stop: str,
    max_new_tokens: int,
) -> Iterator[str]:
    """Answer one prompt greedily, and say each piece of text as soon as nothing can change it.

    Args:
        language_model: the model; between pieces in the mode it was in.
        context_ids: tokens that stand before the prompt, soft prompt and opening included.
        prompt: the prompt.
        stop: the text that ends an answer; "" leaves it to the end token.
        max_new_tokens: longest answer.

    Yields:
        One piece a token, often ""; joined, they are what `generate` answers.
    """
    check_room(language_model, context_ids, [prompt], 1)
    context, [rest] = share(context_ids, [prompt])
    window = language_model.context_tokens + language_model.num_virtual_tokens
    most_tokens = min(max_new_tokens, window - len(context) - len(rest))
    answer = _Answer(language_model, rest[-1], stop)
    with evaluating(language_model):
        reading = Reading(language_model, context)
        logits = reading.read_prompts([rest])
    said = ""
    while answer.add(token := int(logits.argmax(dim=-1))) and len(answer.ids) < most_tokens:
        certain = answer.certain_text
        yield certain[len(said) :]
        said = max(said, certain, key=len)
        ids = torch.tensor([[token]], device=language_model.device)
        with evaluating(language_model):
            logits = reading.read(ids, torch.ones_like(ids), keep=1)[:, -1]
    yield answer.text[len(said) :]


def score_labels(
    language_model: LanguageModel,
    context_ids: Ids,
    prompts: Sequence[Ids],
    labels: Sequence[Ids],
    *,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> NDArray[np.float64]:
    """Score every label after every prompt; the whole label counts, stop sequence included.

    Each prompt is read once. All labels then hang off its end side by side, each seeing the
    prompt and itself only; where the attention kernel takes no such mask, one by one.

    Args:
        language_model: the model; left in the mode it was in.
        context_ids: tokens that stand before every prompt, soft prompt and opening included.
        prompts: N prompts.
        labels: L completions as token ids.
        batch_size: prompts at once.
        progress: called with prompts done and N.

    Returns:
        (N, L) summed log-probabilities.
    """
    check_room(language_model, context_ids, prompts, max(len(label) for label in labels))
    context, rests = share(context_ids, prompts)
    scores = np.zeros((len(prompts), len(labels)))
    with evaluating(language_model):
        opened = Reading(language_model, context)
        for rows in _batches(language_model, rests, batch_size, progress):
            batch = [rests[row] for row in rows]
            scores[rows] = _score_batch(language_model, opened, batch, labels)
    return scores


def _batches(
    language_model: LanguageModel,
    prompts: Sequence[Ids],
    batch_size: int,
    progress: Progress | None,
) -> Iterator[list[int]]:
    """Row numbers in batches of like length, the longest first: memory runs out early or never."""
    order = sorted(range(len(prompts)), key=lambda row: -len(prompts[row]))
    may_pad = sees_everything(language_model)
    groups = [order] if may_pad else [
        list(rows) for _, rows in groupby(order, key=lambda row: len(prompts[row]))
    ]  # fmt: skip
    done = 0
    for group in groups:
        for start in range(0, len(group), batch_size):
            rows = group[start : start + batch_size]
            yield rows
            done += len(rows)
            if progress is not None:
                progress(done, len(order))


def _decode_batch(
    language_model: LanguageModel,
    opened: Reading,
    prompts: Sequence[Ids],
    stop: str,
    max_new_tokens: int,
    num_context: int,
) -> list[str]:
    """One token a step for all rows; a row that is done leaves the batch."""
    window = language_model.context_tokens + language_model.num_virtual_tokens
    limits = [min(max_new_tokens, window - num_context - len(prompt)) for prompt in prompts]
    answers = [_Answer(language_model, prompt[-1], stop) for prompt in prompts]
    reading = opened.branch(len(prompts))
    logits = reading.read_prompts(prompts)
    going = list(range(len(prompts)))
    while True:
        tokens = logits.argmax(dim=-1).tolist()
        places = [
            place
            for place, row in enumerate(going)
            if answers[row].add(tokens[place]) and len(answers[row].ids) < limits[row]
        ]
        if not places:
            return [answer.text for answer in answers]
        if len(places) < len(going):
            reading.keep_rows(places)
            going = [going[place] for place in places]
        ids = torch.tensor([[tokens[place]] for place in places], device=language_model.device)
        logits = reading.read(ids, torch.ones_like(ids), keep=1)[:, -1]


class _Answer:
    """A growing answer that knows when it has ended."""

    def __init__(self, language_model: LanguageModel, anchor: int, stop: str) -> None:
        """Start after the last token of the prompt.

        Some tokenizers drop the space before the first word they decode, so the text is always
        decoded behind that token, and a stop sequence that begins with a space is recognised.
        """
        self.ids: list[int] = []
        self._language_model = language_model
        self._anchor = [anchor] if anchor < language_model.vocabulary_size else []
        self._before = language_model.decode(self._anchor)
        self._stop = stop
        # A stop sequence has at most one token a byte; one more may hold its beginning.
        self._tail = len(stop.encode()) + 1

    def add(self, token: int) -> bool:
        """Take one more token; says whether to go on."""
        if token in self._language_model.end_ids:
            return False
        self.ids.append(token)
        if not self._stop:
            return True
        if len(self.ids) <= self._tail:
            return self._stop not in self._decoded()
        return self._stop not in self._language_model.decode(self.ids[-self._tail - 1 :])

    def _decoded(self) -> str:
        return self._language_model.decode(self._anchor + self.ids)[len(self._before) :]

    @property
    def certain_text(self) -> str:
        """The beginning of `text` that no further token can change."""
        text = self._decoded().rstrip(_UNFINISHED)
        # The end may turn out to be the beginning of the stop sequence, or blanks at the end.
        lengths = range(min(len(self._stop), len(text)), 0, -1)
        held = next((size for size in lengths if text.endswith(self._stop[:size])), 0)
        return text[: len(text) - held].strip()

    @property
    def text(self) -> str:
        """What stands before the stop sequence."""
        text = self._decoded()
        return (text.partition(self._stop)[0] if self._stop else text).strip()


def _score_batch(
    language_model: LanguageModel,
    opened: Reading,
    prompts: Sequence[Ids],
    labels: Sequence[Ids],
) -> NDArray[np.float64]:
    """Sum log-probabilities: the first token after the prompt, the others after each other."""
    reading = opened.branch(len(prompts))
    first = reading.read_prompts(prompts).log_softmax(dim=-1)[:, [label[0] for label in labels]]
    scores = first.cpu().numpy().astype(np.float64)  # (B, L)
    # The last token of a label predicts nothing that counts, so it is never read.
    longer = [number for number, label in enumerate(labels) if len(label) > 1]
    most_tokens = max(1, _MOST_LOGITS // (len(prompts) * language_model.vocabulary_size))
    side_by_side = can_read_side_by_side(language_model)
    groups = _group(labels, longer, most_tokens if side_by_side else 1)
    for group in groups:
        branch = reading if group is groups[-1] else reading.branch(1)
        texts = [labels[number][:-1] for number in group]
        targets = [token for number in group for token in labels[number][1:]]
        if side_by_side:
            logits = branch.read_side_by_side(texts)
        else:
            ids = torch.tensor([list(texts[0])] * len(prompts), device=language_model.device)
            logits = branch.read(ids, torch.ones_like(ids), keep=ids.shape[1])
        gained = _log_probabilities(logits, targets).cpu().numpy()  # (B, Q)
        column = 0
        for number, text in zip(group, texts, strict=True):
            scores[:, number] += gained[:, column : column + len(text)].sum(axis=1)
            column += len(text)
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
