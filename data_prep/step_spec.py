"""What a cleaner or an augmenter tells about itself, and how the folders are listed."""

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Generic, TypeVar

from templates.dataset import StepReport
from templates.errors import DataError
from templates.example import Example
from templates.values import Value, parse

OptionsT = TypeVar("OptionsT", bound=Value)
Outcome = tuple[list[Example], StepReport]


@dataclass(frozen=True)
class CleanerSpec(Generic[OptionsT]):
    """A cleaner: one file in `cleaners/`.

    Attributes:
        name: the file name.
        title: a few words for the card.
        summary: one sentence for the card.
        options: the class of its options; forms and flags are derived from its fields.
        clean: changes or drops examples and reports it.
        only_rewrites: whether it changes texts and never drops a row; then new rows that a tuned
            model answers get it too, so that they look like those it was trained on.
    """

    name: str
    title: str
    summary: str
    options: type[OptionsT]
    clean: Callable[[Sequence[Example], OptionsT], Outcome]
    only_rewrites: bool = False


@dataclass(frozen=True)
class AugmenterSpec(Generic[OptionsT]):
    """An augmenter: one file in `augmenters/`; it only ever sees the training split.

    Attributes:
        name: the file name.
        title: a few words for the card.
        summary: one sentence for the card.
        options: the class of its options; forms and flags are derived from its fields.
        augment: gives the examples and, after them, the new ones; equal seeds give equal ones.
    """

    name: str
    title: str
    summary: str
    options: type[OptionsT]
    augment: Callable[[Sequence[Example], OptionsT, int], Outcome]


def list_specs(package: ModuleType) -> dict[str, Any]:
    """List the `SPEC` of every file in a package; the folder is the registry.

    Args:
        package: the package.

    Returns:
        Specs by name, in alphabetical order.
    """
    found = (info.name for info in pkgutil.iter_modules(package.__path__))
    modules = [importlib.import_module(f"{package.__name__}.{name}") for name in sorted(found)]
    return {module.SPEC.name: module.SPEC for module in modules}


def find_spec(specs: dict[str, Any], name: str, *, kind: str) -> Any:
    """Look a step up by name.

    Args:
        specs: the known ones.
        name: as the recipe writes it.
        kind: cleaner or augmenter, for the sentence.

    Returns:
        The spec.

    Raises:
        DataError: there is no such step.
    """
    if name not in specs:
        raise DataError(
            f"There is no {kind} called {name!r}",
            where="recipe",
            fix=f"Choose one of: {', '.join(specs)}",
        )
    return specs[name]


def parse_options(spec: Any, options: Any) -> Value:
    """Validate the options of a step.

    Args:
        spec: a cleaner or augmenter.
        options: a mapping, usually from JSON.

    Returns:
        The options with defaults filled in.

    Raises:
        DataError: an option is unknown or out of range; the sentence names it.
    """
    kind: type[Value] = spec.options
    known = tuple(kind.model_fields) or ("none",)
    return parse(kind, options, where=f"options of {spec.name}", error=DataError, known=known)
