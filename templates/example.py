"""One row of the person's table, as fields and never only as a rendered string."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from templates.errors import DataError
from templates.files import canonical_json

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Turn:
    """One message of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True)
class Example:
    """One training or test item.

    Attributes:
        fields: the text of each template slot, by slot name.
        label: the class, for classification tasks.
        references: one or more acceptable answers, for generating tasks.
        turns: the conversation, for chat tasks.
        source_rows: 1-based data rows of the upload this item comes from.
        origin: "upload", or the name of the augmenter that made it.
    """

    fields: Mapping[str, str] = field(default_factory=dict)
    label: str | None = None
    references: tuple[str, ...] = ()
    turns: tuple[Turn, ...] = ()
    source_rows: tuple[int, ...] = ()
    origin: str = "upload"

    def texts(self) -> tuple[str, ...]:
        """List every piece of text a person wrote, inputs first.

        Returns:
            Fields, turns and references in a fixed order; the label is not text.
        """
        return (*self.fields.values(), *(turn.content for turn in self.turns), *self.references)

    def with_texts(self, texts: Iterable[str]) -> "Example":
        """Rebuild the example with other texts, in the order of `texts()`.

        Args:
            texts: as many as `texts()` gives.

        Returns:
            The changed copy.
        """
        rest = iter(texts)
        return replace(
            self,
            fields={name: next(rest) for name in self.fields},
            turns=tuple(replace(turn, content=next(rest)) for turn in self.turns),
            references=tuple(next(rest) for _ in self.references),
        )

    def to_json(self) -> str:
        """Write the example as one canonical JSON line.

        Returns:
            JSON without a line break.
        """
        return canonical_json(asdict(self))

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "Example":
        """Read what `to_json` wrote.

        Args:
            content: the parsed JSON object.

        Returns:
            The example.
        """
        return cls(
            fields=content["fields"],
            label=content["label"],
            references=tuple(content["references"]),
            turns=tuple(Turn(**turn) for turn in content["turns"]),
            source_rows=tuple(content["source_rows"]),
            origin=content["origin"],
        )


def read_examples(path: Path) -> Iterator[Example]:
    """Read a JSONL file of examples.

    Args:
        path: the file.

    Yields:
        The examples in file order.

    Raises:
        DataError: a line is not an example.
    """
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                yield Example.from_dict(json.loads(line))
            except (ValueError, KeyError, TypeError):
                raise DataError(
                    "A line of the prepared data is damaged",
                    where=f"{path.name}, line {number}",
                    fix="Run prepare again",
                ) from None
