"""The verdict of a comparison and what it rests on, as pieces of a page."""

from collections.abc import Iterator, Mapping

from markupsafe import Markup

from engine.comparing.comparison import (
    Arm,
    ArmName,
    Comparison,
    Outcome,
    Score,
    Search,
    pairing_sentence,
    sentence,
)
from studio.web.charts import Interval, interval_plot
from studio.web.html import Tone, callout, details, join, section, table, tiles, visible
from studio.web.words import count, duration

NAMES: Mapping[ArmName, str] = {
    "tuned": "Tuned model",
    "few_shot": "Few-shot prompt",
    "zero_shot": "Zero-shot prompt",
    "untuned": "Untuned model",
    "constant": "Always one label",
    "classical": "Classical model",
}
_MEANING: Mapping[ArmName, str] = {
    "tuned": "what you trained, asked as in training",
    "few_shot": "the base with solved examples in its prompt; the best of those tried",
    "zero_shot": "the base with the task described in words",
    "untuned": "the base asked exactly as the tuned model is",
    "constant": "always the answer that is most frequent in training",
    "classical": "word counts and a linear model; no language model at all",
}
_AGAINST: Mapping[ArmName, str] = {
    "few_shot": "for the best prompt with examples",
    "zero_shot": "for the prompt without examples",
    "untuned": "for the untuned model with the same prompt",
    "constant": "for always giving the most frequent label",
}
_TONES: Mapping[Outcome, Tone] = {"better": "good", "worse": "bad", "cannot tell": "warn"}
_BINARY = ("accuracy", "exact_match")


def verdict_view(comparison: Comparison) -> Markup:
    """Show the verdict first, and then what it rests on.

    Args:
        comparison: what was measured.

    Returns:
        Callout, plots, tables.
    """
    title = deciding_title(comparison)
    remark = classical_words(comparison)
    plots = Markup('<div class="ts-pair"><div>{}{}</div><div>{}{}</div></div>').format(
        section(
            f"{title} on {count(comparison.num_rows, 'test row')}",
            "In points from 0 to 100. The dot is what was measured, the line its 95 % interval: "
            "other rows of the same kind would most likely have given a value on it.",
        ),
        _arms_plot(comparison),
        section(
            "How much better the tuned model is",
            "In points, on the same rows. Right of the dashed line the tuned model is better; a "
            "line that crosses it settles nothing. The strong one is the planned comparison.",
        ),
        _differences_plot(comparison),
    )
    parts = [
        Markup('<div class="ts-verdict">{}</div>').format(
            callout(_TONES[comparison.outcome], headline(comparison), sentence(comparison))
        ),
        *_settles(comparison),
        *([callout("warn", *remark)] if remark else []),
        plots,
        section("Every way to answer, every metric"),
        arms_table(comparison),
        details("What these ways are, and how they were set up", _set_up(comparison)),
    ]
    if comparison.search:
        parts.append(details("How the few-shot prompt was found", search_view(comparison.search)))
    parts += [
        callout("plain", notice)
        for notice in comparison.notices
        if not (remark and notice.endswith(remark[1]))
    ]
    return join(parts)


def headline(comparison: Comparison) -> str:
    """Say the outcome in one short sentence.

    Args:
        comparison: what was measured.

    Returns:
        Without statistics; those are in `sentence`.
    """
    reference = comparison.primary.reference
    ours, theirs = (comparison.arm(name).value(comparison.metric) for name in ("tuned", reference))
    unit = " %" if comparison.metric in _BINARY else ""
    title = _score(comparison.arms[0], comparison).title
    values = f"{title} {ours:.1f}{unit} against {theirs:.1f}{unit}"
    whom = _AGAINST[reference]
    if comparison.outcome == "better":
        return f"Tuning helped: {values} {whom}."
    if comparison.outcome == "worse":
        return f"Tuning did not help: {values} {whom}."
    return "These test rows cannot tell whether tuning helped."


