"""Upload columns -> template slots and targets, and rows -> examples."""

from collections.abc import Iterable, Mapping, Sequence

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from data_prep.conversation import NoConversation, read_turns
from data_prep.json_text import load_cell, without_escapes
from data_prep.ledger import Ledger
from data_prep.step_spec import Outcome
from data_prep.table import Row, strip_edges
from templates.errors import DataError
from templates.example import Example, Turn
from templates.template import Template
from templates.values import Value

STEP = "map columns"
TARGETS = ("label", "references", "turns", "split")


class ColumnMapping(Value):
    """Which column fills which slot, and which one holds the answer."""

    fields: Mapping[str, str] = Field(
        default_factory=dict, title="Inputs", description="Column by template slot."
    )
    label: str | None = Field(default=None, title="Label", description="Column of the class.")
    references: str | None = Field(
        default=None,
        title="Answer",
        description="Column of the answer: a text, or a JSON list of acceptable texts.",
    )
    turns: str | None = Field(
        default=None, title="Conversation", description="Column of the conversation in JSON."
    )
    split: str | None = Field(
        default=None,
        title="Split",
        description="Optional column that says train, validation or test.",
    )

    @model_validator(mode="after")
    def _slots_are_not_targets(self) -> "ColumnMapping":
        for slot in self.fields:
            if slot in TARGETS:
                raise PydanticCustomError(
                    "no_fit", "a slot cannot be called '{slot}'", {"slot": slot}
                )
        return self

    def columns(self) -> dict[str, str]:
        """List everything that is mapped.

        Returns:
            Upload column by slot or target.
        """
        targets = {name: getattr(self, name) for name in TARGETS}
        return {**self.fields, **{name: column for name, column in targets.items() if column}}


def target_of(template: Template) -> str:
    """Say which target a template learns from.

    Args:
        template: any.

    Returns:
        label, references or turns.
    """
    if template.task == "chat":
        return "turns"
    return "label" if template.has_labels else "references"


def check_mapping(template: Template, mapping: ColumnMapping, columns: Sequence[str]) -> None:
    """Refuse a mapping that does not fit the template or the table.

    Args:
        template: what must be filled.
        mapping: the choice.
        columns: the names the table has.

    Raises:
        DataError: a column or slot is unknown, missing, or used as both input and answer.
    """
    target = target_of(template)
    chosen = mapping.columns()
    check_columns(chosen, columns)
    unknown = [slot for slot in mapping.fields if slot not in template.slots]
    if unknown:
        raise DataError(
            f"The template {template.name!r} has no slot {', '.join(unknown)}",
            where="column mapping",
            fix=f"Map columns to its slots: {', '.join(template.slots) or 'none'}",
        )
    needed = [slot for slot in template.slots if slot not in template.optional_slots]
    missing = [slot for slot in needed if slot not in chosen]
    if not missing and template.slots and not mapping.fields:
        missing = [" or ".join(template.slots)]
    if target not in chosen:
        missing.append(target)
    if missing:
        raise DataError(
            f"No column is mapped to {', '.join(missing)}",
            where="column mapping",
            fix=f"Choose a column for it; the table has: {', '.join(columns)}",
        )
    both = [slot for slot, column in mapping.fields.items() if column == chosen[target]]
    if both:
        raise DataError(
            f"The column {chosen[target]!r} is both the input {both[0]} and the answer",
            where="column mapping",
            fix="Choose another column for one of them, or the model learns to copy",
        )


def check_columns(chosen: Mapping[str, str], columns: Sequence[str]) -> None:
    """Refuse columns that the table does not have.

    Args:
        chosen: column by slot or target.
        columns: the names the table has.

    Raises:
        DataError: a column is missing.
    """
    for slot, column in chosen.items():
        if column not in columns:
            raise DataError(
                f"The table has no column {column!r} for {slot}",
                where="column mapping",
                fix=f"Choose one of its columns: {', '.join(columns)}",
            )


def map_rows(rows: Iterable[Row], template: Template, mapping: ColumnMapping) -> Outcome:
    """Turn rows into examples; a row that cannot be one is dropped and reported.

    Args:
        rows: rows of a table whose columns were checked.
        template: names the slots and the task.
        mapping: which column goes where.

    Returns:
        The examples, and the report.
    """
    ledger = Ledger(STEP)
    examples: list[Example] = []
    num_rows = 0
    for row in rows:
        num_rows += 1
        try:
            examples.append(_example(row, template, mapping))
        except NoConversation as problem:
            cell = row.cells.get(mapping.turns or "", "")
            ledger.dropped((row.number,), without_escapes(cell), str(problem))
    return examples, ledger.report(num_rows, len(examples))


def _example(row: Row, template: Template, mapping: ColumnMapping) -> Example:
    rows = (row.number,)
    if template.task == "chat":
        return Example(turns=read_turns(row.cells[mapping.turns or ""]), source_rows=rows)
    fields = read_fields(row, template, mapping.fields)
    if template.has_labels:
        return Example(fields=fields, label=row.cells[mapping.label or ""], source_rows=rows)
    references = _references(row.cells[mapping.references or ""])
    return Example(fields=fields, references=references, source_rows=rows)


def read_fields(row: Row, template: Template, columns: Mapping[str, str]) -> dict[str, str]:
    """Take the texts of a row; an empty cell of an optional slot is no field.

    Args:
        row: the row.
        template: says which slots are optional.
        columns: column by slot; other keys are passed over.

    Returns:
        Text by slot, in the order of the wording.
    """
    texts = {slot: row.cells[columns[slot]] for slot in template.slots if slot in columns}
    return {
        slot: text
        for slot, text in texts.items()
        if slot not in template.optional_slots or strip_edges(text)
    }


def _references(cell: str) -> tuple[str, ...]:
    """Read one answer, or a JSON list of answers; anything else in brackets is a text."""
    if cell.lstrip().startswith("["):
        try:
            answers = load_cell(cell)
        except DataError:
            return (cell,)
        if isinstance(answers, list) and all(isinstance(answer, str) for answer in answers):
            return tuple(answers) or ("",)
    return (cell,)


def examples_for_prediction(
    rows: Iterable[Row], template: Template, columns: Mapping[str, str]
) -> list[Example]:
    """Build unlabelled examples from a new table, with the mapping of a prepared dataset.

    Args:
        rows: rows of a new table.
        template: `Dataset.template`.
        columns: `Dataset.columns`.

    Returns:
        One example per row; a conversation gets an empty assistant turn to be filled in.

    Raises:
        DataError: a column is missing, or a cell is not a conversation.
    """
    inputs = {key: name for key, name in columns.items() if key in (*template.slots, "turns")}
    examples: list[Example] = []
    for row in rows:
        if not examples:
            inputs = {
                key: name
                for key, name in inputs.items()
                if name in row.cells or key not in template.optional_slots
            }
            check_columns(inputs, tuple(row.cells))
        if template.task != "chat":
            fields = read_fields(row, template, inputs)
            examples.append(Example(fields=fields, source_rows=(row.number,)))
            continue
        try:
            turns = read_turns(row.cells[inputs["turns"]], answered=False)
        except NoConversation as problem:
            raise DataError(
                f"A row cannot be answered: {problem}",
                where=f"row {row.number}, line {row.line}",
                fix="Let the conversation end with a user turn",
            ) from None
        asked = turns[:-1] if turns[-1].role == "assistant" else turns
        examples.append(Example(turns=(*asked, Turn("assistant", "")), source_rows=(row.number,)))
    return examples
