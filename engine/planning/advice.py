"""What a person is told before a run: methods side by side, what would make it fit. No torch."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from templates.values import Value


class Remedy(Value):
    """One change after which the plan fits: it was estimated again with it."""

    words: str = Field(description="What to change and what that means; one sentence.")
    changes: Mapping[str, Any] = Field(
        description="New values of fields of the EstimateRequest; each replaces the old one whole."
    )


class MethodRow(Value):
    """What one method would take and give, on the chosen data and base."""

    name: str
    title: str
    family: str
    num_trainable: int = Field(description="0, as all figures, where there is no estimate.")
    trainable_ratio: float
    peak_memory_bytes: int
    low_seconds: float
    high_seconds: float
    adapter_bytes: int = Field(description="Size of what the run saves as its result.")
    inference_overhead_ratio: float = Field(
        description="Extra work to answer one request, before any merging."
    )
    overhead_words: str
    fits: bool
    blockers: tuple[str, ...] = Field(description="Why it would fail; empty: it fits.")
    warnings: tuple[str, ...]
    remedies: tuple[Remedy, ...] = Field(description="The first change that makes it fit.")
    recommended_because: str = Field(default="", description="Only in the recommended row.")