def classical_words(comparison: Comparison) -> tuple[str, str] | None:
    """Say so where a model without any language model does as well or better.

    Args:
        comparison: what was measured.

    Returns:
        The news and its evidence; None where the tuned model is better.
    """
    for pairing in comparison.pairings:
        if pairing.reference == "classical" and pairing.verdict.outcome != "better":
            worse = pairing.verdict.outcome == "worse"
            news = "does better than the tuned model" if worse else "may do as well"
            return (
                f"A classical model {news}, and trains in seconds",
                pairing_sentence(comparison, pairing),
            )
    return None


def deciding_title(comparison: Comparison) -> str:
    """Name the metric that decides.

    Args:
        comparison: what was measured.

    Returns:
        Its title.
    """
    return _capital(_score(comparison.arms[0], comparison).title)


def settle_words(comparison: Comparison) -> str:
    """Say how many more test rows would settle what could not be told.

    Args:
        comparison: what was measured.

    Returns:
        A sentence; empty where the outcome is clear.
    """
    if comparison.outcome != "cannot tell":
        return ""
    doubtful = [
        pairing.verdict for pairing in (comparison.primary, *comparison.unbeaten)
        if pairing.verdict.outcome == "cannot tell"
    ]  # fmt: skip
    needed = [verdict.more_rows_needed for verdict in doubtful]
    if not doubtful:
        return "More test rows will hardly change this: a way without tuning did better."
    if any(number is None for number in needed):
        return (
            "The difference is so small that no realistic number of test rows would settle it. "
            "Train longer, with more rows or on a larger base, or stay with prompting."
        )
    most = max(number for number in needed if number is not None)
    return (
        f"About {count(most, 'more test row')} would settle it, if the difference stays as it is. "
        "Add rows to your table, or give the test split a larger share."
    )


def arms_table(comparison: Comparison) -> Markup:
    """Show all metrics with their intervals, and what an answer costs.

    Args:
        comparison: what was measured.

    Returns:
        A table; the tuned model stands out.
    """
    titles = [_capital(score.title) for score in comparison.arms[0].scores]
    rows = [
        (NAMES[arm.name], *(_with_interval(score) for score in arm.scores),
         f"{arm.prompt_tokens_per_item:.0f}" if arm.prompt_tokens_per_item else "–",
         f"{1000 * arm.seconds_per_item:.1f}" if arm.seconds_per_item >= 5e-5 else "< 0.1")
        for arm in comparison.arms
    ]  # fmt: skip
    marked = [number for number, arm in enumerate(comparison.arms) if arm.name == "tuned"]
    headings = ("Answered by", *titles, "Prompt tokens", "ms a row")
    return table(
        headings, rows, caption="All metrics in points from 0 to 100, with 95 % intervals",
        numeric=range(1, len(headings)), marked=marked, show_caption=True,
    )  # fmt: skip


def search_view(search: Search) -> Markup:
    """Show how much the score of a prompt hangs on its examples.

    Args:
        search: what was tried.

    Returns:
        A chart and figures.
    """
    by_shots: dict[int, list[float]] = {}
    for trial in search.trials:
        by_shots.setdefault(trial.num_shots, []).append(trial.first_score)
    [chosen] = [trial for trial in search.trials if trial.chosen]
    items = [
        Interval(
            count(shots, "example"), sum(scores) / len(scores), min(scores), max(scores),
            count(len(scores), "prompt"), is_strong=shots == chosen.num_shots,
        )
        for shots, scores in sorted(by_shots.items())
    ]  # fmt: skip
    words = (
        f"{count(len(search.trials), 'prompt')} were tried on "
        f"{count(search.first_rows, 'validation row')}, the best of them on more; no test row was "
        f"used. They scored from {search.lowest:.1f} to {search.highest:.1f} points: that is how "
        "much luck there is in choosing examples by hand. The line goes from the worst to the best "
        "prompt, the dot is their mean; the strong one holds the prompt that won."
    )
    figures = tiles([
        ("prompts tried", count(len(search.trials))),
        ("worst to best", f"{search.lowest:.1f} – {search.highest:.1f}", "points"),
        ("spread", f"{search.deviation:.1f}", "standard deviation, points"),
        ("the winner", f"{chosen.score:.1f}", f"on {count(chosen.num_rows, 'validation row')}"),
    ])  # fmt: skip
    label = f"Validation score by number of examples in the prompt. {words}"
    plot = interval_plot(items, label=label, x_title="points on the first validation rows")
    return join((Markup('<p class="ts-lead">{}</p>').format(words), figures, plot))


