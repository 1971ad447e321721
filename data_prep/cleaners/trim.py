"""Strip spaces at both ends of every text and label, including those one cannot see."""

from collections.abc import Sequence
from dataclasses import replace

from data_prep.ledger import Ledger
from data_prep.step_spec import CleanerSpec, Outcome
from data_prep.table import strip_edges
from templates.example import Example
from templates.values import Value


class Options(Value):
    """Nothing to choose."""


def clean(examples: Sequence[Example], options: Options) -> Outcome:
    """Strip the ends; inner spaces and line breaks stay.

    Args:
        examples: all examples.
        options: none.

    Returns:
        As many examples, and the report.
    """
    ledger = Ledger(SPEC.name)
    kept = []
    for example in examples:
        trimmed = example.with_texts(strip_edges(text) for text in example.texts())
        if example.label is not None:
            trimmed = replace(trimmed, label=strip_edges(example.label))
        if trimmed != example:
            ledger.changed(example, trimmed)
        kept.append(trimmed)
    return kept, ledger.report(len(examples), len(kept))


SPEC = CleanerSpec(
    name="trim",
    title="Trim spaces",
    summary="Strips spaces, non-breaking and zero-width ones too, at the ends of texts and labels.",
    options=Options,
    clean=clean,
    only_rewrites=True,
)
