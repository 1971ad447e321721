"""The best few-shot prompt, looked for on validation rows with a bounded number of answers.

Several prompts are tried and thinned out in rounds: all of them on a few validation rows, the
best on more (successive halving: Jamieson and Talwalkar 2016, arXiv 1502.07943).
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.answering.reading import Progress
from engine.comparing.comparison import Search, Trial
from engine.comparing.demonstrations import Candidate, candidates, demonstrations_for
from engine.comparing.prompting import Question, answers_to, build_prompts
from engine.comparing.scoring import score_answers
from engine.language_model import LanguageModel
from templates.errors import PlanError
from templates.example import Example
from templates.render import describe_task

_ROUNDS_FOR_LABELS = (32, 96)
_ROUNDS_FOR_TEXT = (12, 36)
_KEPT_RATIO = 0.3
_MOST_CUT_RATIO = 0.02


@dataclass(frozen=True)
class FewShotPrompt:
    """A few-shot prompt and what it costs.

    Attributes:
        candidate: how it was made.
        instruction: its task description; may be "".
        demonstrations: its solved items.
        context_tokens: what it puts before every item.
    """

    candidate: Candidate
    instruction: str
    demonstrations: tuple[Example, ...]
    context_tokens: int


def search(
    language_model: LanguageModel,
    question: Question,
    *,
    train: Sequence[Example],
    validation: Sequence[Example],
    test_lengths: Sequence[int],
    seed: int,
    rounds: Sequence[int] = (),
    progress: Progress | None = None,
) -> tuple[FewShotPrompt, Search] | None:
    """Find the best few-shot prompt; the last round uses all the validation rows given.

    Args:
        language_model: the untuned base.
        question: what is asked.
        train: where demonstrations come from.
        validation: the rows that decide.
        test_lengths: tokens of each test prompt without context, so that demonstrations leave
            room for them; all that is known of the test split here.
        seed: fixes draws and rows.
        rounds: validation rows of the earlier rounds; default 32 and 96, generating 12 and 36.
        progress: called with answers done and planned.

    Returns:
        The prompt and the table of all that was tried; None where no demonstration fits.
    """
    rows = list(validation)
    random.Random(f"{seed}/rows").shuffle(rows)  # noqa: S311 - no secret
    tried = _fitting_prompts(language_model, question, train, rows, test_lengths, seed)
    if not tried:
        return None
    rounds = rounds or (_ROUNDS_FOR_LABELS if question.labels else _ROUNDS_FOR_TEXT)
    sizes = [*(size for size in rounds if size < len(rows)), len(rows)]
    counts = [
        max(min(2, len(tried)), round(len(tried) * _KEPT_RATIO**n)) for n in range(len(sizes))
    ]
    planned = sum(size * count for size, count in zip(sizes, counts, strict=True))
    scores = np.full((len(tried), len(sizes)), np.nan)
    alive = list(range(len(tried)))
    done = 0
    for turn, (size, count) in enumerate(zip(sizes, counts, strict=True)):
        alive = alive[:count]
        for number in alive:
            scores[number, turn] = _points(language_model, question, tried[number], rows[:size])
            done += size
            if progress is not None:
                progress(done, planned)
        # Equal scores: the shorter prompt, then the earlier candidate.
        alive.sort(key=lambda n: (-scores[n, turn], tried[n].context_tokens, n))
    first = scores[:, 0]
    table = Search(
        metric=question.template.metric,
        trials=tuple(
            _trial(prompt, scores[number], sizes, chosen=number == alive[0])
            for number, prompt in enumerate(tried)
        ),
        first_rows=sizes[0],
        lowest=float(first.min()),
        highest=float(first.max()),
        deviation=float(first.std()),
    )
    return tried[alive[0]], table


def _fitting_prompts(
    language_model: LanguageModel,
    question: Question,
    train: Sequence[Example],
    rows: Sequence[Example],
    test_lengths: Sequence[int],
    seed: int,
) -> list[FewShotPrompt]:
    """All different prompts that cut hardly any item."""
    bare = build_prompts(language_model, rows, question)
    lengths = np.array([len(bare.context_ids) + len(ids) for ids in bare.prompt_ids])
    everything = np.concatenate([lengths, np.asarray(test_lengths, dtype=lengths.dtype)])
    window = language_model.context_tokens + language_model.num_virtual_tokens
    room = window - bare.answer_tokens(question)
    description = describe_task(question.template, question.labels)
    known = {row for example in train for row in example.source_rows}
    found: dict[tuple[object, ...], FewShotPrompt] = {}
    for candidate in candidates(question.template):
        shots = demonstrations_for(candidate, train, question.template, seed=seed)
        assert all(known.issuperset(shot.source_rows) for shot in shots)
        assert all(shot.origin == "upload" for shot in shots)
        instruction = description if candidate.instruction else ""
        key = (instruction, *(shot.source_rows for shot in shots))
        if len(shots) < candidate.num_shots or key in found:
            continue
        try:
            item = build_prompts(
                language_model, rows[:1], question, instruction=instruction, demonstrations=shots
            )
        except PlanError:
            continue
        added = len(item.context_ids) + len(item.prompt_ids[0]) - int(lengths[0])
        if item.cut or (everything + added > room).mean() > _MOST_CUT_RATIO:
            continue
        found[key] = FewShotPrompt(candidate, instruction, shots, added)
    return list(found.values())


def _points(
    language_model: LanguageModel,
    question: Question,
    prompt: FewShotPrompt,
    rows: Sequence[Example],
) -> float:
    prompts = build_prompts(
        language_model,
        rows,
        question,
        instruction=prompt.instruction,
        demonstrations=prompt.demonstrations,
    )
    answers = answers_to(language_model, prompts, question)
    return score_answers(question.template.metric, answers, rows, question).value


def _trial(
    prompt: FewShotPrompt, scores: np.ndarray, sizes: Sequence[int], *, chosen: bool
) -> Trial:
    last = int((~np.isnan(scores)).sum()) - 1
    candidate = prompt.candidate
    return Trial(
        num_shots=candidate.num_shots,
        draw=candidate.draw,
        selection=candidate.selection,
        order=candidate.order,
        instruction=candidate.instruction,
        context_tokens=prompt.context_tokens,
        score=float(scores[last]),
        first_score=float(scores[0]),
        num_rows=sizes[last],
        chosen=chosen,
    )
