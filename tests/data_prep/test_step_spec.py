import re
from typing import Any

import pytest

from data_prep import augmenters, cleaners
from data_prep.step_spec import list_specs, parse_options
from templates.errors import DataError

SPECS = {**list_specs(cleaners), **list_specs(augmenters)}
OPTIONS = [(name, field) for name, spec in SPECS.items() for field in spec.options.model_fields]


def test_the_folders_are_the_registry() -> None:
    for package in (cleaners, augmenters):
        specs = list_specs(package)
        assert specs
        for name, spec in specs.items():
            module = type(spec).__module__ and spec.options.__module__
            assert module == f"{package.__name__}.{name}", "SPEC is named like its file"
            assert f"{name}.py" in (package.__doc__ or ""), "the room sign names every file"
            assert spec.title and spec.summary.endswith(".")
            for field in spec.options.model_fields.values():
                assert field.title and field.description and not field.is_required()


@pytest.mark.parametrize(
    "odd",
    [
        None,
        [],
        [1],
        {},
        {"a": [None]},
        "?",
        float("nan"),
        float("inf"),
        -1,
        pytest.param(object(), id="object"),
    ],
    ids=repr,
)
@pytest.mark.parametrize(("name", "field"), OPTIONS)
def test_an_option_of_an_odd_type_is_named(name: str, field: str, odd: Any) -> None:
    place = re.escape(f"options of {name}")
    with pytest.raises(DataError, match=rf"^{field}: .*but it is .*{place}.*Correct {field};"):
        parse_options(SPECS[name], {field: odd})


@pytest.mark.parametrize("odd", [None, [], [["a", 1]], "text", 3], ids=repr)
@pytest.mark.parametrize("name", SPECS)
def test_options_that_are_no_mapping(name: str, odd: Any) -> None:
    with pytest.raises(DataError, match=rf"options of {name}"):
        parse_options(SPECS[name], odd)
