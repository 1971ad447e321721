"""The tuning methods, one file each; the folder is the registry."""

import importlib
import pkgutil
from functools import cache

from engine.method import MethodSpec
from templates.errors import PlanError


@cache
def all_methods() -> dict[str, MethodSpec]:
    """Find every method by listing this folder.

    Returns:
        Specs by name, in alphabetical order.
    """
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return {name: importlib.import_module(f"{__name__}.{name}").SPEC for name in names}


def get_method(name: str) -> MethodSpec:
    """Look a method up.

    Args:
        name: its file name.

    Returns:
        The spec.

    Raises:
        PlanError: there is no such method.
    """
    methods = all_methods()
    if name not in methods:
        raise PlanError(
            f"There is no method called {name!r}",
            where="method",
            fix=f"Choose from {', '.join(methods)}",
        )
    return methods[name]
