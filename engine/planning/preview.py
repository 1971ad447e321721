"""What the model reads, token by token; which of it the loss sees; how long the examples are."""

import statistics
from collections.abc import Iterable, Sequence

from engine.encode import encode_example
from engine.language_model import LanguageModel
from engine.planning.cost import ItemLength, item_length
from engine.planning.shown import LengthBin, LengthReport, PreviewItem, TokenPiece
from templates.errors import PlanError
from templates.example import Example
from templates.template import Template

_UNFINISHED = "\ufffd"  # what a decoder writes for a character whose bytes are not all there
_MOST_BINS = 12


def preview(
    language_model: LanguageModel,
    examples: Iterable[Example],
    template: Template,
    count: int = 3,
) -> list[PreviewItem]:
    """Show the first examples exactly as training encodes them.

    Args:
        language_model: gives tokenizer and chat template; its weights are not used.
        examples: a split.
        template: its wording.
        count: how many to show.

    Returns:
        At most `count` items.
    """
    items = []
    for _, example in zip(range(count), examples, strict=False):
        encoded = encode_example(language_model, example, template)
        special = _special_ids(language_model)
        pieces = tuple(
            TokenPiece(id=id_, text=text, supervised=bool(seen), special=id_ in special)
            for id_, text, seen in zip(
                encoded.ids,
                piece_texts(language_model, encoded.ids),
                encoded.supervised,
                strict=True,
            )
        )
        items.append(
            PreviewItem(
                pieces=pieces,
                num_tokens=len(pieces) + language_model.num_virtual_tokens,
                num_supervised=encoded.num_supervised,
                num_virtual_tokens=language_model.num_virtual_tokens,
                source_rows=encoded.source_rows,
            )
        )
    return items


def piece_texts(language_model: LanguageModel, ids: Sequence[int]) -> list[str]:
    """Say what each token adds to the text.

    Each is decoded together with the finished tokens before it, because some tokenizers drop a
    space at the start, and waits while its character is not complete.

    Args:
        language_model: gives the decoder.
        ids: T token ids.

    Returns:
        T texts, some of them ""; joined, they are the decoded ids.
    """
    texts = [""] * len(ids)
    start, done = 0, 0  # ids[start:done] are known; ids[done:] wait
    for position in range(len(ids)):
        known = language_model.decode(ids[start:done])
        longer = language_model.decode(ids[start : position + 1])
        last = position == len(ids) - 1
        if longer.endswith(_UNFINISHED) and not last and position - done < 4:
            continue  # no character has more than four bytes
        texts[position] = longer[len(known) :]
        start, done = done, position + 1
    return texts


def measure_lengths(
    language_model: LanguageModel, examples: Iterable[Example], template: Template
) -> list[ItemLength]:
    """Encode a split to learn its lengths.

    Args:
        language_model: gives tokenizer and chat template; its weights are not used.
        examples: the split.
        template: its wording.

    Returns:
        One size for each example, in order.

    Raises:
        PlanError: an example has no token for the loss to see.
    """
    lengths = []
    for example in examples:
        encoded = encode_example(language_model, example, template)
        if not encoded.num_supervised:
            raise PlanError(
                "An example has no token for the loss to see",
                where=f"row {', '.join(str(row) for row in encoded.source_rows)}",
                fix="Give the row an answer, or drop it in prepare",
            )
        lengths.append(item_length(encoded))
    return lengths


def token_lengths(
    language_model: LanguageModel, examples: Iterable[Example], template: Template
) -> LengthReport:
    """Sum up how long the examples of a split are.

    Args:
        language_model: gives tokenizer, chat template and context size.
        examples: the split; at least one example.
        template: its wording.

    Returns:
        The report.
    """
    lengths = measure_lengths(language_model, examples, template)
    return report_lengths(lengths, language_model.context_tokens)


def report_lengths(lengths: Sequence[ItemLength], context_tokens: int) -> LengthReport:
    """Sum up measured lengths.

    Args:
        lengths: at least one.
        context_tokens: what fits into the base.

    Returns:
        The report.

    Raises:
        PlanError: there is no example.
    """
    if not lengths:
        raise PlanError("There is no example to measure", fix="Prepare data with some rows")
    tokens = sorted(item.num_tokens for item in lengths)
    return LengthReport(
        count=len(tokens),
        min_tokens=tokens[0],
        median_tokens=statistics.median(tokens),
        p95_tokens=tokens[-(-len(tokens) * 95 // 100) - 1],
        max_tokens=tokens[-1],
        context_tokens=context_tokens,
        num_over_context=sum(length > context_tokens for length in tokens),
        supervised_ratio=sum(item.num_supervised for item in lengths) / sum(tokens),
        bins=_bins(tokens),
    )


def _bins(tokens: Sequence[int]) -> tuple[LengthBin, ...]:
    """Cut sorted lengths into bars of equal width."""
    width = -(-(tokens[-1] - tokens[0] + 1) // _MOST_BINS)
    starts = range(tokens[0], tokens[-1] + 1, width)
    return tuple(
        LengthBin(
            from_tokens=start,
            to_tokens=start + width - 1,
            count=sum(start <= length < start + width for length in tokens),
        )
        for start in starts
    )


def _special_ids(language_model: LanguageModel) -> set[int]:
    tokenizer = language_model.tokenizer
    added = tokenizer.added_tokens_decoder
    return {*tokenizer.all_special_ids, *(id_ for id_, token in added.items() if token.special)}
