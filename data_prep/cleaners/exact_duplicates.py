"""Drop rows that say exactly what an earlier row says, answer included."""

from collections.abc import Hashable, Sequence

from pydantic import Field

from data_prep.ledger import Ledger, show
from data_prep.step_spec import CleanerSpec, Outcome
from templates.example import Example
from templates.values import Value


class Options(Value):
    """What counts as the same."""

    ignore_case: bool = Field(
        default=False,
        title="Ignore case",
        description="Treat capital and small letters as equal.",
    )
    ignore_spacing: bool = Field(
        default=False,
        title="Ignore spacing",
        description="Treat any run of spaces and line breaks as one space.",
    )


def clean(examples: Sequence[Example], options: Options) -> Outcome:
    """Keep the first of equal examples; equal texts with another label are no duplicates.

    Args:
        examples: all examples.
        options: what counts as the same.

    Returns:
        The rest, and the report.
    """
    ledger = Ledger(SPEC.name)
    seen: set[Hashable] = set()
    kept = []
    for example in examples:
        key = _key(example, options)
        if key in seen:
            ledger.dropped(example.source_rows, show(example), "duplicate")
            continue
        seen.add(key)
        kept.append(example)
    return kept, ledger.report(len(examples), len(kept))


def _key(example: Example, options: Options) -> Hashable:
    def same(text: str) -> str:
        text = text.casefold() if options.ignore_case else text
        return " ".join(text.split()) if options.ignore_spacing else text

    fields = tuple((name, same(text)) for name, text in sorted(example.fields.items()))
    turns = tuple((turn.role, same(turn.content)) for turn in example.turns)
    return fields, turns, tuple(map(same, example.references)), example.label


SPEC = CleanerSpec(
    name="exact_duplicates",
    title="Drop exact duplicates",
    summary="Keeps the first of rows that are equal in every text and in the label.",
    options=Options,
    clean=clean,
)
