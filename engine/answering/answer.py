"""A growing answer: where it ends, and what of its text is certain already."""

from collections.abc import Sequence
from functools import cache

from engine.language_model import LanguageModel

_UNFINISHED = "\ufffd"  # what a decoder writes for a character whose bytes are not all there


class Ending:
    """What ends the answers of a model: an end token, or a text."""

    def __init__(self, language_model: LanguageModel, stop: str) -> None:
        """Look the end tokens up.

        Args:
            language_model: gives tokenizer and end tokens.
            stop: the text that ends an answer; "" leaves it to the end tokens.
        """
        self.language_model = language_model
        self.stop = stop
        self.end_ids = frozenset(language_model.end_ids)
        # A stop sequence has at most one token a byte; one more may hold its beginning.
        self._tail = len(stop.encode()) + 1
        self._completes = cache(self._may_complete)

    def stops(self, answer: "Answer") -> bool:
        """Say whether the last token of an answer completes the stop text.

        Args:
            answer: with one token or more, and no stop text before the last.

        Returns:
            Whether it is complete.
        """
        if not self.stop or not self._completes(answer.ids[-1]):
            return False
        if len(answer.ids) <= self._tail:
            return self.stop in answer.decoded()
        return self.stop in self.language_model.decode(answer.ids[-self._tail - 1 :])

    def _may_complete(self, token: int) -> bool:
        """Most tokens do not hold the last character, and need no look at the text before them."""
        last = self.stop[-1]
        alone = self.language_model.decode([token])
        return last == " " or last in alone or _UNFINISHED in alone  # decoders drop lone spaces


class Answer:
    """The tokens of an answer behind a prompt."""

    def __init__(self, ending: Ending, anchor: int, ids: Sequence[int] = ()) -> None:
        """Start after the last token of the prompt.

        Some tokenizers drop the space before the first word they decode, so the text is always
        decoded behind that token, and a stop sequence that begins with a space is recognised.

        Args:
            ending: what ends it.
            anchor: the last token of the prompt.
            ids: the tokens so far.
        """
        self.ids = list(ids)
        self._ending = ending
        real = anchor < ending.language_model.vocabulary_size
        self._anchor = [anchor] if real else []

    def add(self, token: int) -> bool:
        """Take one more token.

        Args:
            token: its id.

        Returns:
            Whether to go on.
        """
        if token in self._ending.end_ids:
            return False
        self.ids.append(token)
        return not self._ending.stops(self)

    def decoded(self) -> str:
        """Turn all tokens into text.

        Returns:
            The text, a stop sequence included.
        """
        decode = self._ending.language_model.decode
        return decode(self._anchor + self.ids)[len(decode(self._anchor)) :]

    @property
    def certain_text(self) -> str:
        """The beginning of `text` that no further token can change."""
        text, stop = self.decoded().rstrip(_UNFINISHED), self._ending.stop
        # The end may turn out to be the beginning of the stop sequence, or blanks at the end.
        lengths = range(min(len(stop), len(text)), 0, -1)
        held = next((size for size in lengths if text.endswith(stop[:size])), 0)
        return text[: len(text) - held].strip()

    @property
    def text(self) -> str:
        """What stands before the stop sequence."""
        text, stop = self.decoded(), self._ending.stop
        return (text.partition(stop)[0] if stop else text).strip()
