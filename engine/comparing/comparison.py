"""Comparison: what a test split said about every arm, as one frozen value. Free of torch.

All metrics run from 0 to 100 points; the score of one row runs from 0 to 1.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from templates.errors import RunError
from templates.files import canonical_json, write_atomically
from templates.template import Metric, TaskKind
from templates.values import Value, parse

ArmName = Literal["constant", "untuned", "zero_shot", "few_shot", "tuned", "classical"]
ArmKind = Literal["baseline", "prompt", "tuned", "classical"]
Outcome = Literal["better", "worse", "cannot tell"]
Order = Literal["drawn", "reversed", "similar_last"]
Selection = Literal["random", "short", "typical"]
Setting = str | int | float | bool


class Interval(Value):
    """A 95 % interval, in points."""

    low: float
    high: float


class Score(Value):
    """One metric of one arm on the test split."""

    metric: Metric
    title: str
    value: float = Field(ge=0, le=100, description="Points.")
    interval: Interval


class Arm(Value):
    """One way to answer the test rows, and how it did."""

    name: ArmName
    title: str
    kind: ArmKind
    settings: Mapping[str, Setting] = Field(default_factory=dict)
    scores: tuple[Score, ...]
    validation_score: float | None = Field(
        default=None, description="Points on the validation rows; None: not measured."
    )
    seconds_per_item: float = Field(ge=0, description="Wall time, batched, context included.")
    prompt_tokens_per_item: float = Field(default=0, ge=0, description="Mean, context included.")
    num_cut: int = Field(default=0, ge=0, description="Rows whose prompt start was cut to fit.")

    def value(self, metric: Metric) -> float:
        """Look up a metric.

        Args:
            metric: one of those measured.

        Returns:
            Points, 0 to 100.
        """
        return next(score.value for score in self.scores if score.metric == metric)


class Verdict(Value):
    """Whether one arm beats another on the same rows."""

    outcome: Outcome
    difference: float = Field(description="Candidate minus reference, points.")
    interval: Interval = Field(description="Of the difference.")
    p_value: float = Field(ge=0, le=1, description="Two-sided.")
    test: str = Field(description="Name of the test behind the p-value.")
    num_rows: int
    more_rows_needed: int | None = Field(
        default=None,
        description="With 'cannot tell': about how many more test rows would give 80 % power at "
        "the observed difference; None: no realistic number would.",
    )


class Pairing(Value):
    """A candidate arm against a reference arm."""

    candidate: ArmName
    reference: ArmName
    metric: Metric
    primary: bool = Field(description="The one planned test; all others are by the way.")
    verdict: Verdict


class Trial(Value):
    """One few-shot prompt that the search tried on validation rows."""

    num_shots: int
    draw: int
    selection: Selection
    order: Order
    instruction: bool
    context_tokens: int
    score: float = Field(description="Points on the last round it reached.")
    first_score: float = Field(description="Points on the first round, equal rows for all.")
    num_rows: int = Field(description="Validation rows of its last round.")
    chosen: bool = False


class Search(Value):
    """How the few-shot prompt was chosen; no test row was scored for it."""

    metric: Metric
    trials: tuple[Trial, ...]
    first_rows: int = Field(description="Validation rows of the first round.")
    lowest: float = Field(description="Worst prompt of the first round, points.")
    highest: float = Field(description="Best prompt of the first round, points.")
    deviation: float = Field(description="Standard deviation over the prompts, points.")


class Comparison(Value):
    """Arms x metrics, the paired tests, and the one verdict."""

    dataset_id: str
    dataset_sha256: str
    base_id: str
    run_id: str
    weights_sha256: str = Field(
        default="", description="Of the tuned weights that answered; empty: nobody noted it."
    )
    task: TaskKind
    metric: Metric
    num_rows: int
    arms: tuple[Arm, ...]
    pairings: tuple[Pairing, ...]
    search: Search | None = None
    test_looks: int = Field(ge=0, description="How often this test split was scored, with this.")
    seed: int
    seconds: float
    notices: tuple[str, ...] = ()

    @property
    def primary(self) -> Pairing:
        """The planned test: tuned against the reference chosen on validation rows."""
        return next(pairing for pairing in self.pairings if pairing.primary)

    @property
    def outcome(self) -> Outcome:
        """The headline: "better" only if the tuned model beats every way that needs no tuning.

        The opponent of the planned test won on validation rows, where the best of many few-shot
        prompts looks better than it is; it may lose to a plain prompt on test rows. Asking for a
        win in every pairing (an intersection-union test) keeps the error at 5 % all the same.
        """
        outcome = self.primary.verdict.outcome
        return "cannot tell" if outcome == "better" and self.unbeaten else outcome

    @property
    def unbeaten(self) -> tuple[Pairing, ...]:
        """Pairings with a way that needs no tuning and that the tuned model does not beat."""
        return tuple(
            pairing
            for pairing in self.pairings
            if pairing.candidate == "tuned"
            and pairing.reference != "classical"
            and pairing.verdict.outcome != "better"
        )

    def arm(self, name: ArmName) -> Arm:
        """Look up an arm.

        Args:
            name: one of those compared.

        Returns:
            The arm.
        """
        return next(arm for arm in self.arms if arm.name == name)


class Prediction(Value):
    """What every arm answered to one test row."""

    item: int = Field(ge=0, description="0-based line of test.jsonl.")
    source_rows: tuple[int, ...]
    fields: Mapping[str, str]
    expected: tuple[str, ...] = Field(description="The label, or all acceptable answers.")
    outputs: Mapping[str, str] = Field(description="By arm.")
    scores: Mapping[str, float | None] = Field(
        description="By arm, 0 to 1 on the verdict's metric; None where one row has no score."
    )


def sentence(comparison: Comparison) -> str:
    """Say the verdict in plain words with its numbers.

    Args:
        comparison: what was measured.

    Returns:
        One to three sentences.
    """
    text = pairing_sentence(comparison, comparison.primary)
    if comparison.outcome == comparison.primary.verdict.outcome:
        return text
    strongest = min(comparison.unbeaten, key=lambda pairing: pairing.verdict.difference)
    return (
        "It cannot be told whether tuning helped: the tuned model is not proven better than every "
        f"way that needs no tuning. {pairing_sentence(comparison, strongest)} By the way: {text}"
    )


def pairing_sentence(comparison: Comparison, pairing: Pairing) -> str:
    """Say the result of one pairing in plain words.

    Args:
        comparison: what was measured.
        pairing: one of its pairings.

    Returns:
        One or two sentences.
    """
    verdict = pairing.verdict
    candidate, reference = comparison.arm(pairing.candidate), comparison.arm(pairing.reference)
    ours, theirs = candidate.value(pairing.metric), reference.value(pairing.metric)
    if pairing.metric in ("accuracy", "exact_match"):
        numbers = f"{ours:.1f} % against {theirs:.1f} % correct"
    else:
        title = next(s.title for s in candidate.scores if s.metric == pairing.metric)
        numbers = f"{title} {ours:.1f} against {theirs:.1f}"
    probability = "p < 0.001" if verdict.p_value < 0.001 else f"p = {verdict.p_value:.3f}"
    low, high = verdict.interval.low, verdict.interval.high
    evidence = (
        f"difference {verdict.difference:+.1f} points (95 % interval {low:.1f} to {high:.1f}, "
        f"{verdict.test} {probability}, {verdict.num_rows:,} test rows)"
    )
    who, whom = _CALLED[pairing.candidate], _CALLED[pairing.reference]
    if verdict.outcome != "cannot tell":
        return f"{who.capitalize()} is {verdict.outcome} than {whom}: {numbers}, {evidence}."
    if verdict.more_rows_needed is None:
        rest = "So small a difference could not be settled by any realistic number of test rows."
    else:
        rows = "row" if verdict.more_rows_needed == 1 else "rows"
        rest = f"About {verdict.more_rows_needed:,} more test {rows} would be needed to tell."
    return f"These rows cannot tell {who} from {whom}: {numbers}, {evidence}. {rest}"


_CALLED: Mapping[ArmName, str] = {
    "tuned": "the tuned model",
    "untuned": "the untuned model with the same prompt",
    "zero_shot": "the prompt without examples",
    "few_shot": "the best prompt with examples",
    "constant": "always answering the most frequent label",
    "classical": "a classical model (TF-IDF and logistic regression)",
}


def write_comparison(path: Path, comparison: Comparison) -> None:
    """Write a comparison as JSON, whole or not at all.

    Args:
        path: the file; its folder exists.
        comparison: what was measured.
    """
    write_atomically(path, canonical_json(comparison.model_dump(mode="json"), indent=2) + "\n")


def read_comparison(path: Path) -> Comparison:
    """Read what `write_comparison` wrote.

    Args:
        path: the file.

    Returns:
        The comparison.

    Raises:
        RunError: there is none, or it is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise RunError(
            "There is no readable comparison here", where=path.name, fix="Run compare first"
        ) from None
    return parse(Comparison, content, where=path.name, error=RunError)


def write_predictions(path: Path, predictions: Iterable[Prediction]) -> None:
    """Write one JSON line a test row.

    Args:
        path: usually `predictions.jsonl`; its folder exists.
        predictions: the rows.
    """
    lines = [canonical_json(prediction.model_dump(mode="json")) for prediction in predictions]
    write_atomically(path, "".join(line + "\n" for line in lines))


def read_predictions(path: Path) -> Iterator[Prediction]:
    """Read what `write_predictions` wrote.

    Args:
        path: the file.

    Yields:
        The rows in file order.

    Raises:
        RunError: a line is damaged.
    """
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            where = f"{path.name}, line {number}"
            try:
                content = json.loads(line)
            except ValueError:
                raise RunError(
                    "A line of the predictions is damaged", where=where, fix="Run compare again"
                ) from None
            yield parse(Prediction, content, where=where, error=RunError)
