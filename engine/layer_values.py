"""One number for some layers and another for the rest, written as "q_proj=4, layers.0.v_proj=16".

A name stands for every layer whose dotted path ends with it, part by part. Where several names
fit, the first counts. The `peft` library reads its rank_pattern and alpha_pattern in the same way.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from types import MappingProxyType

from templates.errors import PlanError

LONGEST_TEXT = 65_536  # a value for each of several hundred layers, by its whole path
_NAME = re.compile(r"\w+(\.\w+)*")


def is_called(path: str, name: str) -> bool:
    """Say whether a name stands for a layer.

    Args:
        path: of the layer, such as "model.layers.0.self_attn.q_proj".
        name: its last part, its last parts, or all of it.

    Returns:
        True for "q_proj" and "self_attn.q_proj", False for "proj".
    """
    return f".{path}".endswith(f".{name}")


@cache
def parse_values(text: str) -> Mapping[str, float]:
    """Read numbers by layer name.

    Args:
        text: name=number, separated by commas; may be empty.

    Returns:
        The numbers in the order written.

    Raises:
        ValueError: a part is not of this form, or a name comes twice.
    """
    values: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, number = (piece.strip() for piece in part.partition("="))
        if not equals or not _NAME.fullmatch(name):
            raise ValueError(f"{part!r} is not of the form q_proj=4")
        if name in values:
            raise ValueError(f"{name!r} comes twice")
        try:
            values[name] = float(number)
        except ValueError:
            raise ValueError(f"{number!r} is no number") from None
    return MappingProxyType(values)


def write_values(values: Mapping[str, float]) -> str:
    """Write numbers so that `parse_values` reads them.

    Args:
        values: by layer name.

    Returns:
        The text.
    """
    return ", ".join(f"{name}={value:.17g}" for name, value in values.items())


def value_for(values: Mapping[str, float], path: str, otherwise: float) -> float:
    """Look a layer's number up.

    Args:
        values: from `parse_values`.
        path: of the layer.
        otherwise: of layers that have no name there.

    Returns:
        The first that fits.
    """
    return next((value for name, value in values.items() if is_called(path, name)), otherwise)


def check_names(values: Mapping[str, float], paths: Sequence[str], option: str) -> None:
    """Refuse a name that stands for no layer: it is a slip of the pen.

    Args:
        values: from `parse_values`.
        paths: of the layers that take part.
        option: the setting, for the sentence.

    Raises:
        PlanError: a name fits none of them.
    """
    for name in values:
        if not any(is_called(path, name) for path in paths):
            known = ", ".join(sorted({path.rpartition(".")[2] for path in paths}))
            raise PlanError(
                f"None of the chosen layers is called {name!r}",
                where=f"option {option}",
                fix=f"Choose from {known}, or a longer part of a layer's path",
            )


def usual_value(values: Mapping[str, float]) -> float:
    """Find the number that most layers have.

    Args:
        values: by path, at least one.

    Returns:
        The most frequent; of several the first.
    """
    return Counter(values.values()).most_common(1)[0][0]


def unusual_values(values: Mapping[str, float]) -> dict[str, float]:
    """Name the layers whose number is not the usual one, as shortly as is unambiguous.

    No two of the names fit one layer, so their order does not matter.

    Args:
        values: by path, of all layers that take part.

    Returns:
        Numbers by last part of the path where all layers of that name agree, else by path.
    """
    usual = usual_value(values) if values else 0
    by_name: dict[str, dict[str, float]] = {}
    for path, value in values.items():
        by_name.setdefault(path.rpartition(".")[2], {})[path] = value
    found: dict[str, float] = {}
    for name, own in by_name.items():
        agree = len(set(own.values())) == 1
        shown = {name: next(iter(own.values()))} if agree else own
        found |= {key: value for key, value in shown.items() if value != usual}
    return found
