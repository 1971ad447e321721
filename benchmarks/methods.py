"""What every method reaches on real tasks with its own defaults, and at which price.

    STUDIO_DATA=... make bench-methods
    STUDIO_DATA=... python -m benchmarks.methods [--methods lora bitfit] [--tasks sst2] [--seeds 1]

Three tasks that no default was chosen on, the starter as the base, three seeds. What is finished is
not measured again while the engine's code that it runs is the same. With --at-once 2 two runs share
the processor's cores: a small model gains little from a second one. Writes docs/methods.md.
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from benchmarks.method_tasks import (
    NUM_TEST,
    NUM_TRAIN,
    TASKS,
    USUAL_NUM_TEST,
    USUAL_NUM_TRAIN,
    method_task,
)
from benchmarks.records import MEASURED, ROOT, product_digest, this_machine
from engine.comparing.classical import train_classical
from engine.comparing.scoring import score_answers
from engine.comparing.statistics import interval
from engine.methods import all_methods
from studio.settings import child_environment
from templates.errors import DataError

PAGE = ROOT / "docs" / "methods.md"
RECORDS = MEASURED.parent / "measured_methods.jsonl"
NUM_SEEDS = 3
_MOST_SECONDS = 3600
_BETTER = "better"
WORDS_ALONE = "words alone"
_ENOUGH_TASKS = 2
_REASONS = {
    "sst2": "It is not the method: full fine-tuning does no better. Whether a phrase praises hangs "
    "on what single words mean, and more than half of the test's different words stand in none of "
    "the rows. A model of 9 M parameters has read too little to know them beforehand; on such a "
    "task the studio's answer is that this base is too small, and that counting words does better.",
}
_METHOD_REASONS = {
    "prompt_tuning": "On `e2e_nlg` it is better with two seeds of three. With the third, too, the "
    "validation loss falls, from 3.4 after six steps to 2.4 (3.5 to 2.5 with the second), "
    "but its greedy answers repeat one word until the limit of tokens: 7,680 numbers before the "
    "text make the right words likelier, and do not teach a model of 9 M parameters to put every "
    "fact into a sentence once.",
}
Record = dict[str, Any]


def read() -> list[Record]:
    """Read what was measured.

    Returns:
        One record for each method, task and seed, or several, oldest first.
    """
    if not RECORDS.exists():
        return []
    return [json.loads(line) for line in RECORDS.read_text(encoding="utf-8").splitlines()]


def is_done(records: Sequence[Record], method: str, task: str, seed: int) -> bool:
    """Say whether something was measured with the code as it is.

    Args:
        records: all of them.
        method: its name.
        task: its name.
        seed: of the run.

    Returns:
        True where it was.
    """
    wanted = method, task, seed, product_digest(method, start="method_run.py")
    return any(
        (record["method"], record["task"], record["seed"], record.get("product")) == wanted
        for record in records
    )


def run(
    method: str, task: str, seed: int, learning_rate: float | None = None, *, at_once: int = 1
) -> Record:
    """Measure in a process of its own, so that its peak memory is its own.

    Args:
        method: its name.
        task: its name.
        seed: of the run.
        learning_rate: instead of the method's own.
        at_once: how many runs share the processor's cores.

    Returns:
        The record; with "error" instead of numbers where it could not.
    """
    num_threads = max(1, this_machine()["cores"] // at_once)
    record = {
        "method": method, "task": task, "seed": seed, "threads": num_threads,
        "product": product_digest(method, start="method_run.py"), "machine": this_machine(),
    }  # fmt: skip
    command = [
        sys.executable, "-m", "benchmarks.method_run", method, task, str(seed),
        *([str(learning_rate)] if learning_rate else []),
    ]  # fmt: skip
    environment = child_environment(offline=True) | {
        "STUDIO_DATA": os.environ["STUDIO_DATA"], "OMP_NUM_THREADS": str(num_threads),
    }  # fmt: skip
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True,
            timeout=_MOST_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return record | {"error": f"not done after {_MOST_SECONDS} seconds"}
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        return record | {"error": lines[-1][:300] if lines else f"ended with {done.returncode}"}
    return record | json.loads(done.stdout.splitlines()[-1])


def words_alone(task: str, seed: int) -> Record | None:
    """Score the classifier without a language model that the studio's comparisons show, too.

    Args:
        task: its name.
        seed: draws the rows.

    Returns:
        The record; None where answers are written and no labels.
    """
    drawn = method_task(task, seed)
    if not drawn.labels:
        return None
    template, metric = drawn.template, drawn.template.metric
    model = train_classical(drawn.train, drawn.validation, template, drawn.labels, metric=metric)
    result = score_answers(metric, model.predict(drawn.test), drawn.test, drawn.question)
    around = interval(result, seed=seed)
    return {
        "method": WORDS_ALONE, "task": task, "seed": seed, "machine": this_machine(),
        "score": result.value, "low": around.low, "high": around.high,
    }  # fmt: skip


def append(path: Path, record: Record) -> None:
    """Keep a record.

    Args:
        path: of the file; made if need be.
        record: one line of it.
    """
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def page(records: Sequence[Record]) -> str:
    """Build the page.

    Args:
        records: oldest first; the newest of each method, task and seed counts.

    Returns:
        Markdown.
    """
    newest = {(r["method"], r["task"], r["seed"]): r for r in records}
    by_method: dict[str, list[Record]] = {}
    for (method, _, _), record in sorted(newest.items()):
        by_method.setdefault(method, []).append(record)
    reference = by_method.pop(WORDS_ALONE, [])
    scores = [_score_row(name, own) for name, own in by_method.items()]
    prices = [_price_row(name, own) for name, own in by_method.items()]
    if reference:
        scores.append(_score_row(WORDS_ALONE, reference))
    tuned = [record for own in by_method.values() for record in own]
    machines = {
        f"{one['machine']['processor']}, {one['threads']} of {one['machine']['cores']} cores"
        for one in tuned
    }
    return "\n\n".join(
        [
            "# What every method reaches",
            "Written by `python -m benchmarks.methods`, from what it measured and nothing else.",
            _ABOUT.format(seeds=_seeds(tuned), machines=" or ".join(sorted(machines))),
            markdown_table(("method", *TASKS, "clearly better than the base on"), scores),
            *_whys(by_method, reference),
            "## What it costs",
            markdown_table(
                (
                    "method", "trainable", "peak memory", "training", "size",
                    "answers one by one", "32 at once",
                ),
                prices,
            ),
        ]
    ) + "\n"  # fmt: skip


_ABOUT = f"""The starter, tuned on {USUAL_NUM_TRAIN} rows (`e2e_nlg` on {NUM_TRAIN["e2e_nlg"]})
with each method's own defaults, {{seeds}} that draw rows and start values; each run on
{{machines}}. `sst2` and `trec` are accuracy in points on {USUAL_NUM_TEST} test rows, `e2e_nlg` is
chrF on {NUM_TEST["e2e_nlg"]} meanings with all their references. A cell is the mean over seeds, the
mean 95 % interval of the test rows, the lowest and highest seed, and the base with the same prompt.
"Clearly" means better by the studio's own test with every seed. No default was chosen on these
tasks. `words alone` is no language model but the classifier on words and parts of words that the
studio's comparisons show, taught with the same rows. Answers are timed unmerged, with the first
seed, against the base."""


def _seeds(records: Iterable[Record]) -> str:
    """Say how many seeds a method and task was measured with."""
    counts = Counter((record["method"], record["task"]) for record in records).values()
    fewest, most = min(counts), max(counts)
    return f"{fewest} seeds" if fewest == most else f"{fewest} to {most} seeds"


def _whys(by_method: Mapping[str, Sequence[Record]], reference: Sequence[Record]) -> list[str]:
    """Say on which tasks most methods are not clearly better, and why."""
    paragraphs = []
    for task in TASKS:
        clear = [name for name, own in by_method.items() if _is_clear(own, task)]
        if 2 * len(clear) >= len(by_method):
            continue
        best = max(_mean_score(own, task) for own in by_method.values())
        lines = [
            f"On `{task}` {len(clear)} of {len(by_method)} methods are clearly better than the base"
            f"; the best mean is {best:.1f}."
        ]
        if words := _mean_score(reference, task):
            lines.append(f"The same rows teach `words alone` to score {words:.1f}.")
        if task in _REASONS:
            lines.append(_REASONS[task])
        paragraphs.append(" ".join(lines))
    weak = [
        name
        for name, own in by_method.items()
        if sum(_is_clear(own, task) for task in TASKS) < _ENOUGH_TASKS
    ]
    if weak:
        names = ", ".join(f"`{name}`" for name in weak)
        paragraphs.append(f"Clearly better on fewer than {_ENOUGH_TASKS} tasks: {names}.")
        paragraphs += [
            f"`{name}`: {_METHOD_REASONS[name]}" for name in weak if name in _METHOD_REASONS
        ]
    return paragraphs


def _is_clear(records: Sequence[Record], task: str) -> bool:
    own = [r for r in records if r["task"] == task]
    return bool(own) and all(r.get("outcome") == _BETTER for r in own)


def _mean_score(records: Sequence[Record], task: str) -> float:
    scores = [r["score"] for r in records if r["task"] == task and "score" in r]
    return statistics.mean(scores) if scores else 0.0


def _score_row(name: str, records: Sequence[Record]) -> list[str]:
    row, clear = [f"`{name}`"], []
    for task in TASKS:
        own = [r for r in records if r["task"] == task]
        measured = [r for r in own if "score" in r]
        if not measured:
            row.append(next((f"could not: {r['error']}" for r in own), "-"))
            continue
        mean = {
            key: statistics.mean(r[key] for r in measured)
            for key in ("score", "low", "high", "base")
            if key in measured[0]
        }
        seeds = [r["score"] for r in measured]
        base = f"; base {mean['base']:.1f}" if "base" in mean else ""
        row.append(
            f"{mean['score']:.1f} ({mean['low']:.0f}–{mean['high']:.0f}; seeds {min(seeds):.1f}–"
            f"{max(seeds):.1f}){base}"
        )
        if _is_clear(own, task):
            clear.append(task)
    return [*row, ", ".join(clear) or ("-" if name == WORDS_ALONE else "none")]


def _price_row(name: str, records: Sequence[Record]) -> list[str]:
    measured = [r for r in records if "score" in r]
    if not measured:
        return [f"`{name}`", *["-"] * 6]
    middle = {
        key: statistics.median(r[key] for r in measured)
        for key in ("trainable_ratio", "peak_bytes", "train_seconds", "size_bytes")
    }
    timed = [r["slower"] for r in measured if r["slower"]]
    slower = [statistics.median(of[size] for of in timed) for size in ("1", "32") if timed]
    return [
        f"`{name}`",
        f"{middle['trainable_ratio']:.2%}",
        f"{middle['peak_bytes'] / 1e6:,.0f} MB",
        f"{middle['train_seconds']:.0f} s",
        f"{middle['size_bytes'] / 1e3:,.0f} kB",
        *([f"{ratio:.2f}×" for ratio in slower] or ["-", "-"]),
    ]


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a table.

    Args:
        header: names of its columns.
        rows: cells, as many in each.

    Returns:
        Markdown.
    """
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Measure what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="*", choices=sorted(all_methods()))
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), choices=TASKS)
    parser.add_argument("--seeds", type=int, default=NUM_SEEDS)
    parser.add_argument("--at-once", type=int, default=1)
    options = parser.parse_args()
    try:
        method_task(TASKS[0], 0)
    except DataError as error:  # said at once, not by every run
        raise SystemExit(str(error)) from None
    methods = options.methods or sorted(all_methods())
    known = read()
    missing = [
        (method, task, seed)
        for seed, method, task in itertools.product(range(options.seeds), methods, options.tasks)
        if not is_done(known, method, task, seed)
    ]
    pool = ThreadPoolExecutor(options.at_once)
    try:
        runs = [pool.submit(run, *one, at_once=options.at_once) for one in missing]
        for done in as_completed(runs):
            record = done.result()
            append(RECORDS, record)
            said = record.get("error") or f"{record['score']:.1f}, base {record['base']:.1f}"
            print(f"{record['method']} {record['task']} {record['seed']}: {said}", flush=True)
    finally:
        pool.shutdown(cancel_futures=True)
    compared = {(record["method"], record["task"], record["seed"]) for record in read()}
    for task, seed in itertools.product(options.tasks, range(options.seeds)):
        if (WORDS_ALONE, task, seed) not in compared and (record := words_alone(task, seed)):
            append(RECORDS, record)
    PAGE.write_text(page(read()), encoding="utf-8")


if __name__ == "__main__":
    main()
