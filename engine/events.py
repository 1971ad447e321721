"""What a run reports, one small value after the other. Free of torch."""

from dataclasses import asdict, dataclass
from typing import Any

from templates.files import canonical_json


@dataclass(frozen=True)
class Started:
    """The model is in memory and the first step is next."""

    total_steps: int
    first_step: int
    num_trainable: int
    num_parameters: int
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stepped:
    """One optimizer step was taken."""

    step: int
    loss: float
    learning_rate: float
    gradient_norm: float
    num_tokens: int
    seconds: float


@dataclass(frozen=True)
class Evaluated:
    """The validation split was scored; `loss` is per supervised token."""

    step: int
    loss: float
    token_accuracy_ratio: float
    is_best: bool
    seconds: float


@dataclass(frozen=True)
class Saved:
    """A checkpoint is safely on disk."""

    step: int
    folder: str
    is_best: bool


@dataclass(frozen=True)
class Finished:
    """The run reached its end; `best_step` holds the weights to use."""

    step: int
    best_step: int
    best_loss: float
    reason: str
    seconds: float
    peak_memory_bytes: int


@dataclass(frozen=True)
class Stopped:
    """Somebody asked the run to stop; it saved and can be resumed."""

    step: int


@dataclass(frozen=True)
class Failed:
    """The run cannot go on."""

    what: str
    fix: str


Event = Started | Stepped | Evaluated | Saved | Finished | Stopped | Failed
_KINDS = {
    kind.__name__: kind for kind in (Started, Stepped, Evaluated, Saved, Finished, Stopped, Failed)
}


def to_json(event: Event, at: float) -> str:
    """Write an event as one JSON line.

    Args:
        event: the event.
        at: UTC seconds.

    Returns:
        JSON without a line break.
    """
    return canonical_json({"event": type(event).__name__, "at": at, **asdict(event)})


def from_dict(content: dict[str, Any]) -> Event:
    """Read what `to_json` wrote.

    Args:
        content: the parsed JSON object.

    Returns:
        The event, without its time.
    """
    fields = {key: value for key, value in content.items() if key not in ("event", "at")}
    if "notices" in fields:
        fields["notices"] = tuple(fields["notices"])
    event: Event = _KINDS[content["event"]](**fields)
    return event
