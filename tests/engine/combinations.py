"""Every method in every precision on every architecture: the pairs at every run, the rest apart."""

from collections.abc import Iterator

import pytest

from engine.methods import all_methods
from tests.engine.tiny import ARCHITECTURES


def _combinations() -> Iterator[object]:
    """All of them; what is not needed for every pair of two to occur is left to the matrix."""
    for shift, spec in enumerate(all_methods().values()):
        for place, architecture in enumerate(ARCHITECTURES):
            paired = {spec.precisions[(place + shift) % len(spec.precisions)]}
            if place == shift % len(ARCHITECTURES):  # of more precisions than architectures
                paired |= set(spec.precisions[len(ARCHITECTURES) :])
            for precision in spec.precisions:
                yield pytest.param(
                    spec, precision, architecture,
                    id=f"{spec.name}-{precision}-{architecture}",
                    marks=() if precision in paired else pytest.mark.matrix,
                )  # fmt: skip


in_all_combinations = pytest.mark.parametrize(
    ("spec", "precision", "architecture"), list(_combinations())
)
