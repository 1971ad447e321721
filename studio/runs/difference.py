"""Two jobs of a kind side by side: the settings that differ, and for runs what came of them."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from engine.events import Evaluated, from_json
from engine.jobs import Job
from templates.errors import RunError

# Measured when the job was submitted, chosen by nobody.
_NOT_CHOSEN = ("estimated_peak_bytes", "memory_available_bytes")


@dataclass(frozen=True)
class Row:
    """One thing of both jobs, as it stands in JSON; None where a job does not have it."""

    name: str
    left: Any
    right: Any


@dataclass(frozen=True)
class Difference:
    """Where two jobs differ.

    Attributes:
        kind: of both.
        left: id of the first.
        right: id of the second.
        settings: those that differ, by dotted name.
        results: of runs, whether they differ or not; empty for other kinds.
    """

    kind: str
    left: str
    right: str
    settings: tuple[Row, ...]
    results: tuple[Row, ...]


def difference(left: Job, right: Job) -> Difference:
    """Compare what two jobs were asked to do.

    Args:
        left: a job.
        right: another of the same kind.

    Returns:
        The settings that differ, and the results of runs.

    Raises:
        RunError: they are of different kinds, or one cannot be read.
    """
    kind = left.kind
    if right.kind != kind:
        raise RunError(
            f"A {kind} job and a {right.kind} job have no settings in common",
            where=f"{left.id}, {right.id}",
            fix="Give two jobs of the same kind",
        )
    settings = _rows(flat(left.request(kind)), flat(right.request(kind)))
    changed = [row for row in settings if row.left != row.right and row.name not in _NOT_CHOSEN]
    results = _rows(_results(left), _results(right)) if kind == "train" else []
    return Difference(kind, left.id, right.id, tuple(changed), tuple(results))


def flat(content: Any, prefix: str = "") -> dict[str, Any]:
    """Give every setting a dotted name.

    Args:
        content: JSON-ready.
        prefix: the name so far.

    Returns:
        Name -> value; a list is one value unless it holds settings with names of their own.
    """
    if isinstance(content, list) and any(isinstance(item, dict) for item in content):
        content = {str(number): item for number, item in enumerate(content, 1)}
    if not isinstance(content, dict):
        return {prefix: content}
    named: dict[str, Any] = {}
    for name, value in content.items():
        named |= flat(value, f"{prefix}.{name}" if prefix else name)
    return named


def _rows(left: dict[str, Any], right: dict[str, Any]) -> list[Row]:
    return [Row(name, left.get(name), right.get(name)) for name in {**left, **right}]


def _results(job: Job) -> dict[str, Any]:
    status = job.status()
    losses = [event.loss for event in job.events() if isinstance(event, Evaluated)]
    return {
        "state": status.state,
        "best_loss": min(losses, default=None),
        "steps": status.step,
        "seconds": round(sum(_durations_seconds(job)), 1),
    }


def _durations_seconds(job: Job) -> Iterator[float]:
    """How long each attempt wrote, by the clock that does not jump."""
    for path in job.attempt_events().values():
        clock = []
        for line in path.read_bytes().split(b"\n"):
            with contextlib.suppress(ValueError):  # torn
                clock.append(from_json(line).monotonic_seconds)
        yield clock[-1] - clock[0] if clock else 0.0
