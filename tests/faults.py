"""Says which fault a test injects; docs/reliability.md is made from these marks."""

import pytest


def fault(number: int, injected: str, outcome: str) -> pytest.MarkDecorator:
    """Mark a test; the arguments must be literals, because the table is read from the source."""
    return pytest.mark.fault(number, injected, outcome)
