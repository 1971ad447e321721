"""Answers in free text: all rows go on together, and a new row takes the place of one that ends."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile

from torch import Tensor

from engine.answering.answer import Answer, Ending
from engine.answering.beams import follow_beams
from engine.answering.choice import GREEDY, Choice, Chooser
from engine.answering.opening import open_reading, rows_at_once
from engine.answering.reading import Ids, Progress, check_room, evaluating, rows_to_read
from engine.language_model import LanguageModel

# Beginning rows takes a pass: it waits until a share of the places is free.
_LEAST_FREE_SHARE = 1 / 4


def generate(
    language_model: LanguageModel,
    context_ids: Ids,
    prompts: Sequence[Ids],
    *,
    stop: str,
    max_new_tokens: int,
    batch_size: int = 64,
    choice: Choice = GREEDY,
    adapters: Ids | None = None,
    progress: Progress | None = None,
) -> list[str]:
    """Answer; an answer that reaches the end of the context window ends there.

    Args:
        language_model: the model; left in the mode it was in.
        context_ids: tokens that stand before every prompt, soft prompt and opening included.
        prompts: N prompts.
        stop: the text that ends an answer; "" leaves it to the end token.
        max_new_tokens: longest answer.
        batch_size: most rows at once; fewer where they are long.
        choice: how tokens are chosen.
        adapters: N numbers of row adapters, for a model that has some.
        progress: called with prompts done and N.

    Returns:
        N answers without the stop text, stripped.
    """
    rows = _Rows(
        language_model, context_ids, prompts, stop, max_new_tokens, batch_size, choice, adapters
    )
    num_done = 0
    while rows.num_left:
        rows.advance()
        if progress is not None and len(prompts) - rows.num_left > num_done:
            num_done = len(prompts) - rows.num_left
            progress(num_done, len(prompts))
    return [answer.text for answer in rows.answers]


def stream(
    language_model: LanguageModel,
    context_ids: Ids,
    prompts: Sequence[Ids],
    *,
    stop: str,
    max_new_tokens: int,
    batch_size: int = 64,
    choice: Choice = GREEDY,
    adapters: Ids | None = None,
) -> Iterator[tuple[int, str]]:
    """Answer, and say each piece of text as soon as nothing can change it.

    Args:
        language_model: the model; between pieces in the mode it was in.
        context_ids: tokens that stand before every prompt, soft prompt and opening included.
        prompts: N prompts.
        stop: the text that ends an answer; "" leaves it to the end token.
        max_new_tokens: longest answer.
        batch_size: most rows at once.
        choice: how tokens are chosen; with beams an answer is said at its end.
        adapters: N numbers of row adapters, for a model that has some.

    Yields:
        The number of a prompt and a piece of its answer, often "", one for each token; joined,
        they are what `generate` answers. Whoever has heard enough stops asking.
    """
    rows = _Rows(
        language_model, context_ids, prompts, stop, max_new_tokens, batch_size, choice, adapters
    )
    said = [""] * len(prompts)
    while rows.num_left:
        for row, has_ended in rows.advance().items():
            answer = rows.answers[row]
            text = answer.text if has_ended else answer.certain_text
            yield row, text[len(said[row]) :]
            said[row] = max(said[row], text, key=len)


class _Rows:
    """The rows of one call: waiting, going, done."""

    def __init__(
        self,
        language_model: LanguageModel,
        context_ids: Ids,
        prompts: Sequence[Ids],
        stop: str,
        max_new_tokens: int,
        batch_size: int,
        choice: Choice,
        adapters: Ids | None,
    ) -> None:
        context, self._prompts = rows_to_read(language_model, context_ids, prompts, adapters)
        check_room(language_model, context, self._prompts, 1)
        self._adapters = [0] * len(prompts) if adapters is None else list(adapters)
        window = language_model.context_tokens + language_model.num_virtual_tokens
        self._limits = [
            min(max_new_tokens, window - len(context) - len(rest)) for rest in self._prompts
        ]
        ending = Ending(language_model, stop)
        self.answers = [Answer(ending, rest[-1]) for rest in self._prompts]
        self._language_model, self._ending, self._choice = language_model, ending, choice
        self._chooser = Chooser(choice)
        self.num_left = len(prompts)
        # The longest first: memory runs out early or never.
        self._waiting = sorted(range(len(prompts)), key=lambda row: len(self._prompts[row]))
        self._going: list[int] = []
        num_tokens = max(map(sum, zip(map(len, self._prompts), self._limits, strict=True)))
        self._num_places = rows_at_once(language_model, batch_size, num_tokens)
        num_rows = max(self._num_places, choice.num_beams)
        with evaluating(language_model):
            self._reading = open_reading(language_model, context, num_rows, num_tokens)

    def advance(self) -> dict[int, bool]:
        """Give rows their next token, those that begin or all that are going; True: the last."""
        with evaluating(self._language_model):
            if self._choice.num_beams > 1:
                return self._follow_beams()
            free = self._num_places - len(self._going)
            may_begin = self._reading.takes_more and free >= self._num_places * _LEAST_FREE_SHARE
            if self._waiting and (may_begin or not self._going):
                rows = self._admit(free)
                logits = self._begin(rows)
                self._going += rows
            else:
                rows = list(self._going)
                logits = self._reading.step([self.answers[row].ids[-1] for row in rows])
            tokens = self._chooser.choose(logits, rows)
        ended = {
            row: not self.answers[row].add(token) or len(self.answers[row].ids) >= self._limits[row]
            for row, token in zip(rows, tokens, strict=True)
        }
        self._leave(ended)
        return ended

    def _begin(self, rows: Sequence[int]) -> Tensor:
        prompts = [self._prompts[row] for row in rows]
        return self._reading.add(prompts, [self._adapters[row] for row in rows])

    def _admit(self, num_free: int) -> list[int]:
        """Take the longest that wait, of equal length where that is needed."""
        longest = self._waiting[-num_free:][::-1]
        if not self._reading.takes_any_lengths:
            length = len(self._prompts[longest[0]])
            longest = list(takewhile(lambda row: len(self._prompts[row]) == length, longest))
        del self._waiting[-len(longest) :]
        return longest

    def _leave(self, ended: Mapping[int, bool]) -> None:
        """Close the gaps with the last rows, so that few change their place."""
        if not any(ended.values()):
            return
        self.num_left -= sum(ended.values())
        places = list(range(len(self._going)))
        for place in reversed(range(len(self._going))):
            if ended.get(self._going[place]):
                places[place] = places[-1]
                places.pop()
        self._going = [self._going[place] for place in places]
        with evaluating(self._language_model):
            self._reading.select(places)

    def _follow_beams(self) -> dict[int, bool]:
        rows = self._admit(max(1, self._num_places // self._choice.num_beams))
        found = follow_beams(
            self._reading,
            [self._prompts[row] for row in rows],
            [self._limits[row] for row in rows],
            self._ending,
            self._choice.num_beams,
            [self._adapters[row] for row in rows],
        )
        for row, beam in zip(rows, found, strict=True):
            self.answers[row].ids = list(beam.ids)
        self.num_left -= len(rows)
        return dict.fromkeys(rows, True)
