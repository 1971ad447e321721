"""What a model in training answers to a few validation examples, so that a person sees it learn.

Looking changes nothing: no gradient, no random number, and the model is left in the mode it was
in, so a run ends with the same bits whether anybody looks or not. Rounds are made rarer where they
would take more than a twentieth of the time, or fill the file of events.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from engine.answering.generation import stream
from engine.answering.reading import check_room
from engine.comparing.prompting import Prompts, Question, answers_to, build_prompts
from engine.events import Sample, Sampled
from engine.language_model import LanguageModel
from templates.dataset import read_dataset, read_split
from templates.example import Example
from templates.render import answer_text, conversation
from templates.template import Template

_MOST_NEW_TOKENS = 64
# Readers of a state look at the last 16 KiB of events: a round must leave room for others there.
_MOST_CHARACTERS, _MOST_BYTES = 400, 6 << 10
_ELLIPSIS = "…"
_LARGEST_SHARE, _SHORT_SECONDS = 1 / 20, 0.5
_ROUNDS_IN_A_ROW, _SECONDS_BETWEEN_ROUNDS = 30, 10.0


class Sampler:
    """The same few examples, answered again and again."""

    def __init__(
        self,
        language_model: LanguageModel,
        examples: Sequence[Example],
        template: Template,
        labels: Sequence[str] = (),
    ) -> None:
        """Prepare the prompts; nothing is answered yet.

        Args:
            language_model: the model in training.
            examples: which to answer.
            template: their wording.
            labels: all labels, where the task has them; the likeliest is then the answer.

        Raises:
            StudioError: an example leaves no room for an answer.
        """
        self._language_model = language_model
        most_tokens = min(_MOST_NEW_TOKENS, language_model.context_tokens // 2)
        self._question = Question(template, tuple(labels), most_tokens)
        self._most_bytes = _MOST_BYTES // (3 * max(1, len(examples)))
        self._shown = [self._without_answer(example) for example in examples]
        self._prompts = self._build_prompts(examples) if examples else None
        self._num_rounds, self._next_at = 0, 0.0

    def sample(self, step: int, should_stop: Callable[[], bool]) -> Iterator[Sampled]:
        """Let the model answer, where it is time for that.

        Args:
            step: the one that was taken last.
            should_stop: asked before the round and at every token; True gives the round up.

        Yields:
            One round, or nothing.
        """
        before = time.monotonic()
        if self._prompts is None or before < self._next_at or should_stop():
            return
        answers = self._answer(self._prompts, should_stop)
        if answers is None:
            return
        samples = [
            replace(shown, answer=_shortened(answer, self._most_bytes))
            for shown, answer in zip(self._shown, answers, strict=True)
        ]
        now = time.monotonic()
        self._num_rounds += 1
        self._next_at = now + self._pause_seconds(now - before)
        yield Sampled(step, tuple(samples), now - before)

    def _pause_seconds(self, seconds: float) -> float:
        cheap = seconds <= _SHORT_SECONDS
        pause = 0.0 if cheap else seconds / _LARGEST_SHARE - seconds
        return pause if self._num_rounds < _ROUNDS_IN_A_ROW else max(pause, _SECONDS_BETWEEN_ROUNDS)

    def _answer(self, prompts: Prompts, should_stop: Callable[[], bool]) -> list[str] | None:
        if self._question.labels:
            return answers_to(self._language_model, prompts, self._question)
        answers = [""] * len(prompts.prompt_ids)
        for number, text in stream(
            self._language_model,
            prompts.context_ids,
            prompts.prompt_ids,
            stop=prompts.stop,
            max_new_tokens=self._question.max_new_tokens,
        ):
            if should_stop():
                return None
            answers[number] += text
        return answers

    def _build_prompts(self, examples: Sequence[Example]) -> Prompts:
        prompts = build_prompts(self._language_model, examples, self._question)
        room = max((len(ids) for ids in prompts.label_ids), default=1)
        check_room(self._language_model, prompts.context_ids, prompts.prompt_ids, room)
        return prompts

    def _without_answer(self, example: Example) -> Sample:
        template = self._question.template
        turns = conversation(example, template)[:-1]
        alone = len(turns) == 1
        texts = [turn.content if alone else f"{turn.role}: {turn.content}" for turn in turns]
        expected = example.label if template.has_labels else answer_text(example, template)
        prompt, expected = (
            _shortened(text, self._most_bytes) for text in ("\n".join(texts), expected or "")
        )
        return Sample(prompt, expected, "", example.source_rows)


def open_sampler(language_model: LanguageModel, dataset_folder: Path, num_samples: int) -> Sampler:
    """Choose validation examples, of different labels where there are labels.

    Args:
        language_model: the model in training.
        dataset_folder: the prepared data.
        num_samples: how many; fewer where the split has fewer.

    Returns:
        The sampler; the same data gives the same examples.
    """
    dataset = read_dataset(dataset_folder)
    labels = dataset.labels if dataset.template.has_labels else ()
    examples = varied(read_split(dataset_folder, "validation"), num_samples)
    return Sampler(language_model, examples, dataset.template, labels)


def varied(examples: Sequence[Example], count: int) -> list[Example]:
    """Take the first example of each label, and then whichever comes first.

    Args:
        examples: to choose from.
        count: how many at most.

    Returns:
        The chosen.
    """
    firsts: dict[str | None, Example] = {}
    for example in examples:
        firsts.setdefault(example.label, example)
    chosen = list(firsts.values())[:count]
    rest = (example for example in examples if all(example is not other for other in chosen))
    return [*chosen, *islice(rest, count - len(chosen))]


def _shortened(text: str, most_bytes: int) -> str:
    """Cut the end off a text that is long, or would be as JSON."""
    short = text if len(text) <= _MOST_CHARACTERS else text[: _MOST_CHARACTERS - 1] + _ELLIPSIS
    while len(json.dumps(short, ensure_ascii=False).encode(errors="replace")) > most_bytes:
        short = short[: len(short) * 3 // 4] + _ELLIPSIS
    return short
