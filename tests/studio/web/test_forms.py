from typing import Literal

import gradio as gr
import pytest
from pydantic import Field

from engine.plan import Limits, Schedule
from studio.web.forms import component, fields_of, values_of
from templates.errors import PlanError
from templates.values import Value


class Options(Value):
    rank: int = Field(default=8, ge=1, le=256, title="Rank", description="Size of the update.",
                      json_schema_extra={"simple": True})  # fmt: skip
    dropout: float = Field(default=0.0, ge=0, lt=1, title="Dropout")
    start: Literal["random", "text"] = "random"
    words: str | None = Field(default=None, title="Start text")
    targets: tuple[str, ...] = ("q_proj", "v_proj")
    is_on: bool = False


FIELDS = fields_of(Options.model_json_schema())


def test_a_form_has_a_component_for_each_field() -> None:
    kinds = [type(component(field)) for field in FIELDS]

    assert kinds == [gr.Number, gr.Number, gr.Dropdown, gr.Textbox, gr.Textbox, gr.Checkbox]
    assert [field.is_simple for field in FIELDS] == [True, *[False] * 5]
    assert "Range: 1 to 256." in component(FIELDS[0]).info


def test_what_is_not_touched_gives_the_defaults() -> None:
    values = [component(field).value for field in FIELDS]

    assert Options.model_validate(values_of(FIELDS, values)) == Options()


@pytest.mark.parametrize(
    ("rank", "words"),
    [(None, "Rank is missing its value"), ("abc", "Rank is not a number"), (0, "cannot be 0"),
     (257, "Give a number 1 to 256"), (float("nan"), "not a number"), (True, "not a number")],
)  # fmt: skip
def test_a_wrong_number_names_its_field(rank: object, words: str) -> None:
    with pytest.raises(PlanError, match=words):
        values_of(FIELDS[:1], [rank])


def test_a_list_is_written_with_commas() -> None:
    field = next(field for field in FIELDS if field.name == "targets")

    assert component(field).value == "q_proj, v_proj"
    assert values_of([field], [" a, ,b "]) == {"targets": ["a", "b"]}


@pytest.mark.parametrize("model", [Schedule, Limits])
def test_the_studios_own_settings_can_be_asked_for(model: type[Value]) -> None:
    schema = model.model_json_schema()
    fields = fields_of(schema)

    assert [field.name for field in fields] == list(schema["properties"])
    assert all(field.description for field in fields)
