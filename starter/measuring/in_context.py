"""In context: how well labels are taken from demonstrations, in the product's own prompts."""

import random
from dataclasses import replace
from functools import partial

from engine.comparing.demonstrations import Candidate, demonstrations_for
from engine.comparing.prompting import answers_to, build_prompts
from engine.language_model import LanguageModel
from starter.measuring.bench import Bench, Cells, Values, scored
from starter.tasks import REAL_TASKS, Task, family_task
from templates.errors import PlanError
from templates.render import describe_task

NUM_SHOTS = (0, 1, 4, 8, 16)
CONTROL_SHOTS = 8  # with the labels of the demonstrations mixed up
NUM_DRAWS = 5
FAMILY_TEST_ROWS = 100
MOST_CUT_RATIO = 0.02  # the product's own search drops a prompt that cuts more rows


def measure_in_context(bench: Bench) -> None:
    """Measure how well labels are taken from demonstrations, on real tables and new families.

    Args:
        bench: what to measure, and where to.
    """
    cells = bench.cells("in_context")
    draws = range(2 if bench.quick else NUM_DRAWS)
    for name in REAL_TASKS:
        task = bench.real_task(name)
        for num_shots in NUM_SHOTS:
            # Without demonstrations there is nothing to draw.
            for draw in draws if num_shots else draws[:1]:
                _in_context_cells(bench, cells, task, "real", num_shots, draw)
    for name, family in bench.families.items():
        for draw in draws:
            task = family_task(
                name,
                family,
                seed=f"in context/{draw}",
                num_train=max(NUM_SHOTS),
                num_test=20 if bench.quick else FAMILY_TEST_ROWS,
                by_turns=True,
            )
            for num_shots in NUM_SHOTS:
                _in_context_cells(bench, cells, task, "family", num_shots, draw)


def _in_context_cells(
    bench: Bench, cells: Cells, task: Task, kind: str, num_shots: int, draw: int
) -> None:
    """A cell, and its control where it has one."""

    def values(shuffled: bool) -> Values:
        head = {
            "kind": kind,
            "task": task.name,
            "count": num_shots,
            "draw": draw,
            "shuffled": shuffled,
            "num_labels": len(task.labels),
        }
        model = bench.language_model
        return head | in_context_values(model, task, num_shots, draw=draw, shuffled=shuffled)

    cells.measure(f"{task.name}/{num_shots}/{draw}", task.digest, partial(values, False))
    if num_shots == CONTROL_SHOTS:
        name = f"{task.name}/{num_shots}-shuffled/{draw}"
        cells.measure(name, task.digest, partial(values, True))


def in_context_values(
    language_model: LanguageModel, task: Task, num_shots: int, *, draw: int, shuffled: bool = False
) -> Values:
    """Answer the test rows behind some demonstrations, exactly as the product would.

    Args:
        language_model: the untuned model.
        task: the rows.
        num_shots: demonstrations in all; labels take turns.
        draw: which demonstrations.
        shuffled: mix up their labels: what is left did not come from the demonstrations' labels.

    Returns:
        fits, num_cut, context_tokens, and where it fits balanced_accuracy, expected, hits. It
        does not fit where the window is full or more than 2 % of the rows lose their start.
    """
    question = task.question
    shots = demonstrations_for(Candidate(num_shots, draw), task.train, question.template, seed=0)
    if shuffled:
        labels = [shot.label for shot in shots]
        random.Random(f"labels/{draw}").shuffle(labels)  # noqa: S311 - no secret
        shots = tuple(replace(s, label=label) for s, label in zip(shots, labels, strict=True))
    try:
        prompts = build_prompts(
            language_model,
            task.test,
            question,
            instruction=describe_task(question.template, question.labels),
            demonstrations=shots,
        )
    except PlanError:
        return {"fits": False, "balanced_accuracy": None}
    values = {
        "fits": len(prompts.cut) <= MOST_CUT_RATIO * len(task.test),
        "num_cut": len(prompts.cut),
        "context_tokens": len(prompts.context_ids),
        "balanced_accuracy": None,
    }
    if values["fits"]:
        values |= scored(task, answers_to(language_model, prompts, question))
    return values
