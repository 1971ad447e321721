"""The arms of a comparison: the ways to answer the same rows, each chosen on validation only."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.answering.reading import Progress
from engine.comparing.classical import most_frequent_label, train_classical
from engine.comparing.comparison import ArmKind, Search, Setting
from engine.comparing.few_shot import FewShotPrompt
from engine.comparing.prompting import Question, answers_to, build_prompts
from engine.comparing.scoring import score_answers
from engine.language_model import LanguageModel
from templates.example import Example
from templates.render import describe_task


@dataclass(frozen=True)
class AnsweredArm:
    """One arm after the test rows.

    Attributes:
        title: for tables.
        kind: what sort of arm it is.
        answers: N answers to the test rows.
        seconds: wall time for all of them.
        settings: how the arm was set up.
        validation_score: points on the validation rows; None: not measured.
        tokens_per_item: mean prompt length, context included.
        cut: numbers of the rows whose prompt start was cut to fit.
    """

    title: str
    kind: ArmKind
    answers: list[str]
    seconds: float
    settings: Mapping[str, Setting]
    validation_score: float | None = None
    tokens_per_item: float = 0.0
    cut: frozenset[int] = frozenset()


def constant_arm(
    question: Question,
    train: Sequence[Example],
    rows: Sequence[Example],
    test: Sequence[Example],
) -> AnsweredArm:
    """Answer the most frequent training label, whatever is asked.

    Args:
        question: what is asked.
        train: says which label that is.
        rows: validation rows.
        test: N test rows.

    Returns:
        The arm.
    """
    label = most_frequent_label(train, question.labels)
    value = score_answers(question.template.metric, [label] * len(rows), rows, question).value
    return AnsweredArm(
        title=f"Always {label!r}",
        kind="baseline",
        answers=[label] * len(test),
        seconds=0.0,
        settings={"label": label},
        validation_score=value,
    )


def zero_shot_arm(
    base: LanguageModel,
    question: Question,
    rows: Sequence[Example],
    test: Sequence[Example],
    progress: Progress | None = None,
    *,
    describe: bool = True,
) -> AnsweredArm:
    """Answer without any demonstration.

    Args:
        base: the untuned model.
        question: what is asked.
        rows: validation rows.
        test: N test rows.
        progress: called with rows done and rows in all, for each split.
        describe: show the task description; without it, the prompt is the tuned model's.

    Returns:
        The arm.
    """
    instruction = describe_task(question.template, question.labels) if describe else ""
    prompts = build_prompts(base, rows, question, instruction=instruction)
    answers = answers_to(base, prompts, question, progress=progress)
    return _prompted(
        base,
        question,
        test,
        progress,
        title="Zero-shot prompt" if describe else "Untuned model, same prompt",
        kind="prompt",
        instruction=instruction,
        settings={"instruction": instruction},
        validation_score=score_answers(question.template.metric, answers, rows, question).value,
    )


def few_shot_arm(
    base: LanguageModel,
    question: Question,
    prompt: FewShotPrompt,
    table: Search,
    test: Sequence[Example],
    progress: Progress | None = None,
) -> AnsweredArm:
    """Answer behind the demonstrations that did best on validation rows.

    Args:
        base: the untuned model.
        question: what is asked.
        prompt: what the search found.
        table: all it tried.
        test: N test rows.
        progress: called with rows done and rows in all.

    Returns:
        The arm.
    """
    candidate = prompt.candidate
    shots = candidate.num_shots
    return _prompted(
        base,
        question,
        test,
        progress,
        title=f"Few-shot prompt ({shots} example{'s' if shots != 1 else ''})",
        kind="prompt",
        instruction=prompt.instruction,
        demonstrations=prompt.demonstrations,
        settings={
            "num_shots": candidate.num_shots,
            "draw": candidate.draw,
            "selection": candidate.selection,
            "order": candidate.order,
            "instruction": prompt.instruction,
            "source_rows": ", ".join(
                str(row) for shot in prompt.demonstrations for row in shot.source_rows
            ),
        },
        validation_score=next(trial.score for trial in table.trials if trial.chosen),
    )


def tuned_arm(
    tuned: LanguageModel,
    question: Question,
    test: Sequence[Example],
    progress: Progress | None = None,
) -> AnsweredArm:
    """Answer with the tuned model, prompted exactly as in training.

    Args:
        tuned: the tuned model.
        question: what is asked.
        test: N test rows.
        progress: called with rows done and rows in all.

    Returns:
        The arm.
    """
    return _prompted(tuned, question, test, progress, title="Tuned model", kind="tuned")


def classical_arm(
    question: Question,
    train: Sequence[Example],
    validation: Sequence[Example],
    test: Sequence[Example],
) -> AnsweredArm:
    """Answer with TF-IDF and logistic regression.

    Args:
        question: what is asked.
        train: the training split; all of it, too-long rows included.
        validation: the rows that choose the regularisation.
        test: N test rows.

    Returns:
        The arm.
    """
    template = question.template
    model = train_classical(train, validation, template, question.labels, metric=template.metric)
    started = time.perf_counter()
    return AnsweredArm(
        title="TF-IDF + logistic regression",
        kind="classical",
        answers=model.predict(test),
        seconds=time.perf_counter() - started,
        settings={"strength": model.strength},
        validation_score=model.validation_score,
    )


def _prompted(
    language_model: LanguageModel,
    question: Question,
    test: Sequence[Example],
    progress: Progress | None,
    *,
    title: str,
    kind: ArmKind,
    instruction: str = "",
    demonstrations: Sequence[Example] = (),
    settings: Mapping[str, Setting] | None = None,
    validation_score: float | None = None,
) -> AnsweredArm:
    started = time.perf_counter()
    prompts = build_prompts(
        language_model, test, question, instruction=instruction, demonstrations=demonstrations
    )
    answers = answers_to(language_model, prompts, question, progress=progress)
    return AnsweredArm(
        title=title,
        kind=kind,
        answers=answers,
        seconds=time.perf_counter() - started,
        settings=settings or {},
        validation_score=validation_score,
        tokens_per_item=prompts.tokens_per_item,
        cut=prompts.cut,
    )
