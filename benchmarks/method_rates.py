"""Which learning rate suits each method on the starter: tried on tasks that are for choosing alone.

    STUDIO_DATA=... python -m benchmarks.method_rates [--methods lora bitfit]

From the method's own rate on, threefold steps up and down until the best one has a worse one on
either side. What was tried is not tried again. Prints a line for each try and, at the end, a table;
the choice is written into the method's file by hand.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from benchmarks.method_tasks import CHOOSING_TASKS, method_task
from benchmarks.methods import RECORDS, Record, append, run
from engine.methods import all_methods
from templates.errors import DataError

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


def _tried(method: str) -> Mapping[float, float]:
    first = _try(method, CHOOSING_TASKS[0], None)
    if "learning_rate" not in first:
        return {}
    own_rate = _rate(first["learning_rate"], 0)
    return search(own_rate, lambda rate: _score(method, None if rate == own_rate else rate))


def main() -> None:
    """Try what is missing, and print what each rate reached."""
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
        for method, scores in zip(methods, pool.map(_tried, methods), strict=True):
            words = [f"{rate:g}: {scores[rate]:.1f}" for rate in sorted(scores)]
            print(f"{method}: {', '.join(words) or 'could not'}", flush=True)
    finally:
        pool.shutdown(cancel_futures=True)


if __name__ == "__main__":
    main()
