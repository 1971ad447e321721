"""What is going to be trained, and how the run goes that the page is about."""

from pathlib import PurePath

from markupsafe import Markup

from engine.plan import TrainPlan
from engine.planning.estimate import CostEstimate
from studio.jobs.progress import RunProgress
from studio.jobs.run_story import Story
from studio.pages.train_log import finished_words, last_words
from studio.pages.train_runs import Run, method_words
from studio.web.html import callout, join, tiles
from studio.web.job_view import AT_WORK, job_view, state_badge
from studio.web.words import count, duration, figure, moment, size, span
from templates.dataset import Dataset


def plan_sentence(plan: TrainPlan, dataset: Dataset | None, estimate: CostEstimate | None) -> str:
    """Say in one line what will be trained and what it takes.

    Args:
        plan: the plan.
        dataset: its data, where it is still there.
        estimate: of its cost, where somebody made one.

    Returns:
        Method, base, data, time and memory.
    """
    data = ""
    if dataset is not None:
        rows = count(dataset.splits["train"].rows, "training row")
        data = f" Data: {rows} of {dataset.name}."
    words = [f"Method: {method_words(plan)}. Base: {base_words(plan)}.{data}"]
    epochs = f"{plan.schedule.epochs:g} passes over the data"
    if estimate is None:
        return f"{words[0]} {epochs}."
    steps = count(estimate.num_steps, "step")
    words.append(f"{epochs}, {steps} at most.")
    words.append(
        f"Expected: {span(estimate.low_seconds, estimate.high_seconds)} and "
        f"{size(estimate.peak_memory_bytes)} of memory."
    )
    return " ".join(words)


def base_words(plan: TrainPlan) -> str:
    """Name a plan's base for people.

    Args:
        plan: the plan.

    Returns:
        A Hub id, or the name of a folder.
    """
    if plan.base.id == "starter":
        return "the starter model"
    path = PurePath(plan.base.id)
    return path.name if path.is_absolute() else plan.base.id


def plan_notice(
    plan: TrainPlan | None,
    *,
    is_old_data: bool,
    has_older_run: bool,
    is_trained: bool,
    num_in_front: int,
    estimate: CostEstimate | None,
) -> Markup:
    """Say what one should know before starting.

    Args:
        plan: that would be trained.
        is_old_data: the data was prepared again after the plan was made.
        has_older_run: there is a run, of another plan.
        is_trained: there is a run of this plan.
        num_in_front: jobs it would have to wait for.
        estimate: of its cost.

    Returns:
        Messages; nothing where all is well.
    """
    if plan is None:
        return callout(
            "plain", "There is no plan yet", fix="Choose a method on the Plan step, then come back"
        )
    parts = []
    if is_old_data:
        parts.append(callout(
            "warn", "The data was prepared again after this plan was made",
            fix="Make the plan again to train on the new data, or train on the data as it was",
        ))  # fmt: skip
    if is_trained:
        return join(parts)
    if has_older_run:
        parts.append(callout(
            "warn", "This plan is newer than your last run",
            "The runs below show what was trained before; they are kept.",
        ))  # fmt: skip
    if estimate is not None and estimate.blockers:
        parts.append(callout(
            "warn", "It will probably not fit", " ".join(estimate.blockers),
            fix="Go back to the plan and choose what fits, or try it all the same",
        ))  # fmt: skip
    if num_in_front:
        parts.append(callout(
            "plain", f"{count(num_in_front, 'other job')} computes just now"
            if num_in_front == 1 else f"{num_in_front} other jobs compute or wait",
            "Models take turns, so that none runs out of memory. Yours starts by itself.",
        ))  # fmt: skip
    return join(parts)


def run_view(
    run: Run, progress: RunProgress, story: Story, estimated_bytes: int, *, is_stopping: bool
) -> Markup:
    """Show how a run goes.

    Args:
        run: which.
        progress: of it.
        story: of it.
        estimated_bytes: what its memory was estimated at; 0: nobody did.
        is_stopping: somebody asked it to stop.

    Returns:
        State, bar, messages, figures.
    """
    begun = f", begun {moment(run.status.started_at)}" if run.status.started_at else ""
    head = Markup('<p class="ts-run-head"><strong>{}</strong> {} <span>{}{}</span></p>').format(
        run.name, state_badge(progress), method_words(run.plan), begun
    )
    parts = [head]
    end = last_words(story)
    if is_stopping and progress.state == "running":
        parts.append(callout(
            "busy", "Stopping: it ends the step it is in, saves, and can go on later",
            fix="If it does not end within a minute, end it at once",
        ))  # fmt: skip
    if progress.state == "finished" and end is not None:
        parts.append(callout("good", "Training finished", finished_words(end)))
    parts.append(job_view(run.job, progress, title="Training"))
    if progress.total_steps:
        peak = end.peak_memory_bytes if end and progress.state == "finished" else None
        parts.append(_figures(run, progress, estimated_bytes, peak))
    return join(parts)


def _figures(
    run: Run, progress: RunProgress, estimated_bytes: int, peak_bytes: int | None
) -> Markup:
    epoch = f"pass {progress.epoch:.1f} of {run.plan.schedule.epochs:g}" if progress.epoch else ""
    best = f"best at step {progress.best_step:,}" if progress.best_step else "before the first save"
    estimate = f"estimated {size(estimated_bytes)}" if estimated_bytes else "no estimate"
    held = peak_bytes if peak_bytes is not None else progress.memory_bytes
    what = "at most; " if peak_bytes is not None else "now; " if held else ""
    facts: list[tuple[str, object, str]] = [
        ("Step", f"{progress.step:,} of {progress.total_steps:,}", epoch),
        ("Loss", _or_dash(progress.loss), "on training rows"),
        ("Validation loss", _or_dash(progress.validation_loss), best),
        ("Learning rate", _or_dash(progress.learning_rate, 3), "size of a step now"),
        (
            "Speed",
            f"{progress.tokens_per_second:,.0f}" if progress.tokens_per_second else "–",
            "tokens per second",
        ),
        ("Memory", size(held) if held else "–", f"{what}{estimate}"),
        ("Time so far", duration(progress.elapsed_seconds), "all attempts"),
    ]
    if progress.state not in AT_WORK:
        facts.append(("Ended", moment(run.status.updated_at), progress.state))
    low, high = progress.eta_low_seconds, progress.eta_high_seconds
    if progress.state in AT_WORK:
        left = span(low, high) if low is not None and high is not None else "–"
        facts.append(("Time left", left, "less if it stops improving"))
    return Markup('<div class="ts-train-figures">{}</div>').format(tiles(facts))


def _or_dash(number: float | None, digits: int = 4) -> str:
    return "–" if number is None else figure(number, digits)
