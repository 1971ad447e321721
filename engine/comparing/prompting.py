"""The prompts of one arm, as tokens: the same cutting and the same decoding for every arm."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from engine.answering.choice import GREEDY, Choice
from engine.answering.generation import generate
from engine.answering.label_scores import score_labels
from engine.answering.reading import Progress
from engine.language_model import LanguageModel
from templates.errors import PlanError
from templates.example import Example
from templates.render import Rendered, render
from templates.template import Template

_SPARE_ANSWER_TOKENS = 4


@dataclass(frozen=True)
class Question:
    """What is asked of every arm alike.

    Attributes:
        template: the wording.
        labels: all labels in a fixed order; empty for generating tasks.
        max_new_tokens: longest generated answer.
        batch_size: most prompts at once.
        choice: how the tokens of generated answers are chosen.
    """

    template: Template
    labels: tuple[str, ...]
    max_new_tokens: int
    batch_size: int = 64
    choice: Choice = GREEDY


@dataclass(frozen=True)
class Prompts:
    """N prompts behind one context.

    Attributes:
        context_ids: soft prompt, opening, task description, demonstrations.
        prompt_ids: the items themselves.
        label_ids: the completion of each label; empty for generating tasks.
        stop: the text that ends an answer.
        cut: numbers of the items whose start was cut to fit.
    """

    context_ids: tuple[int, ...]
    prompt_ids: tuple[tuple[int, ...], ...]
    label_ids: tuple[tuple[int, ...], ...]
    stop: str
    cut: frozenset[int]

    @property
    def tokens_per_item(self) -> float:
        """Mean length of a whole prompt, context included."""
        return len(self.context_ids) + float(np.mean([len(ids) for ids in self.prompt_ids]))

    def answer_tokens(self, question: Question) -> int:
        """Count the tokens that an answer may need.

        Args:
            question: says how long a generated answer may get.

        Returns:
            The longest label, or the longest generated answer.
        """
        return max((len(ids) for ids in self.label_ids), default=question.max_new_tokens)


def build_prompts(
    language_model: LanguageModel,
    examples: Sequence[Example],
    question: Question,
    *,
    instruction: str = "",
    demonstrations: Sequence[Example] = (),
) -> Prompts:
    """Render and tokenise the items of an arm, as training does.

    Args:
        language_model: gives tokenizer, chat template, soft prompt and context size.
        examples: N items.
        question: what is asked.
        instruction: task description shown first.
        demonstrations: solved items shown next.

    Returns:
        The prompts; where one is too long its start is cut.

    Raises:
        PlanError: context and answer alone fill the window.
    """

    def rendered_of(example: Example) -> Rendered:
        return render(
            example,
            question.template,
            tokenizer=language_model.tokenizer,
            demonstrations=demonstrations,
            instruction=instruction,
        )

    items = [rendered_of(example) for example in examples]
    pieces = [
        [token for segment in item.segments[:-1] for token in language_model.encode(segment.text)]
        for item in items
    ]
    if len({item.context for item in items}) == 1:
        context = language_model.context_ids(items[0])
    else:  # a chat template that merges the task description into each item
        context = language_model.virtual_token_ids + language_model.opening_ids()
        pieces = [
            language_model.encode(item.context) + ids
            for item, ids in zip(items, pieces, strict=True)
        ]
    labelled = [
        rendered_of(replace(examples[0], label=label)).completion for label in question.labels
    ]
    label_ids = tuple(tuple(language_model.encode(text)) for text in labelled)
    answer_tokens = max((len(ids) for ids in label_ids), default=question.max_new_tokens)
    window = language_model.context_tokens + language_model.num_virtual_tokens
    room = window - len(context) - answer_tokens
    if room < 1:
        raise PlanError(
            f"The prompt's fixed part ({len(context)} tokens) and an answer of {answer_tokens} "
            f"tokens do not fit the context of {window}",
            fix="Shorten the task description or the answers, or choose a base with a longer "
            "context",
        )
    return Prompts(
        context_ids=tuple(context),
        prompt_ids=tuple(tuple(ids[-room:]) for ids in pieces),
        label_ids=label_ids,
        stop=items[0].stop,
        cut=frozenset(number for number, ids in enumerate(pieces) if len(ids) > room),
    )


def answers_to(
    language_model: LanguageModel,
    prompts: Prompts,
    question: Question,
    *,
    progress: Progress | None = None,
) -> list[str]:
    """Answer every prompt: the likeliest label, or text.

    Args:
        language_model: the model.
        prompts: N prompts.
        question: what is asked.
        progress: called with prompts done and N.

    Returns:
        N labels or texts.
    """
    if question.labels:
        scores = score_labels(
            language_model,
            prompts.context_ids,
            prompts.prompt_ids,
            prompts.label_ids,
            batch_size=question.batch_size,
            progress=progress,
        )
        return [question.labels[number] for number in scores.argmax(axis=1)]
    return generate(
        language_model,
        prompts.context_ids,
        prompts.prompt_ids,
        stop=prompts.stop,
        max_new_tokens=question.max_new_tokens,
        batch_size=question.batch_size,
        choice=question.choice,
        progress=progress,
    )


def longest_answer_tokens(
    language_model: LanguageModel, examples: Sequence[Example], template: Template
) -> int:
    """Measure how long an answer may get: the longest training answer and a little more.

    Args:
        language_model: gives the tokenizer and the context size.
        examples: the training items.
        template: their wording.

    Returns:
        Tokens; at most half of the context.
    """
    tokenizer = language_model.tokenizer
    lengths = [
        len(language_model.encode(render(example, template, tokenizer=tokenizer).completion))
        for example in examples
    ]
    return min(max(lengths) + _SPARE_ANSWER_TOKENS, language_model.context_tokens // 2)
