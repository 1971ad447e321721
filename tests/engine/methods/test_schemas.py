"""What forms are made of: every field of every method, of the schedule and of the limits."""

from typing import Any

import pytest
from pydantic import ValidationError

from engine.method import MethodSpec
from engine.methods import all_methods
from engine.plan import Limits, Schedule
from engine.service import describe_methods

DESCRIBED = describe_methods()
SCHEMAS = {
    "schedule": DESCRIBED["schedule"],
    "limits": DESCRIBED["limits"],
    **{name: method["options"] for name, method in DESCRIBED["methods"].items()},
}
FIELDS = [
    pytest.param(field, id=f"{place}-{name}")
    for place, schema in SCHEMAS.items()
    for name, field in schema.get("properties", {}).items()
]


def is_bounded(field: dict[str, Any]) -> bool:
    if "enum" in field or field["type"] == "boolean":
        return True
    if field["type"] in ("integer", "number"):
        low = {"minimum", "exclusiveMinimum"} & field.keys()
        return bool(low) and bool({"maximum", "exclusiveMaximum"} & field.keys())
    if field["type"] == "array":
        return "maxItems" in field and is_bounded(field["items"])
    return "maxLength" in field


@pytest.mark.parametrize("field", FIELDS)
def test_a_field_has_title_description_and_range(field: dict[str, Any]) -> None:
    assert field["title"] and field["description"]
    assert is_bounded(field), field


@pytest.mark.parametrize("place", SCHEMAS)
def test_few_fields_are_for_newcomers(place: str) -> None:
    simple = [
        name for name, field in SCHEMAS[place].get("properties", {}).items() if field.get("simple")
    ]
    assert len(simple) <= 3
    assert place != "schedule" or simple == ["learning_rate", "epochs"]
    assert place != "lora" or simple == ["rank"]


@pytest.mark.parametrize("spec", all_methods().values(), ids=lambda spec: spec.name)
def test_a_method_says_in_plain_words_when_to_choose_it(spec: MethodSpec) -> None:
    words = spec.when_to_choose
    assert words.endswith(".") and 1 <= words.count(". ") + 1 <= 2 and len(words) < 200
    assert DESCRIBED["methods"][spec.name]["when_to_choose"] == words
    assert DESCRIBED["methods"][spec.name]["servable_by"]
    # Whatever is published is opened by one of these; nothing else is claimed without a form.
    assert any("transformers" in name for name in spec.servable_by)
    assert ("transformers + peft" in spec.servable_by) == (spec.export is not None)
    assert ("llama.cpp" in spec.servable_by) == (spec.merge is not None)


def test_no_two_methods_share_a_place() -> None:
    places = [spec.quality_place for spec in all_methods().values()]
    assert len(set(places)) == len(places)


@pytest.mark.parametrize(
    "change", [{"max_gradient_norm": 1001}, {"learning_rate": 11}], ids=lambda change: min(change)
)
def test_the_ranges_are_kept(change: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Schedule.model_validate({"learning_rate": 1, **change})
    with pytest.raises(ValidationError):
        Limits(max_length_tokens=2**20 + 1)
