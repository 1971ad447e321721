"""Which solved examples a prompt shows, and in what order; always from the training split.

What a base answers depends on how many it sees, on which, and on their order (Zhao et al. 2021,
arXiv 2102.09690; Lu et al. 2022, arXiv 2104.08786). Left out: demonstrations retrieved for each
query, which would give every row its own context to read.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from engine.comparing.comparison import Order, Selection
from templates.example import Example
from templates.template import Template

_SHOTS_FOR_LABELS = (1, 2, 4, 8, 16, 32)
_SHOTS_FOR_TEXT = (1, 2, 4, 8)
_WORDS = r"(?u)\w+|[^\w\s]"


@dataclass(frozen=True)
class Candidate:
    """One way to write the prompt.

    Attributes:
        num_shots: demonstrations in all.
        draw: number of the random draw.
        selection: any, from the shorter half, or those closest to the middle of their label.
        order: as drawn (labels taking turns), the reverse, or the most typical one last.
        instruction: whether the task description stands first.
    """

    num_shots: int
    draw: int = 0
    selection: Selection = "random"
    order: Order = "drawn"
    instruction: bool = True


def candidates(template: Template) -> list[Candidate]:
    """List the prompts to try, before it is known which of them fit.

    Args:
        template: says whether there are labels and a task description.

    Returns:
        About six for each number of demonstrations.
    """
    out = []
    for num_shots in _SHOTS_FOR_LABELS if template.has_labels else _SHOTS_FOR_TEXT:
        plain = Candidate(num_shots)
        out += [
            plain,
            replace(plain, draw=1),
            replace(plain, selection="short"),
            replace(plain, selection="typical", order="similar_last"),
        ]
        if template.has_labels:
            out += [replace(plain, draw=2), replace(plain, order="reversed")]
        if template.instruction:
            out.append(replace(plain, instruction=False))
    if not template.instruction:
        out = [replace(candidate, instruction=False) for candidate in out]
    return out


def demonstrations_for(
    candidate: Candidate, train: Sequence[Example], template: Template, *, seed: int
) -> tuple[Example, ...]:
    """Choose and order demonstrations; for labels each label gets its turn.

    Args:
        candidate: how many, which and in what order.
        train: the training split; what an augmenter made is never shown.
        template: says what the text of an item is.
        seed: fixes the draw; more shots extend fewer.

    Returns:
        As many as asked for, or fewer where the split has no more.
    """
    pool = [example for example in train if example.origin == "upload"]
    random.Random(f"{seed}/{candidate.draw}").shuffle(pool)  # noqa: S311 - no secret
    typical = _typicality(pool, template) if candidate.selection == "typical" else {}
    if candidate.selection == "typical":
        pool.sort(key=lambda example: -typical[example.source_rows])
    elif candidate.selection == "short":
        middle = float(np.median([_length(example) for example in pool])) if pool else 0.0
        pool = [example for example in pool if _length(example) <= middle]
    if template.has_labels:
        pool = _by_turns(pool)
    chosen = pool[: candidate.num_shots]
    if candidate.order == "reversed":
        chosen.reverse()
    elif candidate.order == "similar_last":
        chosen.sort(key=lambda example: typical[example.source_rows])
    return tuple(chosen)


def _length(example: Example) -> int:
    return sum(len(text) for text in example.texts())


def _by_turns(pool: Sequence[Example]) -> list[Example]:
    """One example of each label in turn, keeping the order within a label."""
    queues: dict[str | None, list[Example]] = {}
    for example in pool:
        queues.setdefault(example.label, []).append(example)
    depths = range(max((len(queue) for queue in queues.values()), default=0))
    return [queue[at] for at in depths for queue in queues.values() if at < len(queue)]


def _typicality(pool: Sequence[Example], template: Template) -> dict[tuple[int, ...], float]:
    """Cosine of each item with the middle of its label (or of all) on TF-IDF words."""
    texts = [" ".join(example.texts()) for example in pool]
    vectoriser = TfidfVectorizer(token_pattern=_WORDS)
    matrix = vectoriser.fit_transform(texts)
    groups: dict[str | None, list[int]] = {}
    for number, example in enumerate(pool):
        groups.setdefault(example.label if template.has_labels else None, []).append(number)
    out: dict[tuple[int, ...], float] = {}
    for numbers in groups.values():
        middle = np.asarray(matrix[numbers].mean(axis=0)).ravel()
        scale = float(np.linalg.norm(middle)) or 1.0
        for number, value in zip(numbers, matrix[numbers] @ middle / scale, strict=True):
            out[pool[number].source_rows] = float(value)
    return out
