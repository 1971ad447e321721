"""How an example is put into words: slots, separator, stop sequence, label words, metric."""

import re
from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from templates.errors import DataError
from templates.values import Value

TaskKind = Literal[
    "classification", "pair_classification", "generation", "question_answering", "chat"
]
Metric = Literal["accuracy", "macro_f1", "exact_match", "token_f1", "chrf", "rouge_l", "bleu"]

DEFAULT_SEPARATOR = "\n\n###\n\n"
DEFAULT_STOP = " END"
_SLOT = re.compile(r"\{(\w+)\}")


class Template(Value):
    """The wording of a task; rendered where it is read, never stored as strings."""

    name: str = Field(title="Name", description="What the template is called in lists.")
    task: TaskKind = Field(title="Task", description="What kind of answer is learned.")
    wording: str = Field(
        title="Wording",
        description="The prompt, with slots in braces such as {text}. "
        "A paragraph whose slots are all empty is left out.",
    )
    optional_slots: tuple[str, ...] = Field(
        default=(), title="Optional slots", description="Slots that need no column."
    )
    instruction: str = Field(
        default="",
        title="Task description",
        description="Shown to an untuned model only; {labels} lists the labels.",
    )
    separator: str = Field(
        default=DEFAULT_SEPARATOR,
        min_length=1,
        title="Separator",
        description="Ends every prompt and must occur nowhere else.",
    )
    stop: str = Field(
        default=DEFAULT_STOP,
        min_length=1,
        title="Stop sequence",
        description="Ends every completion and must occur nowhere else.",
    )
    verbalizer: Mapping[str, str] = Field(
        default_factory=dict,
        title="Label words",
        description="The word the model writes for a label; a label not listed stands for itself.",
    )
    metric: Metric = Field(title="Metric", description="The score the verdict is about.")

    @model_validator(mode="after")
    def _has_slots(self) -> "Template":
        if self.task != "chat" and not self.slots:
            raise ValueError("the wording needs at least one slot such as {text}")
        return self

    @property
    def slots(self) -> tuple[str, ...]:
        """The slot names of the wording, in order of appearance."""
        return tuple(dict.fromkeys(_SLOT.findall(self.wording)))

    @property
    def has_labels(self) -> bool:
        """Whether the answer is one of a closed set of labels."""
        return self.task in ("classification", "pair_classification")

    def words_for(self, label: str) -> str:
        """Say what the model writes for a label.

        Args:
            label: a label of the data.

        Returns:
            The label word.
        """
        return self.verbalizer.get(label, label)

    def fill(self, fields: Mapping[str, str]) -> str:
        """Put field texts into the wording; field text is never read as wording.

        Args:
            fields: text by slot name.

        Returns:
            The prompt without separator.

        Raises:
            DataError: a slot that is not optional has no field.
        """
        missing = [name for name in self.slots if name not in fields]
        if any(name not in self.optional_slots for name in missing):
            raise DataError(
                f"The wording of {self.name!r} needs {', '.join(missing)}",
                fix="Map a column to each slot of the template",
            )
        paragraphs = []
        for paragraph in self.wording.split("\n\n"):
            names = _SLOT.findall(paragraph)
            if not names or any(fields.get(name) for name in names):
                paragraphs.append(_SLOT.sub(lambda slot: fields.get(slot[1], ""), paragraph))
        return "\n\n".join(paragraphs)
