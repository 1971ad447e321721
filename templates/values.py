"""The base of every value that crosses a form or a file."""

from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from templates.errors import StudioError

ModelT = TypeVar("ModelT", bound=BaseModel)


class Value(BaseModel):
    """A frozen value: unknown keys, NaN and infinity are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def first_problem(error: ValidationError) -> tuple[str, str]:
    """Put pydantic's first complaint in words.

    Args:
        error: what validation raised.

    Returns:
        The dotted field name and the complaint as a clause.
    """
    problem = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in problem["loc"]) or "value"
    if problem["type"] in ("model_type", "dict_type") and not problem["loc"]:
        return field, "this is not a list of settings and their values"
    if problem["type"] == "extra_forbidden":
        return field, f"there is no setting called {field!r}"
    if problem["type"] == "missing":
        return field, f"{field} is missing"
    message = problem["msg"].removeprefix("Value error, ")
    got = problem.get("input")
    return field, f"{field}: {message[0].lower() + message[1:]}, but it is {got!r}"


def parse(
    kind: type[ModelT],
    content: Any,
    *,
    where: str,
    error: type[StudioError],
    known: Sequence[str] = (),
) -> ModelT:
    """Validate content as `kind`, or say which field is wrong.

    Args:
        kind: the value class.
        content: a mapping, usually from JSON or YAML.
        where: the file or form, for the sentence.
        error: the StudioError subclass to raise.
        known: the names to list when a field is unknown; default: the fields of `kind`.

    Returns:
        The validated value.

    Raises:
        StudioError: a field is wrong, missing or unknown.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as problems:
        field, clause = first_problem(problems)
    # Outside the except block: pydantic's error, kept as context, would hold frames forever.
    names = ", ".join(known or kind.model_fields)
    raise error(clause, where=where, fix=f"Correct {field}; the settings are: {names}")
