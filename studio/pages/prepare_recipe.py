"""Changes that the prepare step makes to a recipe, and how two recipes differ. No Gradio here."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from data_prep.mapping import TARGETS, target_of
from data_prep.recipe import DEFAULT_STEPS, PrepRecipe, Step, complete
from data_prep.splits import SplitOptions
from data_prep.upload import Column
from templates.errors import DataError
from templates.template import Template
from templates.values import parse

Kind = Literal["steps", "augmenters"]
MOST_SHARE_PERCENT = 50
MOST_HELD_OUT_PERCENT = 90
_ESCAPES = {"\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
_READ = {escape: char for char, escape in _ESCAPES.items()}
TITLES = {
    "wording": "the wording", "instruction": "the task description", "separator": "the separator",
    "stop": "the stop sequence", "verbalizer": "the label words", "metric": "the score",
}  # fmt: skip


def places(template: Template) -> tuple[str, ...]:
    """List what columns can be used for.

    Args:
        template: whose slots are filled.

    Returns:
        Its slots, its answer, and the split.
    """
    return (*template.slots, target_of(template), "split")


def column_of(recipe: PrepRecipe, place: str) -> str:
    """Look up which column fills a place.

    Args:
        recipe: any.
        place: a slot or a target.

    Returns:
        The column; empty where there is none.
    """
    return recipe.mapping.columns().get(place, "")


def with_column(recipe: PrepRecipe, place: str, column: str) -> PrepRecipe:
    """Fill a place with a column.

    Args:
        recipe: as it is.
        place: a slot or a target.
        column: its name; empty: none.

    Returns:
        The recipe with it.
    """
    if place in TARGETS:
        mapping = recipe.mapping.model_copy(update={place: column or None})
    else:
        fields = {name: other for name, other in recipe.mapping.fields.items() if name != place}
        fields |= {place: column} if column else {}
        mapping = recipe.mapping.model_copy(update={"fields": fields})
    return recipe.model_copy(update={"mapping": mapping})


def with_wording(
    recipe: PrepRecipe, name: str, value: Any, columns: Sequence[Column] = ()
) -> PrepRecipe:
    """Change a part of the template; a new slot takes the column of its name, if there is one.

    Args:
        recipe: as it is.
        name: of the template's field.
        value: its new value.
        columns: of the table.

    Returns:
        The recipe with it; what other slots held is kept, in case they come back.

    Raises:
        DataError: the template cannot be like that.
    """
    content = {**recipe.template.model_dump(), name: value}
    template = parse(Template, content, where=TITLES.get(name, name), error=DataError)
    changed = recipe.model_copy(update={"template": template})
    known = {column.name.casefold(): column.name for column in columns}
    for slot in template.slots:
        if slot in TARGETS:
            raise DataError(
                f"A slot cannot be called {slot!r}", where="the wording", fix="Give it another name"
            )
        if not column_of(changed, slot) and slot.casefold() in known:
            changed = with_column(changed, slot, known[slot.casefold()])
    return changed


def with_word(recipe: PrepRecipe, label: str, word: str) -> PrepRecipe:
    """Change what the model writes for a label.

    Args:
        recipe: as it is.
        label: of the data.
        word: the label itself or nothing: the label stands for itself.

    Returns:
        The recipe with it.
    """
    words = {name: told for name, told in recipe.template.verbalizer.items() if name != label}
    if word.strip() and word != label:
        words[label] = word
    return with_wording(recipe, "verbalizer", words)


def with_step(recipe: PrepRecipe, kind: Kind, step: Step) -> PrepRecipe:
    """Switch a step on, at its usual place.

    Args:
        recipe: as it is.
        kind: which list.
        step: with its options.

    Returns:
        The recipe with it, its defaults written out.
    """
    usual = {name: place for place, name in enumerate(DEFAULT_STEPS)}
    here = usual.get(step.name, len(usual))
    others = [other for other in getattr(recipe, kind) if other.name != step.name]
    at = next(
        (at for at, other in enumerate(others) if usual.get(other.name, len(usual)) > here),
        len(others),
    )
    return complete(recipe.model_copy(update={kind: (*others[:at], step, *others[at:])}))


def without_step(recipe: PrepRecipe, kind: Kind, name: str) -> PrepRecipe:
    """Switch a step off.

    Args:
        recipe: as it is.
        kind: which list.
        name: of the step.

    Returns:
        The recipe without it.
    """
    rest = tuple(step for step in getattr(recipe, kind) if step.name != name)
    return recipe.model_copy(update={kind: rest})


def moved(recipe: PrepRecipe, kind: Kind, name: str, by: int) -> PrepRecipe:
    """Let a step run earlier or later.

    Args:
        recipe: as it is.
        kind: which list.
        name: of the step.
        by: how many places; negative: earlier.

    Returns:
        The recipe in the new order; a step that is not there is not moved.
    """
    steps = list(getattr(recipe, kind))
    at = next((at for at, step in enumerate(steps) if step.name == name), None)
    if at is None:
        return recipe
    step = steps.pop(at)
    steps.insert(max(0, at + by), step)
    return recipe.model_copy(update={kind: tuple(steps)})


def with_options(
    recipe: PrepRecipe, kind: Kind, name: str, options: Mapping[str, Any]
) -> PrepRecipe:
    """Change options of a step.

    Args:
        recipe: as it is.
        kind: which list.
        name: of the step.
        options: those that change.

    Returns:
        The recipe with them.
    """
    steps = tuple(
        Step(name=name, options={**step.options, **options}) if step.name == name else step
        for step in getattr(recipe, kind)
    )
    return complete(recipe.model_copy(update={kind: steps}))


def with_shares(
    recipe: PrepRecipe, validation_percent: float, test_percent: float, *, keeps: str
) -> PrepRecipe:
    """Change how the rows are divided; training gets the rest, and a tenth at least.

    Args:
        recipe: as it is.
        validation_percent: wished for.
        test_percent: wished for.
        keeps: "validation" or "test": which wish counts where both are too much.

    Returns:
        The recipe with shares that leave enough for training.
    """
    wished = {"validation": validation_percent, "test": test_percent}
    sizes = {name: min(MOST_SHARE_PERCENT, max(1, round(size))) for name, size in wished.items()}
    other = "test" if keeps == "validation" else "validation"
    sizes[other] = min(sizes[other], MOST_HELD_OUT_PERCENT - sizes[keeps])
    changes = {f"{name}_ratio": size / 100 for name, size in sizes.items()}
    return with_splits(recipe, **changes)


def with_splits(recipe: PrepRecipe, **changes: Any) -> PrepRecipe:
    """Change the sizes of the splits.

    Args:
        recipe: as it is.
        **changes: new values of `SplitOptions`.

    Returns:
        The recipe with them.

    Raises:
        DataError: a size is out of its range.
    """
    content = {**recipe.splits.model_dump(), **changes}
    splits = parse(SplitOptions, content, where="splits", error=DataError)
    return recipe.model_copy(update={"splits": splits})


def pruned(recipe: PrepRecipe) -> PrepRecipe:
    """Leave out columns for which the template has no place.

    Args:
        recipe: as it is being edited.

    Returns:
        The recipe as it can be run, with every default written out.
    """
    kept = places(recipe.template)
    for place in recipe.mapping.columns():
        if place not in kept:
            recipe = with_column(recipe, place, "")
    return complete(recipe)


def problem_of(recipe: PrepRecipe, place: str, columns: Sequence[Column]) -> str:
    """Say what is wrong with the column of a place, beside its field.

    Args:
        recipe: as it is.
        place: a slot or a target.
        columns: of the table.

    Returns:
        A sentence; empty: nothing is wrong.
    """
    template, name = recipe.template, column_of(recipe, place)
    known = {column.name: column for column in columns}
    target = target_of(template)
    if not name:
        return _missing(recipe, place)
    if name not in known:
        return f"The table has no column {name!r} any more. Choose another one."
    if place in template.slots and name == column_of(recipe, target):
        return "This is the answer too, so the model would learn to copy. Choose another column."
    if place == "label" and known[name].num_distinct < 2:
        return "All rows say the same here, so there is nothing to tell apart."
    if known[name].kind == "empty":
        return "This column is empty. Choose another one."
    return ""


def doubt_of(recipe: PrepRecipe, place: str, columns: Sequence[Column], num_rows: int) -> str:
    """Say what looks odd about the column of a place, though it can be used.

    Args:
        recipe: as it is.
        place: a slot or a target.
        columns: of the table.
        num_rows: of the table.

    Returns:
        A sentence; empty: nothing does.
    """
    column = next((one for one in columns if one.name == column_of(recipe, place)), None)
    if column is None:
        return ""
    if place == "label" and column.num_distinct > max(10, num_rows // 3):
        return f"It has {column.num_distinct:,} different values; a label usually has a few."
    if place in recipe.template.slots and column.num_empty > num_rows // 2:
        return "More than half of its cells are empty."
    return ""


def escaped(text: str) -> str:
    r"""Write line breaks and tabs as \n and \t.

    Args:
        text: such as a separator.

    Returns:
        One line.
    """
    return "".join(_ESCAPES.get(char, char) for char in text)


def unescaped(text: str) -> str:
    r"""Read \n and \t as line breaks and tabs.

    Args:
        text: as a person typed it.

    Returns:
        What is meant; any other backslash stays.
    """
    return re.sub(r"\\[\\ntr]", lambda found: _READ[found[0]], text)


def _missing(recipe: PrepRecipe, place: str) -> str:
    template = recipe.template
    if place == "split":
        return ""
    if place not in template.optional_slots:
        return "Choose a column."
    others = any(column_of(recipe, slot) for slot in template.slots)
    needed = all(slot in template.optional_slots for slot in template.slots)
    return "" if others or not needed else "Choose a column for at least one of these."
