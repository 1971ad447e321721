"""What happened in a run, in sentences."""

import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from markupsafe import Markup

from engine.events import (
    Degraded,
    Evaluated,
    Event,
    Failed,
    Finished,
    Launched,
    Noticed,
    Progressed,
    Saved,
    Started,
    Stopped,
)
from studio.jobs.launcher import LOG
from studio.jobs.run_story import Story
from studio.web.html import Tone, empty, join, visible
from studio.web.words import count, duration, figure, percent, size

_LOG_BYTES = 16 << 10
_TONES: dict[type[Event], Tone] = {
    Finished: "good", Stopped: "warn", Failed: "bad", Noticed: "warn", Degraded: "warn",
}  # fmt: skip


@lru_cache(maxsize=64)
def log_view(story: Story) -> Markup:
    """Tell what happened, the newest first.

    Args:
        story: of a run.

    Returns:
        A list with times.
    """
    lines = [
        Markup('<li class="{}"><time>{}</time><span>{}</span></li>').format(
            f"ts-{_TONES[type(stamped.event)]}" if type(stamped.event) in _TONES else "",
            time.strftime("%H:%M:%S", time.localtime(stamped.at)),
            visible(sentence),
        )
        for stamped in story.events
        for sentence in sentences(stamped.event)
    ]
    if not lines:
        return empty("Nothing has happened yet", "Each thing that happens is told here.")
    return Markup(
        '<div class="ts-train-log" tabindex="0" role="log" aria-label="What happened">'
        "<ol>{}</ol></div>"
    ).format(join(reversed(lines)))


def sentences(event: Event) -> Iterator[str]:
    """Say what happened.

    Args:
        event: of a train job.

    Yields:
        Sentences; none for what shows elsewhere.
    """
    match event:
        case Launched(until_step=until_step):
            pause = f"; it will pause at step {until_step:,}" if until_step else ""
            yield f"A worker process took the run{pause}."
        case Progressed(words=words):
            yield f"{words[:1].upper()}{words[1:]}."
        case Started():
            yield _started(event)
            yield from event.notices
        case Evaluated():
            best = ", the best so far" if event.is_best else ""
            yield (
                f"Checked on validation rows at step {event.step:,}: loss {figure(event.loss, 4)}, "
                f"{percent(event.token_accuracy_ratio, 0)} of the answer's tokens right{best}."
            )
        case Saved(step=step):
            yield f"Saved at step {step:,}."
        case Finished():
            yield finished_words(event)
        case Stopped(step=step):
            yield f"Stopped; everything up to step {step:,} is saved." if step else "Stopped."
        case Failed():
            yield f"{event.what}. {event.fix}."
        case Noticed(words=words):
            yield words
        case Degraded():
            yield f"{count(event.num_lost, 'event')} could not be written: {event.reason}."


def finished_words(event: Finished) -> str:
    """Say how a run ended, without judging it.

    Args:
        event: its last word.

    Returns:
        Why, steps, time, memory and the loss of the weights that are kept.
    """
    return (
        f"{event.reason.capitalize()}: {count(event.step, 'step')} in {duration(event.seconds)} "
        f"with at most {size(event.peak_memory_bytes)} of memory. Kept are the weights of step "
        f"{event.best_step:,}, with the lowest validation loss, {figure(event.best_loss, 4)}."
    )


def last_words(story: Story) -> Finished | None:
    """Find how a run ended.

    Args:
        story: of a run.

    Returns:
        Its last word; None where it did not finish.
    """
    ends = (stamped.event for stamped in reversed(story.events))
    return next((event for event in ends if isinstance(event, Finished)), None)


def planned_steps(story: Story) -> int:
    """Find how long a run is to be, also while it is loaded again.

    Args:
        story: of a run.

    Returns:
        Steps; 0 where it never began.
    """
    events = (stamped.event for stamped in reversed(story.events))
    return next((event.total_steps for event in events if isinstance(event, Started)), 0)


def raw_log(folder: Path) -> str:
    """Read the end of what libraries printed.

    Args:
        folder: of a job.

    Returns:
        At most 16 KiB of text, as it was printed; empty where there is none.
    """
    try:
        with (folder / LOG).open("rb") as file:
            end = file.seek(0, 2)
            file.seek(max(0, end - _LOG_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    return text if end <= _LOG_BYTES else "…" + text.partition("\n")[2]


def _started(event: Started) -> str:
    if event.first_step > 1:
        return (
            f"The model is in memory again; it goes on with step {event.first_step:,} of "
            f"{event.total_steps:,}."
        )
    learns = percent(event.num_trainable / event.num_parameters) if event.num_parameters else "some"
    return (
        f"The model is in memory: {event.num_trainable:,} of its {event.num_parameters:,} numbers "
        f"learn ({learns}), in {count(event.total_steps, 'step')} at most."
    )
