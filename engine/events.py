"""What a run reports, one small value after the other. Free of torch."""

import json
from dataclasses import dataclass, fields
from typing import get_args


@dataclass(frozen=True)
class Launched:
    """A worker took the job: first in every attempt. It says which process to look for.

    Attributes:
        pid: its process id.
        process_started: when the system started that process, in the system's own units.
        boot_id: the boot in which that was.
        memory_kills: processes that the system had ended until then because memory ran out.
        estimated_peak_bytes: what the plan was said to need; 0: nobody said.
        memory_available_bytes: what was free when that was said.
        until_step: pause there; 0: go on to the end.
    """

    pid: int
    process_started: int
    boot_id: str
    memory_kills: int
    estimated_peak_bytes: int = 0
    memory_available_bytes: int = 0
    until_step: int = 0


@dataclass(frozen=True)
class Progressed:
    """Work that has no steps, or comes before them, went on; `words` says where it stands."""

    done_ratio: float
    words: str


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
class Sample:
    """What the model in training answers to one validation example; texts may be shortened.

    Attributes:
        prompt: the example in the template's wording; of a conversation its turns so far.
        expected: the answer in the data; of several the first.
        answer: the model's own, greedy, or the likeliest label.
        source_rows: 1-based data rows of the upload.
    """

    prompt: str
    expected: str
    answer: str
    source_rows: tuple[int, ...]


@dataclass(frozen=True)
class Sampled:
    """A few validation examples were answered; at step 0 by the model before its first step."""

    step: int
    samples: tuple[Sample, ...]
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
class Delivered:
    """A job other than training is done; `outputs` are files and folders beside its request."""

    outputs: tuple[str, ...]
    seconds: float
    peak_memory_bytes: int


@dataclass(frozen=True)
class Noticed:
    """Something that a person should know; the work goes on."""

    words: str


@dataclass(frozen=True)
class Degraded:
    """The disk refused events for a while; the work itself went on."""

    num_lost: int
    reason: str


@dataclass(frozen=True)
class Stopped:
    """Somebody asked for it, or the step to pause at was reached; it saved and can go on.

    Attributes:
        step: the last one that is saved; 0 where nothing is.
        best_loss: the best validation loss so far, where there is one.
    """

    step: int
    best_loss: float | None = None


@dataclass(frozen=True)
class Failed:
    """The job cannot go on; the three parts of a sentence."""

    what: str
    fix: str
    where: str = ""


Event = (
    Launched
    | Progressed
    | Started
    | Stepped
    | Evaluated
    | Sampled
    | Saved
    | Finished
    | Delivered
    | Noticed
    | Degraded
    | Stopped
    | Failed
)
_KINDS: dict[str, type[Event]] = {kind.__name__: kind for kind in get_args(Event)}
_TUPLES = ("notices", "outputs")


@dataclass(frozen=True)
class Stamped:
    """An event with the two clocks it was written by.

    Attributes:
        event: what happened.
        at: UTC seconds, for people; that clock may jump.
        monotonic_seconds: a clock that cannot, for durations within one boot.
    """

    event: Event
    at: float
    monotonic_seconds: float


def to_json(stamped: Stamped) -> str:
    """Write an event as one JSON line.

    Args:
        stamped: the event.

    Returns:
        JSON without a line break; numbers with six digits, so that an hour stays small.
    """
    event = stamped.event
    content = {
        "event": type(event).__name__,
        "at": round(stamped.at, 3),
        "monotonic_seconds": round(stamped.monotonic_seconds, 3),
    }
    for field in fields(event):
        value = getattr(event, field.name)
        content[field.name] = float(f"{value:.6g}") if isinstance(value, float) else value
    return json.dumps(
        content, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=vars
    )


def from_json(line: str | bytes) -> Stamped:
    """Read what `to_json` wrote, now or in an older version.

    Args:
        line: one line.

    Returns:
        The event with its times.

    Raises:
        ValueError: the line is torn or of an unknown kind.
    """
    try:
        content = json.loads(line)
        kind = _KINDS[content.pop("event")]
        at = float(content.pop("at"))
        monotonic_seconds = float(content.pop("monotonic_seconds", 0.0))
        for name in _TUPLES:
            if name in content:
                content[name] = tuple(content[name])
        if "samples" in content:
            content["samples"] = tuple(_sample(**sample) for sample in content["samples"])
        return Stamped(kind(**content), at, monotonic_seconds)
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(str(error)) from None


def _sample(*, source_rows: list[int], **texts: str) -> Sample:
    return Sample(source_rows=tuple(source_rows), **texts)
