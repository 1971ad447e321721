"""The curves of training, drawn once however many tabs look at them."""

from collections.abc import Sequence
from functools import lru_cache

from markupsafe import Markup

from data_prep.curves import Curves, EvaluationCurve, StepCurve
from studio.web.charts import Series, line_chart
from studio.web.html import empty
from studio.web.words import figure

_STRETCHES = 40  # a curve is smoothed over about one fortieth of its length to either side
_MOST_AHEAD = 10


@lru_cache(maxsize=64)
def loss_chart(curves: Curves, total_steps: int) -> Markup:
    """Draw how the loss falls.

    Args:
        curves: of one run.
        total_steps: where the axis ends; 0: at the last step.

    Returns:
        Training loss, smoothed, over the band of its smallest and largest; validation loss.
    """
    if not curves.steps.step and not curves.evaluations.step:
        return empty("No step taken yet", "The loss appears here with the first steps.")
    series = []
    if curves.steps.step:
        mean, band = smoothed(curves.steps)
        series.append(Series("Training", mean, band))
    if curves.evaluations.step:
        series.append(Series("Validation", _points(curves.evaluations), is_dotted=True))
    label = f"Loss. {'; '.join(_said(one) for one in series)}"
    return line_chart(series, label=label, height=300, x_max=_end(curves.steps, total_steps))


@lru_cache(maxsize=64)
def overlay_chart(runs: tuple[tuple[str, EvaluationCurve], ...]) -> Markup:
    """Draw the validation losses of several runs over each other.

    Args:
        runs: (name, curve).

    Returns:
        The chart; a sentence where there is nothing to draw.
    """
    series = [Series(name, _points(curve), is_dotted=True) for name, curve in runs if curve.step]
    if not series:
        return empty("Nothing to lay over each other yet", "A run has a curve once it is scored.")
    label = f"Validation loss of several runs. {'; '.join(_said(one) for one in series)}"
    return line_chart(series, label=label, height=240)


@lru_cache(maxsize=64)
def pace_charts(steps: StepCurve, total_steps: int) -> Markup:
    """Draw learning rate and speed.

    Args:
        steps: of one run.
        total_steps: where the axis ends; 0: at the last step.

    Returns:
        Two small charts; nothing before the first step.
    """
    if not steps.step:
        return Markup("")
    thousandths = (1000 * rate for rate in steps.learning_rate)
    rate = Series("Learning rate, in thousandths", list(zip(steps.step, thousandths, strict=True)))
    speed = Series("Tokens per second", list(zip(steps.step, steps.tokens_per_second, strict=True)))
    charts = [
        Markup('<section><h4 class="ts-chart-title">{}</h4>{}</section>').format(
            one.name,
            line_chart([one], label=_said(one), height=190, x_max=_end(steps, total_steps)),
        )
        for one in (rate, speed)
    ]
    return Markup('<div class="ts-train-pair">{}{}</div>').format(*charts)


def smoothed(
    steps: StepCurve,
) -> tuple[list[tuple[float, float]], list[tuple[float, float, float]]]:
    """Take the mean over neighbouring points, and their smallest and largest.

    Args:
        steps: at least one point.

    Returns:
        (step, mean) and (step, smallest, largest), one for each point.
    """
    reach = len(steps.step) // _STRETCHES
    mean, band = [], []
    for place, step in enumerate(steps.step):
        near = slice(max(0, place - reach), place + reach + 1)
        losses = steps.loss[near]
        mean.append((float(step), sum(losses) / len(losses)))
        band.append((float(step), min(steps.loss_min[near]), max(steps.loss_max[near])))
    return mean, band


def _points(curve: EvaluationCurve) -> list[tuple[float, float]]:
    return list(zip(map(float, curve.step), curve.loss, strict=True))


def _end(steps: StepCurve, total_steps: int) -> float | None:
    """End the axis at the planned end, but not so far away that the curve is but a spot."""
    last = steps.step[-1] if steps.step else 0
    return float(min(total_steps, _MOST_AHEAD * last)) if total_steps and last else None


def _said(series: Series) -> str:
    first, last = _value(series.points, 0), _value(series.points, -1)
    return f"{series.name}: {first} at first, {last} now"


def _value(points: Sequence[tuple[float, float]], place: int) -> str:
    return figure(points[place][1])
