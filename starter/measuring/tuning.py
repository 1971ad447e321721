"""Tuning: LoRA with the product's defaults on few and on more rows, beside TF-IDF."""

import random
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from engine.comparing.classical import train_classical
from engine.comparing.metrics import score
from engine.comparing.prompting import Question, answers_to, build_prompts
from engine.comparing.statistics import interval
from engine.events import Event, Finished, Stepped
from engine.language_model import LanguageModel
from engine.planning.make_plan import make_plan
from engine.runs import assemble
from engine.trainer import train
from starter.measuring.bench import Bench, Values, scored
from starter.tasks import REAL_TASKS, Task, accuracy_interval, family_task
from templates.dataset import MANIFEST, Dataset, SplitFile
from templates.errors import RunError
from templates.example import Example
from templates.files import sha256_of_bytes, write_atomically

NUM_TRAIN = (100, 1_000)
TUNING_TEST_ROWS = 200  # of a family


def measure_tuning(bench: Bench) -> None:
    """Tune with the product's defaults on few and on more rows, beside TF-IDF.

    Args:
        bench: what to measure, and where to.
    """
    cells = bench.cells("tuning")
    counts = (40,) if bench.quick else NUM_TRAIN
    tasks = [("real", bench.real_task(name)) for name in REAL_TASKS]
    for name, family in bench.families.items():
        task = family_task(
            name,
            family,
            seed="tuning",
            num_train=max(counts),
            num_test=40 if bench.quick else TUNING_TEST_ROWS,
            by_turns=False,
        )
        tasks.append(("family", task))
    for kind, task in tasks:
        for num_rows in counts:
            work = partial(tuning_values, bench, task, num_rows, kind)
            cells.measure(f"{task.name}/{num_rows}", task.digest, work)


def tuning_values(bench: Bench, task: Task, num_rows: int, kind: str) -> Values:
    """Tune on some rows and answer the test rows; the same rows for TF-IDF and regression.

    Args:
        bench: model, machine and size.
        task: the rows.
        num_rows: to learn from and to validate on, a tenth and at least 20 of them.
        kind: real or family.

    Returns:
        tuned and classical, each with accuracy and balanced accuracy and their 95 % intervals.
    """
    training, validation = tuning_rows(task, num_rows)
    events, tuned = tune(bench, task, training, validation, max_steps=6 if bench.quick else 0)
    question = task.question
    answers = answers_to(tuned, build_prompts(tuned, task.test, question), question)
    classical = train_classical(
        training, validation, question.template, question.labels, metric=question.template.metric
    )
    finished = events[-1]
    assert isinstance(finished, Finished)
    values = {
        "tuned": _judged(task, answers),
        "classical": _judged(task, classical.predict(task.test)),
    }
    return {
        "kind": kind,
        "task": task.name,
        "count": num_rows,
        "num_labels": len(task.labels),
        **{f"{name}_balanced": value["balanced_accuracy"] for name, value in values.items()},
        **values,
        "num_train": len(training),
        "num_validation": len(validation),
        "precision": tuned.precision,
        "learning_rate": max(event.learning_rate for event in events if isinstance(event, Stepped)),
        "steps": finished.step,
        "best_step": finished.best_step,
        "train_seconds": round(finished.seconds, 1),
    }


def tune(
    bench: Bench,
    task: Task,
    training: Sequence[Example],
    validation: Sequence[Example],
    *,
    max_steps: int = 0,
) -> tuple[list[Event], LanguageModel]:
    """Plan and train LoRA exactly as the product does for prepared data.

    Args:
        bench: model and machine.
        task: gives wording and labels.
        training: rows to learn from.
        validation: rows that choose the checkpoint.
        max_steps: end after so many; 0: all.

    Returns:
        The trainer's events, and the tuned model.

    Raises:
        RunError: the training did not come to its end.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset = prepare_rows(folder, task.name, task.question, training, validation)
        plan, _ = make_plan(
            dataset,
            folder,
            str(bench.model),
            "lora",
            limits_changes={"max_steps": max_steps},
            hardware=bench.hardware,
        )
        assembled = assemble(plan, folder, folder / "checkpoints")
        events = list(train(assembled))
    if not isinstance(events[-1], Finished):
        raise RunError(
            "The training of a measurement did not come to its end",
            where=task.name,
            fix="Start again: finished cells are kept",
        )
    return events, assembled.language_model


def tuning_rows(task: Task, num_rows: int) -> tuple[list[Example], list[Example]]:
    """Take rows in a fixed random order; fewer rows begin more.

    Args:
        task: the rows.
        num_rows: to learn from and to validate on.

    Returns:
        Training and validation rows; the latter are a tenth, and at least 20.
    """
    rows = list(task.train)
    random.Random(f"tuning/{task.name}").shuffle(rows)  # noqa: S311 - no secret
    rows = rows[:num_rows]
    num_validation = max(20, len(rows) // 10)
    return rows[num_validation:], rows[:num_validation]


def prepare_rows(
    folder: Path,
    name: str,
    question: Question,
    training: Sequence[Example],
    validation: Sequence[Example],
) -> Dataset:
    """Write rows as a prepared dataset, which is what plans are made for.

    Args:
        folder: where to.
        name: of the data.
        question: gives template and labels.
        training: rows to learn from.
        validation: rows that choose the checkpoint.

    Returns:
        The manifest.
    """
    splits: dict[Any, SplitFile] = {}
    for split, rows in (("train", training), ("validation", validation)):
        content = "".join(row.to_json() + "\n" for row in rows)
        write_atomically(folder / f"{split}.jsonl", content)
        splits[split] = SplitFile(rows=len(rows), sha256=sha256_of_bytes(content.encode()))
    dataset = Dataset(
        id=name,
        name=name,
        template=question.template,
        labels=question.labels,
        splits=splits,
        columns={"text": "text", "label": "label"},
        upload_id=name,
        upload_sha256="",
        recipe_sha256="",
    )
    write_atomically(folder / MANIFEST, dataset.model_dump_json())
    return dataset


def _judged(task: Task, answers: Sequence[str]) -> Values:
    values = scored(task, answers)
    low, high = accuracy_interval([values["expected"]], [values["hits"]], same_rows=True)
    result = score("accuracy", answers, [(str(row.label),) for row in task.test])
    around = interval(result, seed=0)  # Wilson
    return {
        "balanced_accuracy": values["balanced_accuracy"],
        "balanced_interval": [low, high],
        "accuracy": result.value / 100,
        "accuracy_interval": [around.low / 100, around.high / 100],
        "num_rows": len(task.test),
    }
