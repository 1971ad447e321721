"""How two recipes differ, in words. No Gradio here."""

from collections.abc import Iterator, Mapping

from data_prep.recipe import PrepRecipe
from studio.pages.prepare_recipe import TITLES, Kind, column_of


def is_same_edit(before: PrepRecipe, now: PrepRecipe, after: PrepRecipe) -> bool:
    """Say whether a change goes on with the last one, as when a person types: one step for undo.

    Args:
        before: the recipe before the last change.
        now: as it is.
        after: as it shall be.

    Returns:
        Whether both changes are about the same one thing.
    """
    last, new = list(_different(before, now)), list(_different(now, after))
    if last != new or len(new) != 1:
        return False
    ((what, name),) = new
    stays_on = all(_has_step(recipe, name) for recipe in (before, now, after))
    return what in ("template", "splits", "seed") or (what == "step" and stays_on)


def differences(before: PrepRecipe, after: PrepRecipe, titles: Mapping[str, str]) -> list[str]:
    """Say how two recipes differ.

    Args:
        before: one of them.
        after: the other.
        titles: of the steps by name.

    Returns:
        Clauses; empty: they are the same.
    """
    found = []
    for what, name in _different(before, after):
        if what == "task":
            found.append("the task")
        elif what == "template":
            found.append(TITLES[name])
        elif what == "column":
            old, new = column_of(before, name) or "nothing", column_of(after, name) or "nothing"
            found.append(f"the column for {name}: {old} → {new}")
        elif what == "step":
            found.append(_step_difference(before, after, name, titles.get(name, name)))
        else:
            found.append({"order": "the order of the cleaning steps", "seed": "the seed",
                          "splits": "the sizes of the splits"}[what])  # fmt: skip
    return found


def _different(before: PrepRecipe, after: PrepRecipe) -> Iterator[tuple[str, str]]:
    """Yield (what kind of thing, its name) for each thing that differs."""
    if before.template.task != after.template.task:
        yield "task", ""
    else:
        for name in TITLES:
            if getattr(before.template, name) != getattr(after.template, name):
                yield "template", name
    for place in dict.fromkeys((*before.mapping.columns(), *after.mapping.columns())):
        if column_of(before, place) != column_of(after, place):
            yield "column", place
    kinds: tuple[Kind, ...] = ("steps", "augmenters")
    for kind in kinds:
        old = {step.name: dict(step.options) for step in getattr(before, kind)}
        new = {step.name: dict(step.options) for step in getattr(after, kind)}
        for name in dict.fromkeys((*old, *new)):
            if old.get(name) != new.get(name):
                yield "step", name
        if set(old) == set(new) and list(old) != list(new):
            yield "order", kind
    if before.splits != after.splits:
        yield "splits", ""
    if before.seed != after.seed:
        yield "seed", ""


def _step_difference(before: PrepRecipe, after: PrepRecipe, name: str, title: str) -> str:
    was, is_now = _has_step(before, name), _has_step(after, name)
    if was and is_now:
        return f"the options of “{title}”"
    return f"“{title}” is {'on' if is_now else 'off'}"


def _has_step(recipe: PrepRecipe, name: str) -> bool:
    return any(step.name == name for step in (*recipe.steps, *recipe.augmenters))
