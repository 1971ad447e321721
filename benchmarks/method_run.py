"""One method on one task with one seed, in a process of its own: what it reaches, and its price.

    python -m benchmarks.method_run METHOD TASK SEED [LEARNING_RATE]

Everything as the studio does it with nobody's choices: the plan, the schedule of the method, the
best checkpoint. Answers are timed with the first seed alone, as what was learned does not matter to
their speed, and with no learning rate that is only tried. Prints one JSON line.
"""

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.method_tasks import MethodTask, method_task
from benchmarks.seat import peak_bytes
from engine.base_model import load_base, locate_base
from engine.checkpoints import LEARNED, best_checkpoint
from engine.comparing.prompting import Question, answers_to, build_prompts
from engine.comparing.scoring import score_answers
from engine.comparing.statistics import interval, verdict
from engine.events import Event, Finished, Started, Stepped
from engine.language_model import LanguageModel
from engine.methods import get_method
from engine.planning.hardware import prepare_process
from engine.planning.make_plan import make_plan
from engine.runs import assemble
from engine.trainer import Training, train
from templates.errors import RunError

_BASE = "starter"
_SOURCE_TASK = {  # for a method that needs one
    "sst2": "trec", "trec": "sst2", "e2e_nlg": "trec", "snips": "clinc150", "clinc150": "snips",
}  # fmt: skip
_NEEDED: dict[str, dict[str, Any]] = {"bitfit": {"add_biases": True}}  # the starter has none
_BATCHES, _ROUNDS = (1, 32), 5
_ALONE = 8  # prompts that are answered one by one


def measure(
    method: str, task: MethodTask, seed: int, learning_rate: float | None = None
) -> dict[str, Any]:
    """Tune, answer the test rows, and compare with the base that is only prompted.

    Args:
        method: its name.
        task: the rows.
        seed: of the run.
        learning_rate: instead of the method's own.

    Returns:
        Values for JSON: score and its interval, the base's, and whether the difference is sure;
        trainable share, peak memory, seconds, size, and how much longer answers take.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sources = {}
        if get_method(method).start:
            other = method_task(_SOURCE_TASK[task.name], seed)
            _tune("prompt_tuning", other, seed, folder / "other")
            sources = {"other": _learned(folder / "other")}
        changes = {"learning_rate": learning_rate} if learning_rate else {}
        training, events = _tune(method, task, seed, folder / "run", sources, changes)
        size_bytes = _learned(folder / "run").stat().st_size
        peak = peak_bytes()
        tuned = training.language_model
        base = load_base(locate_base(_BASE), "fp32")
    question, template = task.question, task.template
    results = {
        who: score_answers(
            template.metric,
            answers_to(model, build_prompts(model, task.test, question), question),
            task.test,
            question,
        )
        for who, model in (("tuned", tuned), ("base", base))
    }
    decided = verdict(results["tuned"], results["base"], seed=seed)
    around = {who: interval(result, seed=seed) for who, result in results.items()}
    started = next(event for event in events if isinstance(event, Started))
    finished = next(event for event in events if isinstance(event, Finished))
    return {
        "metric": template.metric,
        "score": results["tuned"].value,
        "low": around["tuned"].low,
        "high": around["tuned"].high,
        "base": results["base"].value,
        "base_low": around["base"].low,
        "base_high": around["base"].high,
        "outcome": decided.outcome,
        "p_value": decided.p_value,
        "trainable_ratio": started.num_trainable / started.num_parameters,
        "peak_bytes": peak,
        "train_seconds": finished.seconds,
        "steps": finished.step,
        "learning_rate": max(e.learning_rate for e in events if isinstance(e, Stepped)),
        "size_bytes": size_bytes,
        "precision": tuned.precision,
        "slower": {
            str(size): _slower(tuned, base, task, size)
            for size in _BATCHES
            if seed == 0 and not learning_rate
        },
    }


def _tune(
    method: str,
    task: MethodTask,
    seed: int,
    folder: Path,
    sources: Mapping[str, Path] | None = None,
    schedule_changes: Mapping[str, Any] | None = None,
) -> tuple[Training, list[Event]]:
    folder.mkdir()
    plan, _ = make_plan(
        task.prepare(folder),
        folder,
        _BASE,
        method,
        options=_NEEDED.get(method),
        schedule_changes=schedule_changes,
        seed=seed,
    )
    training = assemble(plan, folder, folder / "checkpoints", sources)
    events = list(train(training))
    if not isinstance(events[-1], Finished):
        raise RunError("The run did not come to its end", where=f"{method} on {task.name}")
    return training, events


def _learned(folder: Path) -> Path:
    return best_checkpoint(folder / "checkpoints").folder / LEARNED


def _slower(tuned: LanguageModel, base: LanguageModel, task: MethodTask, size: int) -> float:
    """How many times as long the tuned model takes for the same prompts, unmerged; a median."""
    question = replace(task.question, batch_size=size)
    rows = task.test[: _ALONE if size == 1 else size]
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(_ROUNDS):
        for is_tuned, model in ((True, tuned), (False, base)):
            seconds[is_tuned].append(_seconds(model, rows, question))
    return statistics.median(seconds[True]) / statistics.median(seconds[False])


def _seconds(model: LanguageModel, rows: Any, question: Question) -> float:
    begun = time.perf_counter()
    answers_to(model, build_prompts(model, rows, question), question)
    return time.perf_counter() - begun


def main() -> None:
    """Measure what the command line names."""
    method, name, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
    learning_rate = float(sys.argv[4]) if len(sys.argv) > 4 else None
    prepare_process()
    measured = measure(method, method_task(name, seed), seed, learning_rate)
    print(json.dumps(measured, allow_nan=False))


if __name__ == "__main__":
    main()
