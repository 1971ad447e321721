"""Did tuning help? Every arm answers the same test rows, and one planned test decides.

Arms: always the most frequent label; the base with the tuned model's own prompt, with a task
description, with the few-shot prompt that did best on validation rows; the tuned model; TF-IDF
with logistic regression. The tuned model is tested against whichever of the first four did best
on *validation* rows, so the choice of opponent costs no test row; the headline "better" needs a win
over all four (`Comparison.outcome`).
"""

import random
import time
from collections.abc import Callable, Mapping, Sequence

from pydantic import Field

from engine.answering.reading import Progress
from engine.comparing.arms import (
    AnsweredArm,
    classical_arm,
    constant_arm,
    few_shot_arm,
    tuned_arm,
    zero_shot_arm,
)
from engine.comparing.comparison import (
    Arm,
    ArmName,
    Comparison,
    Pairing,
    Prediction,
    Score,
    Search,
    pairing_sentence,
)
from engine.comparing.few_shot import search
from engine.comparing.metrics import METRICS, MetricResult, metrics_for
from engine.comparing.prompting import (
    Question,
    build_prompts,
    longest_answer_tokens,
)
from engine.comparing.scoring import expected_answers, score_answers
from engine.comparing.statistics import interval, verdict
from engine.language_model import LanguageModel
from templates.dataset import Dataset
from templates.errors import DataError
from templates.example import Example
from templates.template import Metric
from templates.values import Value

StageProgress = Callable[[str, int, int], None]


class CompareRequest(Value):
    """What to compare, and how much to spend on it."""

    base_id: str
    run_id: str
    weights_sha256: str = Field(
        default="", title="Weights", description="Hash of the tuned weights that are compared."
    )
    seed: int = Field(default=0, ge=0, lt=2**32, title="Seed", description="Fixes every draw.")
    max_new_tokens: int = Field(
        default=0,
        ge=0,
        title="Longest answer",
        description="Tokens; 0: a little more than the longest training answer.",
    )
    max_validation_rows: int = Field(
        default=200,
        ge=1,
        title="Validation rows",
        description="Most rows on which prompts are chosen.",
    )
    batch_size: int = Field(default=64, ge=1, le=4096, title="Rows at once")


def compare(
    request: CompareRequest,
    *,
    base: LanguageModel,
    tuned: LanguageModel | Callable[[], LanguageModel],
    dataset: Dataset,
    train: Sequence[Example],
    validation: Sequence[Example],
    test: Sequence[Example],
    test_looks: int,
    progress: StageProgress | None = None,
) -> tuple[Comparison, list[Prediction]]:
    """Compare tuning with prompting and with a classical model. Writes nothing.

    Args:
        request: what to compare.
        base: the untuned model.
        tuned: the tuned model, or a function that gives it, called once the base has answered
            everything; so it may change the base in place.
        dataset: template, labels and identity of the data.
        train: the training split; the tuned model may have left too-long rows out.
        validation: the rows on which prompts and the opponent are chosen.
        test: the rows that decide.
        test_looks: how often these test rows were scored, this time included.
        progress: called with the stage, rows done and rows in all.

    Returns:
        The comparison and what every arm answered to every test row.

    Raises:
        DataError: a split is empty, or an upload row is in two of them.
    """
    started = time.perf_counter()
    _check_splits(train, validation, test)
    template = dataset.template
    labels = dataset.labels if template.has_labels else ()
    question = Question(
        template=template,
        labels=labels,
        max_new_tokens=request.max_new_tokens or longest_answer_tokens(base, train, template),
        batch_size=request.batch_size,
    )
    draw = random.Random(f"{request.seed}/validation")  # noqa: S311 - no secret
    rows = draw.sample(list(validation), min(len(validation), request.max_validation_rows))
    arms: dict[ArmName, AnsweredArm] = {}
    if labels:
        arms["constant"] = constant_arm(question, train, rows, test)
    if template.instruction:
        arms["untuned"] = zero_shot_arm(
            base, question, rows, test, _stage(progress, "untuned"), describe=False
        )
    arms["zero_shot"] = zero_shot_arm(base, question, rows, test, _stage(progress, "zero-shot"))
    found = search(
        base,
        question,
        train=train,
        validation=rows,
        test_lengths=[len(ids) for ids in build_prompts(base, test, question).prompt_ids],
        seed=request.seed,
        progress=_stage(progress, "looking for the best few-shot prompt"),
    )
    if found:
        arms["few_shot"] = few_shot_arm(base, question, *found, test, _stage(progress, "few-shot"))
    model = tuned if isinstance(tuned, LanguageModel) else tuned()
    arms["tuned"] = tuned_arm(model, question, test, _stage(progress, "tuned"))
    if labels:
        arms["classical"] = classical_arm(question, train, validation, test)
    return _conclude(
        request,
        dataset,
        question,
        arms,
        test,
        search_table=found[1] if found else None,
        test_looks=test_looks,
        notices=_notices(base, arms, len(rows), len(validation), test_looks),
        started=started,
    )


