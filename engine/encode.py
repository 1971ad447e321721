"""Example -> token ids with a mask that says which of them the loss sees."""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import overload

from engine.language_model import LanguageModel
from templates.errors import PlanError
from templates.example import Example
from templates.render import render
from templates.template import Template


@dataclass(frozen=True, slots=True)
class Encoded:
    """One training item: T token ids, T flags; the soft prompt is added when batched.

    Both are held as machine numbers, in 5 bytes a token; tuples of Python's would take up to 50.
    """

    ids: Sequence[int]
    supervised: Sequence[int]
    source_rows: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Take any sequences."""
        object.__setattr__(self, "ids", array("i", self.ids))
        object.__setattr__(self, "supervised", bytes(self.supervised))

    @property
    def num_supervised(self) -> int:
        """How many tokens the loss sees."""
        return sum(self.supervised)


class EncodedItems(Sequence[Encoded]):
    """All items of a split, which lie behind each other in memory and are made when asked for.

    An item takes 5 bytes a token and 8 more; a list of items would take some 300 more. Which rows
    of the upload they came from is not kept.
    """

    def __init__(self, items: Iterable[Encoded] = ()) -> None:
        """Take items over.

        Args:
            items: what to begin with.
        """
        self._ids = array("i")
        self._supervised = bytearray()
        self._ends = array("q", [0])
        for item in items:
            self.append(item)

    def append(self, item: Encoded) -> None:
        """Put an item behind the others.

        Args:
            item: its ids and flags are copied.
        """
        self._ids.extend(item.ids)
        self._supervised.extend(item.supervised)
        self._ends.append(len(self._ids))

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> Encoded: ...
    @overload
    def __getitem__(self, index: slice) -> list[Encoded]: ...
    def __getitem__(self, index: int | slice) -> Encoded | list[Encoded]:
        numbers = range(len(self))[index]
        if isinstance(numbers, range):
            return [self[number] for number in numbers]
        place = slice(self._ends[numbers], self._ends[numbers + 1])
        return Encoded(self._ids[place], self._supervised[place])


def encode_example(language_model: LanguageModel, example: Example, template: Template) -> Encoded:
    """Render and tokenise one item; prompt and completion are tokenised apart.

    Apart, so that the tokens of the prompt are the same when the answer is not there yet.

    Args:
        language_model: gives tokenizer and chat template.
        example: the item.
        template: its wording.

    Returns:
        The token ids; in the raw layout an end-of-text token follows the stop sequence.
    """
    rendered = render(example, template, tokenizer=language_model.tokenizer)
    ids = language_model.opening_ids()
    supervised = [False] * len(ids)
    for segment in rendered.segments:
        piece = language_model.encode(segment.text)
        ids += piece
        supervised += [segment.supervised] * len(piece)
    end = language_model.tokenizer.eos_token_id
    if not language_model.has_chat_template and end is not None:
        ids.append(end)
        supervised.append(True)
    return Encoded(ids, supervised, example.source_rows)


def encode_all(
    language_model: LanguageModel,
    examples: Iterable[Example],
    template: Template,
    *,
    max_length_tokens: int,
    too_long: str,
) -> tuple[EncodedItems, list[str]]:
    """Encode a split, and never cut an answer.

    Args:
        language_model: gives tokenizer, chat template and context size.
        examples: the split.
        template: its wording.
        max_length_tokens: longest item; 0 means the context of the base.
        too_long: "stop", "drop" or "cut".

    Returns:
        The items, and one sentence for each thing that was changed.

    Raises:
        PlanError: an item does not fit (with "stop"), or nothing is left.
    """
    context = language_model.context_tokens
    limit = min(max_length_tokens or context, context)
    kept = EncodedItems()
    long: list[Encoded] = []
    for example in examples:
        encoded = encode_example(language_model, example, template)
        if not encoded.num_supervised:
            raise PlanError(
                "An example has no token for the loss to see",
                where=_rows([encoded]),
                fix="Give the row an answer, or drop it in prepare",
            )
        if len(encoded.ids) <= limit:
            kept.append(encoded)
            continue
        long.append(encoded)
        shorter = cut_prompt(encoded, limit, keep=len(language_model.opening_ids()))
        if too_long == "cut" and shorter is not None:
            kept.append(shorter)
    if long and too_long == "stop":
        longest = max(len(item.ids) for item in long)
        raise PlanError(
            f"{len(long)} examples are longer than {limit} tokens, the longest has {longest}",
            where=_rows(long),
            fix="Lower the length in prepare, plan with too_long drop or cut, or take a base "
            "with a longer context",
        )
    if not kept:
        raise PlanError(
            f"No example fits into {limit} tokens",
            where=_rows(long),
            fix="Shorten the text, or choose a base with a longer context",
        )
    verb = "left out" if too_long == "drop" else "cut at the start of the prompt"
    notices = [f"{len(long)} examples over {limit} tokens were {verb}: {_rows(long)}"]
    return kept, notices if long else []


def cut_prompt(encoded: Encoded, limit: int, *, keep: int) -> Encoded | None:
    """Drop tokens from the start of the prompt until the item fits.

    Args:
        encoded: an item that is too long.
        limit: tokens available.
        keep: opening tokens that stay in place.

    Returns:
        The shorter item, or None where the cut would reach the answer.
    """
    surplus = len(encoded.ids) - limit
    first = encoded.supervised.index(True)
    if keep + surplus >= first:
        return None
    ids = [*encoded.ids[:keep], *encoded.ids[keep + surplus :]]
    supervised = [*encoded.supervised[:keep], *encoded.supervised[keep + surplus :]]
    return replace(encoded, ids=ids, supervised=supervised)


def _rows(items: list[Encoded]) -> str:
    rows = [row for item in items for row in item.source_rows]
    shown = ", ".join(str(row) for row in rows[:10])
    return f"row {shown}" + (", …" if len(rows) > 10 else "")
