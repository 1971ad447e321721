"""PrepRecipe: everything that turns an upload into a dataset; replaying it gives equal bytes."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from data_prep import augmenters, cleaners
from data_prep.mapping import ColumnMapping
from data_prep.recognition import explain, recognise, recognise_for
from data_prep.splits import SPLIT_NAMES, SplitOptions
from data_prep.step_spec import AugmenterSpec, CleanerSpec, find_spec, list_specs, parse_options
from data_prep.upload import Upload
from templates.dataset import SPLITS
from templates.errors import DataError
from templates.files import canonical_json
from templates.template import TaskKind, Template
from templates.values import Value, parse

DEFAULT_STEPS = ("empty", "trim", "exact_duplicates", "mask_personal_data", "length")


class Step(Value):
    """One cleaner or augmenter with its options."""

    name: str
    options: Mapping[str, Any] = Field(default_factory=dict)


class PrepRecipe(Value):
    """How rows become examples in three splits."""

    template: Template = Field(title="Template", description="The task and its wording.")
    mapping: ColumnMapping = Field(title="Columns", description="Which column goes where.")
    steps: tuple[Step, ...] = Field(
        default=(), title="Cleaning", description="Cleaners in the order they run."
    )
    augmenters: tuple[Step, ...] = Field(
        default=(), title="Augmenting", description="Applied to the training split only."
    )
    splits: SplitOptions = Field(
        default_factory=SplitOptions, title="Splits", description="How the rows are divided."
    )
    seed: int = Field(
        default=0, ge=0, le=2**32 - 1, title="Seed", description="Decides every random choice."
    )

    def to_json(self) -> str:
        """Write the recipe so that equal recipes give equal bytes.

        Returns:
            Canonical JSON, ending in a line break.
        """
        return canonical_json(self.model_dump(mode="json"), indent=1) + "\n"


def all_cleaners() -> dict[str, CleanerSpec[Any]]:
    """List the cleaners.

    Returns:
        Specs by name.
    """
    return list_specs(cleaners)


def all_augmenters() -> dict[str, AugmenterSpec[Any]]:
    """List the augmenters.

    Returns:
        Specs by name.
    """
    return list_specs(augmenters)


def complete(recipe: PrepRecipe) -> PrepRecipe:
    """Check the steps of a recipe and write their defaults out.

    Args:
        recipe: steps may leave options out.

    Returns:
        The recipe with every option; later changes of a default do not change a replay.
    """

    def filled(steps: tuple[Step, ...], specs: dict[str, Any], kind: str) -> tuple[Step, ...]:
        out = []
        for step in steps:
            spec = find_spec(specs, step.name, kind=kind)
            options = parse_options(spec, dict(step.options)).model_dump(mode="json")
            out.append(Step(name=step.name, options=options))
        return tuple(out)

    return recipe.model_copy(
        update={
            "steps": filled(recipe.steps, all_cleaners(), "cleaner"),
            "augmenters": filled(recipe.augmenters, all_augmenters(), "augmenter"),
        }
    )


def default_recipe(template: Template, mapping: ColumnMapping, *, seed: int = 0) -> PrepRecipe:
    """Build the recipe that fits most tables: all cleaners, no augmenter, 70/15/15.

    Args:
        template: the task and its wording.
        mapping: which column goes where.
        seed: decides every random choice.

    Returns:
        The recipe.

    Raises:
        DataError: the seed is negative or too large.
    """
    steps = tuple(Step(name=name) for name in DEFAULT_STEPS)
    content = {"template": template, "mapping": mapping, "steps": steps, "seed": seed}
    return complete(parse(PrepRecipe, content, where="recipe", error=DataError))


class Proposed(Value):
    """A recipe for a table that nobody described yet.

    Attributes:
        layout: what was recognised, in words.
        recipe: complete, but for columns where nothing fits.
        reasons: why a column was chosen, by slot or target.
    """

    layout: str
    recipe: PrepRecipe
    reasons: Mapping[str, str]


def propose(upload: Upload, *, seed: int = 0, task: TaskKind | None = None) -> Proposed:
    """Build the default recipe for what the table seems to be, and say why.

    Args:
        upload: the table.
        seed: decides every random choice.
        task: what a person wants to learn from it; None finds out.

    Returns:
        The recipe and the reasons.
    """
    found = recognise_for(upload.columns, task) if task else recognise(upload.columns)
    mapping = found.mapping.model_copy(update={"split": _split_column(upload)})
    return Proposed(
        layout=found.layout,
        recipe=default_recipe(found.template, mapping, seed=seed),
        reasons=explain(upload.columns, mapping),
    )


def propose_recipe(upload: Upload, *, seed: int = 0) -> PrepRecipe:
    """Build the default recipe for what the table seems to be.

    Args:
        upload: the table.
        seed: decides every random choice.

    Returns:
        The recipe; its mapping may be incomplete where no column fits.
    """
    return propose(upload, seed=seed).recipe


def _split_column(upload: Upload) -> str | None:
    """Find a column called "split" that says nothing but train, validation and test."""
    for column in upload.columns:
        told = {sample.strip().casefold() for sample in column.samples}
        few = column.num_distinct <= len(SPLITS) and not column.num_empty
        if column.name.strip().casefold() == "split" and few and told <= SPLIT_NAMES.keys():
            return column.name
    return None
