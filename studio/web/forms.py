"""Forms from pydantic's JSON schema: a component for each field, and back to the field's value.

What a form accepts is only a help: the value is checked again by the pydantic model it is for.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.components import Component

from templates.errors import PlanError, StudioError

_LONG_CHARACTERS = 60


@dataclass(frozen=True)
class Field:
    """One field of a schema.

    Attributes:
        name: as the model calls it.
        title: as a person reads it.
        description: one sentence.
        kind: how it is asked for.
        choices: for "choice" and "choices".
        default: what it is if nobody says anything.
        minimum: of a number, where there is one.
        maximum: of a number, where there is one.
        is_whole: whether a number has no fraction.
        is_optional: whether it may be left empty, which is None.
        is_simple: whether a newcomer is asked for it.
    """

    name: str
    title: str
    description: str
    kind: str
    choices: Sequence[Any]
    default: Any
    minimum: float | None
    maximum: float | None
    is_whole: bool
    is_optional: bool
    is_simple: bool


def fields_of(schema: Mapping[str, Any]) -> list[Field]:
    """Read the fields of a model that is made of plain values.

    Args:
        schema: what `model_json_schema` gives.

    Returns:
        Fields in the order of the model; those that hold other models are left out.
    """
    found = []
    for name, content in schema.get("properties", {}).items():
        field = _field(name, content, schema.get("$defs", {}))
        if field is not None:
            found.append(field)
    return found


def component(field: Field, value: Any = None, **settings: Any) -> Component:
    """Make the component that asks for a field.

    Args:
        field: which.
        value: what it holds; None: the default.
        **settings: of the component, such as `key`.

    Returns:
        The component.
    """
    value = field.default if value is None else value
    common: dict[str, Any] = {
        "label": field.title,
        "info": info_of(field),
        "interactive": True,
        **settings,
    }
    if field.kind == "boolean":
        return gr.Checkbox(value=bool(value), **common)
    if field.kind == "choice":
        choices = [("–", "")] if field.is_optional else []
        choices += [(_read(choice), choice) for choice in field.choices]
        return gr.Dropdown(choices, value="" if value is None else value, **common)
    if field.kind == "choices":
        picked = [(_read(choice), choice) for choice in field.choices]
        return gr.CheckboxGroup(picked, value=list(value or ()), **common)
    if field.kind == "number":
        return gr.Number(
            value=value,
            precision=0 if field.is_whole else None,
            **common,
        )
    if field.kind == "list":
        return gr.Textbox(", ".join(map(str, value or ())), lines=1, **common)
    text = "" if value is None else str(value)
    return gr.Textbox(text, lines=3 if len(text) > _LONG_CHARACTERS else 1, **common)


def values_of(
    fields: Sequence[Field], values: Sequence[Any], *, error: type[StudioError] = PlanError
) -> dict[str, Any]:
    """Turn what components hold into values for the model.

    Args:
        fields: which were asked for.
        values: of their components, in the same order.
        error: what kind to raise.

    Returns:
        Values by name.

    Raises:
        StudioError: a number is missing, out of its range, or no number.
    """
    return {
        field.name: _value(field, value, error) for field, value in zip(fields, values, strict=True)
    }


def _value(field: Field, value: Any, error: type[StudioError]) -> Any:
    if field.kind == "number":
        return _number(field, value, error)
    if field.kind == "list":
        return [part.strip() for part in str(value or "").split(",") if part.strip()]
    if value in (None, "") and field.is_optional:
        return None
    return value


def _number(field: Field, value: Any, error: type[StudioError]) -> Any:
    if value is None or value == "":
        if field.is_optional:
            return None
        raise error(f"{field.title} is missing its value", fix=f"Give a number{_range(field)}")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise error(f"{field.title} is not a number", fix=f"Give a number{_range(field)}")
    if (field.minimum is not None and value < field.minimum) or (
        field.maximum is not None and value > field.maximum
    ):
        raise error(
            f"{field.title} cannot be {value:g}", where=field.name,
            fix=f"Give a number{_range(field)}",
        )  # fmt: skip
    return int(value) if field.is_whole and float(value).is_integer() else value


def _field(name: str, content: Mapping[str, Any], shared: Mapping[str, Any]) -> Field | None:
    options = content.get("anyOf", [content])
    kinds = [_resolved(option, shared) for option in options]
    is_optional = any(kind.get("type") == "null" for kind in kinds)
    main = next((kind for kind in kinds if kind.get("type") != "null"), {})
    kind, choices = _kind(main, shared)
    if not kind:
        return None
    low = main.get("minimum", main.get("exclusiveMinimum"))
    high = main.get("maximum", main.get("exclusiveMaximum"))
    return Field(
        name=name,
        title=content.get("title", name.replace("_", " ").capitalize()),
        description=content.get("description", ""),
        kind=kind,
        choices=choices,
        default=content.get("default"),
        minimum=low,
        maximum=high,
        is_whole=main.get("type") == "integer",
        is_optional=is_optional,
        is_simple=bool(content.get("simple", False)),
    )


def _kind(content: Mapping[str, Any], shared: Mapping[str, Any]) -> tuple[str, Sequence[Any]]:
    if "enum" in content:
        return "choice", content["enum"]
    if "const" in content:
        return "choice", [content["const"]]
    kind = content.get("type")
    if kind == "array":
        items = _resolved(content.get("items", {}), shared)
        return ("choices", items["enum"]) if "enum" in items else ("list", ())
    known = {"boolean": "boolean", "integer": "number", "number": "number", "string": "text"}
    return known.get(str(kind), ""), ()


def _resolved(content: Mapping[str, Any], shared: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = content.get("$ref", "")
    return shared.get(reference.rpartition("/")[2], {}) if reference else content


def info_of(field: Field) -> str:
    """Write what stands under a field.

    Args:
        field: which.

    Returns:
        Its description, and the range of a number.
    """
    ends = _range(field) if field.kind == "number" else ""
    return f"{field.description}{ends and f' Range:{ends}.'}".strip() or field.title


def _range(field: Field) -> str:
    if field.minimum is not None and field.maximum is not None:
        return f" {field.minimum:,.10g} to {field.maximum:,.10g}"
    if field.minimum is not None:
        return f" {field.minimum:,.10g} or more"
    return f" {field.maximum:,.10g} or less" if field.maximum is not None else ""


def _read(choice: Any) -> str:
    return str(choice).replace("_", " ")
