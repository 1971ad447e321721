"""Drop rows that are too long or too short to learn from."""

from collections.abc import Sequence

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from data_prep.ledger import Ledger, show
from data_prep.step_spec import CleanerSpec, Outcome
from templates.example import Example
from templates.values import Value


class Options(Value):
    """Limits in characters over all texts of a row, answer included."""

    min_characters: int = Field(
        default=1,
        ge=0,
        le=1_000_000,
        title="At least (characters)",
        description="Rows with fewer characters in all their texts together are dropped.",
    )
    max_characters: int = Field(
        default=8_000,
        ge=1,
        le=10_000_000,
        title="At most (characters)",
        description="Rows with more characters in all their texts together are dropped.",
    )

    @model_validator(mode="after")
    def _ordered(self) -> "Options":
        if self.min_characters > self.max_characters:
            raise PydanticCustomError("no_fit", "min_characters must not exceed max_characters")
        return self


def clean(examples: Sequence[Example], options: Options) -> Outcome:
    """Keep the rows within the limits; nothing is cut.

    Args:
        examples: all examples.
        options: the limits.

    Returns:
        The rest, and the report.
    """
    ledger = Ledger(SPEC.name)
    kept = []
    for example in examples:
        size = sum(map(len, example.texts()))
        if size > options.max_characters:
            ledger.dropped(example.source_rows, show(example), "too long")
        elif size < options.min_characters:
            ledger.dropped(example.source_rows, show(example), "too short")
        else:
            kept.append(example)
    return kept, ledger.report(len(examples), len(kept))


SPEC = CleanerSpec(
    name="length",
    title="Drop very long or short rows",
    summary="Drops rows whose texts together are longer or shorter than you allow.",
    options=Options,
    clean=clean,
)