def _arms_plot(comparison: Comparison) -> Markup:
    items = []
    for arm in comparison.arms:
        score = _score(arm, comparison)
        items.append(Interval(
            NAMES[arm.name], score.value, score.interval.low, score.interval.high,
            f"{score.value:.1f}", is_strong=arm.name == "tuned",
        ))  # fmt: skip
    title = deciding_title(comparison)
    said = ", ".join(f"{item.name} {item.words}" for item in items)
    return interval_plot(items, label=f"{title}: {said}", x_title=f"{title}, points")


def _differences_plot(comparison: Comparison) -> Markup:
    items = [
        Interval(
            NAMES[pairing.reference], pairing.verdict.difference,
            pairing.verdict.interval.low, pairing.verdict.interval.high,
            f"{pairing.verdict.difference:+.1f}", is_strong=pairing.primary,
        )
        for pairing in comparison.pairings
    ]  # fmt: skip
    said = ", ".join(f"{item.name} {item.words}" for item in items)
    return interval_plot(
        items, label=f"Tuned model minus the other, points: {said}",
        x_title="tuned model minus the other, points", zero_line=True,
    )  # fmt: skip


def _settles(comparison: Comparison) -> Iterator[Markup]:
    words = settle_words(comparison)
    if words:
        yield callout("plain", "What would settle it", words)


def _set_up(comparison: Comparison) -> Markup:
    rows = []
    for arm in comparison.arms:
        validation = "–" if arm.validation_score is None else f"{arm.validation_score:.1f}"
        rows.append((NAMES[arm.name], _MEANING[arm.name], visible(settings_words(arm)), validation))
    took = f"The whole comparison took {duration(comparison.seconds)}."
    return join((
        table(
            ("Answered by", "What it is", "Settings", "On validation"), rows,
            caption="How each way to answer was set up", numeric=(3,),
        ),
        Markup('<p class="ts-soft">{}</p>').format(took),
    ))  # fmt: skip


def settings_words(arm: Arm) -> str:
    """Say how an arm was set up.

    Args:
        arm: any.

    Returns:
        Words; text of the data among them, not escaped and not made visible yet.
    """
    words = []
    for name, value in arm.settings.items():
        if name == "instruction":
            words.append(f"told: “{value}”" if value else "without a task description")
        elif name == "num_shots":
            words.append(count(float(value), "example"))
        elif name == "source_rows":
            words.append(f"rows {value} of your table")
        else:
            words.append(f"{name.replace('_', ' ')}: {str(value).replace('_', ' ')}")
    if arm.num_cut:
        words.append(f"{count(arm.num_cut, 'row')} cut at the start to fit")
    return "; ".join(words) or "–"


def _with_interval(score: Score) -> Markup:
    return Markup("{} <span class='ts-soft'>({}–{})</span>").format(
        f"{score.value:.1f}", f"{score.interval.low:.1f}", f"{score.interval.high:.1f}"
    )


def _score(arm: Arm, comparison: Comparison) -> Score:
    return next(score for score in arm.scores if score.metric == comparison.metric)


def _capital(title: str) -> str:
    """Begin a word with a capital letter; chrF is a name."""
    return title[:1].upper() + title[1:] if title.split("-")[0].islower() else title
