import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_prep.mapping import ColumnMapping
from data_prep.recipe import (
    DEFAULT_STEPS,
    PrepRecipe,
    Step,
    all_augmenters,
    all_cleaners,
    complete,
    default_recipe,
    propose_recipe,
)
from data_prep.upload import load_upload
from templates.builtin import TEMPLATES
from templates.errors import DataError

MAPPING = ColumnMapping(fields={"text": "text"}, label="label")


def test_the_default_runs_every_cleaner() -> None:
    assert set(DEFAULT_STEPS) == set(all_cleaners())
    assert set(all_augmenters()) == {"word_noise"}


def test_json_round_trip() -> None:
    recipe = default_recipe(TEMPLATES["classification"], MAPPING, seed=7)
    assert PrepRecipe.model_validate(json.loads(recipe.to_json())) == recipe
    assert recipe.to_json() == complete(recipe).to_json()


def test_defaults_are_written_out() -> None:
    recipe = PrepRecipe(
        template=TEMPLATES["classification"],
        mapping=MAPPING,
        steps=(Step(name="length", options={"max_characters": 50}),),
        augmenters=(Step(name="word_noise"),),
    )
    assert complete(recipe).steps[0].options == {"min_characters": 1, "max_characters": 50}
    assert complete(recipe).augmenters[0].options["copies"] == 1


def test_a_recipe_for_what_the_table_seems_to_be(
    make_upload: Callable[..., Path], labelled_csv: str
) -> None:
    recipe = propose_recipe(load_upload(make_upload(labelled_csv)), seed=3)
    assert recipe.template.task == "classification"
    assert (recipe.mapping, recipe.seed) == (MAPPING, 3)


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, None, [1]], ids=repr)
def test_a_seed_that_cannot_be_is_named(seed: Any) -> None:
    with pytest.raises(DataError, match=r"^seed: .*but it is .*\(recipe\)\. Correct seed"):
        default_recipe(TEMPLATES["classification"], MAPPING, seed=seed)


def test_a_split_column_is_used_only_if_it_says_nothing_else(
    make_upload: Callable[..., Path],
) -> None:
    rows = [f"text {n},{'ab'[n % 2]},{('train', 'Dev', 'test')[n % 3]}" for n in range(30)]
    told = make_upload("\n".join(["text,label,split", *rows]))
    assert propose_recipe(load_upload(told)).mapping.split == "split"
    other = make_upload("\n".join(["text,label,split", *rows, "x,a,banana"]))
    assert propose_recipe(load_upload(other)).mapping.split is None