def _check_splits(
    train: Sequence[Example], validation: Sequence[Example], test: Sequence[Example]
) -> None:
    splits = {"training": train, "validation": validation, "test": test}
    owner: dict[int, str] = {}
    for name, examples in splits.items():
        if not examples:
            raise DataError(
                f"The {name} split is empty, so nothing can be compared",
                fix="Prepare again with more rows, or with other shares for the splits",
            )
        for row in {row for example in examples for row in example.source_rows}:
            if owner.setdefault(row, name) != name:
                raise DataError(
                    f"The same row is in the {owner[row]} and in the {name} split",
                    where=f"row {row}",
                    fix="Run prepare again: no row may be learned from and tested on",
                )


def _stage(progress: StageProgress | None, stage: str) -> Progress | None:
    if progress is None:
        return None
    return lambda done, total: progress(stage, done, total)


def _conclude(
    request: CompareRequest,
    dataset: Dataset,
    question: Question,
    arms: Mapping[ArmName, AnsweredArm],
    test: Sequence[Example],
    *,
    search_table: Search | None,
    test_looks: int,
    notices: Sequence[str],
    started: float,
) -> tuple[Comparison, list[Prediction]]:
    """Score all arms, test the tuned one against the others, put it all in one value."""
    metric = question.template.metric
    names = (metric, *(m for m in metrics_for(question.template.task) if m != metric))
    results: dict[ArmName, dict[Metric, MetricResult]] = {
        name: {m: score_answers(m, arm.answers, test, question) for m in names}
        for name, arm in arms.items()
    }
    opponents: list[ArmName] = ["zero_shot", "few_shot", "untuned", "constant"]
    reference = max(
        (name for name in opponents if name in arms),
        key=lambda name: arms[name].validation_score or 0.0,
    )
    others: list[ArmName] = [name for name in arms if name not in ("tuned", reference)]
    pairings = tuple(
        Pairing(
            candidate="tuned",
            reference=name,
            metric=metric,
            primary=name == reference,
            verdict=verdict(results["tuned"][metric], results[name][metric], seed=request.seed),
        )
        for name in [reference, *others]
    )
    comparison = Comparison(
        dataset_id=dataset.id,
        dataset_sha256=dataset.sha256,
        base_id=request.base_id,
        run_id=request.run_id,
        weights_sha256=request.weights_sha256,
        task=question.template.task,
        metric=metric,
        num_rows=len(test),
        arms=tuple(
            _arm(name, arm, results[name], len(test), request.seed) for name, arm in arms.items()
        ),
        pairings=pairings,
        search=search_table,
        test_looks=test_looks,
        seed=request.seed,
        seconds=time.perf_counter() - started,
        notices=tuple(notices),
    )
    remark = classical_remark(comparison)
    if remark:
        comparison = comparison.model_copy(update={"notices": (*comparison.notices, remark)})
    rows = {name: results[name][metric].per_item for name in arms}
    predictions = [
        Prediction(
            item=number,
            source_rows=example.source_rows,
            fields=_shown_fields(example),
            expected=expected_answers(example, question.template),
            outputs={name: arm.answers[number] for name, arm in arms.items()},
            scores={
                name: None if values is None else float(values[number])
                for name, values in rows.items()
            },
        )
        for number, example in enumerate(test)
    ]
    return comparison, predictions


def _arm(
    name: ArmName,
    arm: AnsweredArm,
    results: Mapping[Metric, MetricResult],
    num_rows: int,
    seed: int,
) -> Arm:
    return Arm(
        name=name,
        title=arm.title,
        kind=arm.kind,
        settings=arm.settings,
        scores=tuple(
            Score(
                metric=metric,
                title=METRICS[metric].title,
                value=result.value,
                interval=interval(result, seed=seed),
            )
            for metric, result in results.items()
        ),
        validation_score=arm.validation_score,
        seconds_per_item=arm.seconds / num_rows,
        prompt_tokens_per_item=arm.tokens_per_item,
        num_cut=len(arm.cut),
    )


def _shown_fields(example: Example) -> dict[str, str]:
    if example.turns:
        return {f"{n} {turn.role}": turn.content for n, turn in enumerate(example.turns[:-1], 1)}
    return dict(example.fields)


def classical_remark(comparison: Comparison) -> str:
    """Say so plainly where a model without any language model does as well or better.

    Args:
        comparison: what was measured.

    Returns:
        A sentence, or "" where the tuned model is better or there is no classical arm.
    """
    for pairing in comparison.pairings:
        if pairing.reference == "classical" and pairing.verdict.outcome != "better":
            start = (
                "A classical model does better, and trains in seconds."
                if pairing.verdict.outcome == "worse"
                else "A classical model that trains in seconds may do as well."
            )
            return f"{start} {pairing_sentence(comparison, pairing)}"
    return ""


def _notices(
    base: LanguageModel,
    arms: Mapping[ArmName, AnsweredArm],
    num_rows: int,
    num_validation: int,
    test_looks: int,
) -> list[str]:
    notices = [
        f"{arm.title}: {len(arm.cut)} test rows were too long and lost the start of their prompt"
        for arm in arms.values()
        if arm.cut
    ]
    if "few_shot" not in arms:
        notices.append(
            f"No demonstration fits the context of {base.context_tokens} tokens beside the rows, "
            "so there is no few-shot arm"
        )
    if num_rows < num_validation:
        notices.append(f"Prompts were chosen on {num_rows} of {num_validation} validation rows")
    if test_looks > 1:
        notices.append(
            f"These test rows have been scored {test_looks} times; choosing among runs by their "
            "test score makes the best one look better than it is"
        )
    return notices
