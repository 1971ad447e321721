"""Which learning rate suits each method on the starter: tried on tasks that are for choosing alone.

    STUDIO_DATA=... python -m benchmarks.method_rates [--methods lora bitfit]

From the method's own rate on, threefold steps up and down until the best one has a worse one on
either side. What was tried is not tried again. Writes docs/method_rates.md; the choice is written
into the method's file by hand.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from benchmarks.method_tasks import CHOOSING_TASKS, USUAL_NUM_TRAIN, method_task
from benchmarks.methods import RECORDS, Record, append, markdown_table, run
from benchmarks.records import ROOT
from engine.methods import all_methods
from templates.errors import DataError

PAGE = ROOT / "docs" / "method_rates.md"
TRIED = RECORDS.with_name("measured_rates.jsonl")
_STEP = 3.0
_MOST_TRIES = 6
_AT_ONCE = 2  # methods; each has its share of the cores
_SEED = 100  # of no run that is reported


def read_tries() -> list[Record]:
    """Read what was tried.

    Returns:
        One record for each method, rate and task, oldest first.
    """
    if not TRIED.exists():
        return []
    return [json.loads(line) for line in TRIED.read_text(encoding="utf-8").splitlines()]


def search(own_rate: float, score_at: Callable[[float], float]) -> dict[float, float]:
    """Climb from a rate to one that has a worse one on either side.

    Args:
        own_rate: where to begin.
        score_at: tries a rate; higher is better.

    Returns:
        Score by rate, of all that were tried.
    """
    found = {0: score_at(own_rate)}  # by powers of the step
    while len(found) < _MOST_TRIES:
        best = max(found, key=lambda power: found[power])
        missing = [power for power in (best + 1, best - 1) if power not in found]
        if not missing:
            break
        found[missing[0]] = score_at(_rate(own_rate, missing[0]))
    return {_rate(own_rate, power): score for power, score in found.items()}


def _rate(own_rate: float, power: int) -> float:
    return float(f"{own_rate * _STEP**power:.2g}")


def _try(method: str, task: str, learning_rate: float | None) -> Record:
    """Give what was measured before, or measure; the method's own rate where none is given."""
    for record in read_tries():
        known = record["method"], record["task"], record["asked"]
        if known == (method, task, learning_rate):
            return record
    record = run(method, task, _SEED, learning_rate, at_once=_AT_ONCE) | {"asked": learning_rate}
    append(TRIED, record)
    said = record.get("error") or f"{record['score']:.1f}"
    print(f"{method} {task} {learning_rate or 'own rate'}: {said}", flush=True)
    return record


def _score(method: str, learning_rate: float | None) -> float:
    """Mean over the tasks; what diverges has learned nothing."""
    return statistics.mean(
        _try(method, task, learning_rate).get("score", 0.0) for task in CHOOSING_TASKS
    )


def _climb(method: str) -> None:
    first = _try(method, CHOOSING_TASKS[0], None)
    if "learning_rate" in first:
        own_rate = _rate(first["learning_rate"], 0)
        search(own_rate, lambda rate: _score(method, None if rate == own_rate else rate))


def page(records: Sequence[Record]) -> str:
    """Build the page.

    Args:
        records: oldest first.

    Returns:
        Markdown.
    """
    tried: dict[str, dict[float, dict[str, Record]]] = {}
    for record in records:
        by_rate = tried.setdefault(record["method"], {})
        rate = record.get("learning_rate") or record["asked"] or 0.0
        by_rate.setdefault(_rate(rate, 0), {})[record["task"]] = record
    rows = [
        [f"`{method}`", "<br>".join(_words(rate, of) for rate, of in sorted(by_rate.items()))]
        for method, by_rate in sorted(tried.items())
    ]
    return "\n\n".join(
        [
            "# Which learning rate suits each method",
            "Written by `python -m benchmarks.method_rates`, from what it tried and nothing else.",
            _ABOUT.format(num_train=USUAL_NUM_TRAIN),
            markdown_table(("method", f"rate: points on {' and '.join(CHOOSING_TASKS)}"), rows),
        ]
    ) + "\n"  # fmt: skip


_ABOUT = """The starter, tuned once at each rate on {num_train} rows of each task, and scored on 300
other rows of the same training table; these tasks choose defaults and report nothing else. One run
says a rate to within about three points, so a default moved only where another rate was better by
more than that on average. A soft prompt was tried for 10 epochs; longer is better, and the default.
`spot` learns as prompt tuning does."""


def _words(rate: float, by_task: Mapping[str, Record]) -> str:
    scores = [
        f"{by_task[task]['score']:.0f}" if "score" in by_task[task] else "diverged"
        for task in CHOOSING_TASKS
        if task in by_task
    ]
    return f"{rate:g}: {', '.join(scores)}"


def main() -> None:
    """Try what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="*", choices=sorted(all_methods()))
    options = parser.parse_args()
    try:
        method_task(CHOOSING_TASKS[0], _SEED)
    except DataError as error:
        raise SystemExit(str(error)) from None
    methods = options.methods or sorted(all_methods())
    pool = ThreadPoolExecutor(_AT_ONCE)
    try:
        list(pool.map(_climb, methods))
    finally:
        pool.shutdown(cancel_futures=True)
    PAGE.write_text(page(read_tries()), encoding="utf-8")


if __name__ == "__main__":
    main()
