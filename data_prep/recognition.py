"""Guess from column names and samples what a table is for; the person confirms."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence

from data_prep.mapping import ColumnMapping
from data_prep.upload import Column
from templates.builtin import TEMPLATES
from templates.template import TaskKind, Template
from templates.values import Value

# (layout, task, target column names, column names by slot); the first that fits wins.
_LAYOUTS: tuple[tuple[str, TaskKind, tuple[str, ...], Mapping[str, tuple[str, ...]]], ...] = (
    (
        "alpaca",
        "generation",
        ("output", "response"),
        {"instruction": ("instruction",), "input": ("input", "context")},
    ),
    (
        "question and answer",
        "question_answering",
        ("answer", "answers"),
        {"question": ("question",), "context": ("context", "passage", "paragraph")},
    ),
    (
        "prompt and completion",
        "generation",
        ("completion", "response", "answer", "output"),
        {"input": ("prompt",)},
    ),
)
_PAIRS = (
    ("premise", "hypothesis"),
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("text1", "text2"),
    ("text_a", "text_b"),
    ("sentence_a", "sentence_b"),
    ("first", "second"),
)
_LABEL_NAMES = (
    "label labels class category intent team sentiment topic target tag gold_label emotion type"
).split()
_TEXT_NAMES = (
    "text sentence review message ticket comment tweet utterance content body query description"
).split()
_SOURCE_NAMES = "input source mr meaning_representation facts triples data document article".split()
_ANSWER_NAMES = (
    "output target ref reference references texts sentence summary answer response completion text"
).split()
# Names that say what a column is for, by slot or target.
_TELLING: Mapping[str, set[str]] = defaultdict(
    set,
    label=set(_LABEL_NAMES),
    text=set(_TEXT_NAMES),
    input={*_SOURCE_NAMES, "prompt", "context"},
    context={"passage", "paragraph"},
    references={*_ANSWER_NAMES, "answers"},
    first={first for first, _ in _PAIRS},
    second={second for _, second in _PAIRS},
)
_CHOSEN = "as chosen"
_IDENTIFIER = re.compile(r"(^|_)(id|index|row|number|uuid)$")


class Proposal(Value):
    """What a table seems to be for.

    Attributes:
        layout: what was recognised, in words.
        template: a template of the library.
        mapping: columns by slot; incomplete where nothing fits.
    """

    layout: str
    template: Template
    mapping: ColumnMapping


def recognise(columns: Sequence[Column]) -> Proposal:
    """Propose a template and a mapping.

    Args:
        columns: the columns of an upload.

    Returns:
        The proposal.
    """
    names = {column.name.casefold(): column for column in reversed(columns)}
    for column in columns:
        layout = _chat_layout(column)
        if layout:
            return _proposal(layout, "chat", ColumnMapping(turns=column.name))
    for layout, task, targets, slots in _LAYOUTS:
        target = _first(targets, names)
        fields = {slot: _first(wanted, names) for slot, wanted in slots.items()}
        found = {slot: column.name for slot, column in fields.items() if column}
        if target and next(iter(slots)) in found:
            return _proposal(layout, task, ColumnMapping(fields=found, references=target.name))
    answers = next((column for column in columns if _is_list_of_texts(column)), None)
    if answers:
        return _source_and_answer(columns, names, answers)
    label = _label_column(columns, names)
    for first, second in _PAIRS:
        if first in names and second in names and label:
            pair = {"first": names[first].name, "second": names[second].name}
            mapping = ColumnMapping(fields=pair, label=label.name)
            return _proposal("sentence pair", "pair_classification", mapping)
    if label:
        rest = [column for column in columns if column is not label]
        text = _first(_TEXT_NAMES, {c.name.casefold(): c for c in rest}) or _longest(rest)
        fields_found = {"text": text.name} if text else {}
        mapping = ColumnMapping(fields=fields_found, label=label.name)
        return _proposal("text and label", "classification", mapping)
    return _source_and_answer(columns, names, None)


def recognise_for(columns: Sequence[Column], task: TaskKind) -> Proposal:
    """Propose a mapping for a task that a person chose.

    Args:
        columns: the columns of an upload.
        task: what is to be learned.

    Returns:
        The template of the task, and what fits it best; incomplete where nothing fits.
    """
    guess = recognise(columns)
    if guess.template.task == task:
        return guess
    template = TEMPLATES[task]
    usable = [column for column in columns if column.kind != "empty"]
    if task == "chat":
        talk = next((column.name for column in usable if column.kind == "json"), None)
        return _proposal(_CHOSEN, task, ColumnMapping(turns=talk))
    names = {column.name.casefold(): column for column in reversed(usable)}
    asked = [names[slot] for slot in template.slots if slot in names]
    free = [column for column in usable if column not in asked]
    if template.has_labels:
        few = min(free, key=lambda column: column.num_distinct, default=None)
        target = _label_column(columns, names) or _first(_LABEL_NAMES, names) or few
    else:
        free = [column for column in free if not _is_identifier(column)]
        source = max(free, key=lambda column: column.mean_characters, default=None)
        rest = {c.name.casefold(): c for c in free if c is not source or len(free) == 1}
        target = _first((*_ANSWER_NAMES, "answers"), rest) or next(reversed(rest.values()), None)
    longest = sorted(
        (c for c in usable if c not in (*asked, target) and not _is_identifier(c)),
        key=lambda column: -column.mean_characters,
    )
    fields = {column.name.casefold(): column.name for column in asked if column is not target}
    left = [slot for slot in template.slots if slot not in fields and slot != "instruction"]
    needed = [slot for slot in left if slot not in template.optional_slots]
    wanted = left if len(longest) >= len(left) else needed
    chosen = longest[: len(wanted)]
    if task == "pair_classification":
        chosen.sort(key=usable.index)
    fields |= {slot: column.name for slot, column in zip(wanted, chosen, strict=False)}
    place = "label" if template.has_labels else "references"
    mapping = {"fields": fields, place: target.name if target else None}
    return _proposal(_CHOSEN, task, ColumnMapping.model_validate(mapping))


def explain(columns: Sequence[Column], mapping: ColumnMapping) -> dict[str, str]:
    """Say why columns were mapped.

    Args:
        columns: the columns of an upload.
        mapping: what was proposed for them.

    Returns:
        A clause that begins with "because", by slot or target.
    """
    known = {column.name: column for column in columns}
    return {
        slot: f"because {_reason(slot, known[name])}" for slot, name in mapping.columns().items()
    }


def _reason(slot: str, column: Column) -> str:
    if slot == "split":
        return f"{column.name!r} says nothing but train, validation and test"
    if slot == "turns":
        return f"the cells of {column.name!r} are conversations"
    if column.name.casefold() in _TELLING[slot] or column.name.casefold() == slot:
        return f"the column is called {column.name!r}"
    if slot == "label":
        return f"{column.name!r} has few different values ({column.num_distinct:,})"
    if _is_list_of_texts(column):
        return f"the cells of {column.name!r} are lists of texts"
    return f"{column.name!r} holds texts, {column.mean_characters:,.0f} characters on average"


def _is_identifier(column: Column) -> bool:
    return bool(_IDENTIFIER.search(column.name.casefold()))


def _proposal(layout: str, task: TaskKind, mapping: ColumnMapping) -> Proposal:
    return Proposal(layout=layout, template=TEMPLATES[task], mapping=mapping)


def _first(wanted: Sequence[str], names: Mapping[str, Column]) -> Column | None:
    return next((names[name] for name in wanted if name in names), None)


def _chat_layout(column: Column) -> str:
    sample = column.samples[0].lstrip() if column.samples else ""
    if not sample.startswith("["):
        return ""
    if re.search(r'"from"\s*:', sample):
        return "ShareGPT"
    return "messages" if re.search(r'"role"\s*:', sample) else ""


def _is_list_of_texts(column: Column) -> bool:
    """Several acceptable answers in a cell; some rows may have just one, as a plain text."""
    return column.kind == "json" and any(sample.startswith('["') for sample in column.samples)


def _label_column(columns: Sequence[Column], names: Mapping[str, Column]) -> Column | None:
    """Find the class: by name, or the last column with few short values."""
    few = [
        column
        for column in columns
        if column.kind in ("category", "boolean")
        or (column.kind == "number" and column.num_distinct <= 20)
    ]
    named = _first(_LABEL_NAMES, names)
    if named and (named in few or (named.kind == "text" and named.max_characters <= 60)):
        return named
    few = [column for column in few if not _is_identifier(column)]
    texts = [column for column in columns if column.kind == "text"]
    # Two long texts beside a category are more often source and answer than a text and a label.
    return few[-1] if few and len(texts) < 2 else None


def _longest(columns: Sequence[Column]) -> Column | None:
    texts = [column for column in columns if column.kind in ("text", "category", "json")]
    return max(texts, key=lambda column: column.mean_characters, default=None)


def _source_and_answer(
    columns: Sequence[Column], names: Mapping[str, Column], answer: Column | None
) -> Proposal:
    """Propose source -> text, where nothing speaks for a class."""
    texts = [
        column
        for column in columns
        if column.kind in ("text", "json") and column is not answer and not _is_identifier(column)
    ]
    source = _first(_SOURCE_NAMES, names) or next(iter(texts), None)
    rest = {column.name.casefold(): column for column in texts if column is not source}
    answer = answer or _first(_ANSWER_NAMES, rest) or next(reversed(rest.values()), None)
    mapping = ColumnMapping(
        fields={"input": source.name} if source else {},
        references=answer.name if answer else None,
    )
    return _proposal("text and answer", "generation", mapping)
