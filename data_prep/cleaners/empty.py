"""Drop rows that have nothing to read or nothing to learn."""

from collections.abc import Sequence
from dataclasses import replace

from data_prep.ledger import Ledger, show
from data_prep.step_spec import CleanerSpec, Outcome
from data_prep.table import strip_edges
from templates.example import Example
from templates.values import Value


class Options(Value):
    """Nothing to choose."""


def clean(examples: Sequence[Example], options: Options) -> Outcome:
    """Drop rows with an empty text, label or answer; of several answers drop the empty ones.

    Optional slots with an empty cell are no field of the example, so they keep their row.

    Args:
        examples: all examples.
        options: none.

    Returns:
        The rest, and the report.
    """
    ledger = Ledger(SPEC.name)
    kept = []
    for example in examples:
        reason = _reason(example)
        if reason:
            ledger.dropped(example.source_rows, show(example), reason)
            continue
        answers = tuple(text for text in example.references if strip_edges(text))
        if answers != example.references:
            ledger.changed(example, replace(example, references=answers))
            example = replace(example, references=answers)
        kept.append(example)
    return kept, ledger.report(len(examples), len(kept))


def _reason(example: Example) -> str:
    inputs = [*example.fields.values(), *(turn.content for turn in example.turns)]
    if not inputs or not all(map(strip_edges, inputs)):
        return "empty text"
    if example.label is not None and not strip_edges(example.label):
        return "empty label"
    if example.references and not any(map(strip_edges, example.references)):
        return "empty answer"
    return ""


SPEC = CleanerSpec(
    name="empty",
    title="Drop empty rows",
    summary="Drops rows whose text, label or answer is empty.",
    options=Options,
    clean=clean,
)
