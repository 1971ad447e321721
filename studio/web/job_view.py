"""How a job goes, as every step shows it: place in the line, a bar, what went wrong."""

from markupsafe import Markup

from engine.jobs import Job
from studio.jobs.progress import RunProgress
from studio.web.html import Tone, badge, bar, callout, code, join
from studio.web.words import duration, span

TONES: dict[str, Tone] = {
    "queued": "plain", "running": "busy", "finished": "good", "stopped": "warn", "failed": "bad",
    "interrupted": "bad",
}  # fmt: skip
AT_WORK = ("queued", "running")


def state_badge(progress: RunProgress) -> Markup:
    """Name the state of a job.

    Args:
        progress: of the job.

    Returns:
        A badge.
    """
    place = f", place {progress.place} in the line" if progress.place else ""
    return badge(progress.state + place, TONES[progress.state])


def job_view(job: Job, progress: RunProgress, *, title: str) -> Markup:
    """Show where a job stands; nothing where it has finished.

    Args:
        job: the job.
        progress: of it.
        title: what it does, such as "Preparing the data".

    Returns:
        A bar while it works, and a message where it has no happy end.
    """
    parts: list[Markup] = []
    if progress.state in AT_WORK:
        parts.append(bar(progress.done_ratio, _words(progress), label=title))
        if progress.is_silent:
            parts.append(callout(
                "warn", "It has not said anything for a while",
                fix="Wait a little; if nothing changes, stop it and start again",
            ))  # fmt: skip
    elif progress.failure is not None:
        failure = progress.failure
        parts.append(callout("bad", failure.what, failure.where, fix=failure.fix))
    elif progress.state == "stopped":
        parts.append(callout("warn", "It was stopped", fix="Start it again, or go on where it was"))
    parts += [callout("plain", notice) for notice in progress.notices]
    if progress.state in ("failed", "interrupted"):
        parts.append(code(f"python app.py jobs logs {job.id}", label="what it said"))
    return join(parts)


def _words(progress: RunProgress) -> str:
    if progress.state == "queued":
        return f"Waits; place {progress.place} in the line"
    words = [progress.words or "starting"]
    words.append(f"{duration(progress.elapsed_seconds)} so far")
    if progress.eta_low_seconds is not None and progress.eta_high_seconds is not None:
        words.append(f"{span(progress.eta_low_seconds, progress.eta_high_seconds)} to go")
    return " · ".join(words)
