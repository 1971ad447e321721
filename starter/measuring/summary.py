"""The summary: the cells of one model as tables, and which targets they meet."""

import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from starter.measuring.bench import Bench, Values
from starter.measuring.in_context import CONTROL_SHOTS
from starter.measuring.tuning import NUM_TRAIN
from starter.tasks import REAL_TASKS, accuracy_interval
from templates.files import write_atomically

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Target:
    """Something that the model should reach.

    Attributes:
        name: in words.
        met: whether it does.
        detail: the figures that decide.
    """

    name: str
    met: bool
    detail: str


def summarise(bench: Bench) -> Values:
    """Fold the cells of this model into tables, and write them to `measured.json`.

    Args:
        bench: says which model, and where the cells are.

    Returns:
        What was written: a table for each part that has cells, model, quick and targets.
    """
    measured: Values = {
        "model": {"folder": bench.model.name, "fingerprint": bench.fingerprint},
        "quick": bench.quick,
    }
    folds: dict[str, Callable[[dict[str, Values]], Any]] = {
        "prose": _prose_table,
        "in_context": _in_context_table,
        "tuning": _tuning_table,
        "speed": lambda cells: {name: _bare(cell) for name, cell in cells.items()},
        "texts": lambda cells: [_bare(cell) for _, cell in sorted(cells.items())],
    }
    for part, fold in folds.items():
        cells = bench.cells(part).values
        if cells:
            measured[part] = fold(cells)
    measured["targets"] = [asdict(target) for target in targets(measured)]
    content = json.dumps(measured, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(bench.out / "measured.json", content)
    return measured


def _bare(cell: Values) -> Values:
    left_out = ("key", "name", "fingerprint", "quick", "expected", "hits")
    return {name: value for name, value in cell.items() if name not in left_out}


def _prose_table(cells: dict[str, Values]) -> Values:
    """By source, then by model."""
    table: Values = {}
    for name, cell in cells.items():
        who, source = name.split("/", 1)
        table.setdefault(source, {})[who] = _bare(cell)
    return table


def _in_context_table(cells: dict[str, Values]) -> Values:
    """By task, then by number of demonstrations, then the control."""
    groups: dict[tuple[str, bool, int], list[Values]] = {}
    for cell in cells.values():
        groups.setdefault((cell["task"], cell["shuffled"], cell["count"]), []).append(cell)
    table: Values = {}
    for (task, shuffled, count), draws in sorted(groups.items(), key=lambda item: item[0]):
        empty: Values = {"kind": draws[0]["kind"], "counts": {}, "control": {}}
        place = "control" if shuffled else "counts"
        table.setdefault(task, empty)[place][str(count)] = _over_draws(draws)
    return table


def _over_draws(draws: Sequence[Values]) -> Values:
    """The mean over the draws that fit, against the chance of the same draws."""
    draws = sorted(draws, key=lambda draw: int(draw["draw"]))
    fitting = [draw for draw in draws if draw["fits"]]
    values: Values = {
        "mean": None,
        "interval": None,
        "chance": None,
        "above_chance": False,
        "draws": [draw["balanced_accuracy"] for draw in draws],
        "num_labels": [draw["num_labels"] for draw in draws],
        "num_draws_that_fit": len(fitting),
    }
    if not fitting:
        return values
    # Instances of a family differ in the number of labels, so each has its own chance.
    chances = [1 / draw["num_labels"] for draw in fitting]
    around = partial(
        accuracy_interval,
        [draw["expected"] for draw in fitting],
        [draw["hits"] for draw in fitting],
        same_rows=fitting[0]["kind"] == "real",
    )
    values["mean"] = statistics.fmean(draw["balanced_accuracy"] for draw in fitting)
    values["interval"] = list(around())
    values["chance"] = statistics.fmean(chances)
    values["above_chance"] = around(less=chances)[0] > _ROUNDING
    return values


def _tuning_table(cells: dict[str, Values]) -> Values:
    """By task, then by number of rows."""
    table: Values = {}
    for cell in sorted(cells.values(), key=lambda cell: int(cell["count"])):
        table.setdefault(cell["task"], {})[str(cell["count"])] = _bare(cell)
    return table


def targets(measured: Mapping[str, Any]) -> list[Target]:
    """Check what the model should reach.

    Args:
        measured: what `summarise` wrote; what was not measured counts as not reached.

    Returns:
        One entry a target, in a fixed order.
    """
    in_context, tuning = measured.get("in_context", {}), measured.get("tuning", {})
    shots = str(CONTROL_SHOTS)
    families = {n: e["counts"].get(shots) for n, e in in_context.items() if e["kind"] == "family"}
    real = {n: in_context[n]["counts"].get(shots) for n in REAL_TASKS if n in in_context}
    above_families, above_real = _above_chance(families), _above_chance(real)
    best = {
        name: max((c["mean"] for c in entry["counts"].values() if c["mean"] is not None), default=1)
        for name, entry in in_context.items()
    }
    most = str(max(NUM_TRAIN))
    tuned = {n: tuning[n][most] for n in REAL_TASKS if most in tuning.get(n, {})}
    points = {name: 100 * entry["tuned"]["balanced_accuracy"] for name, entry in tuned.items()}
    gains = {name: points[name] - 100 * best[name] for name in points if name in best}
    behind = {n: points[n] - 100 * e["classical"]["balanced_accuracy"] for n, e in tuned.items()}
    load = measured.get("speed", {}).get("load")
    return [
        Target(
            "8 shots: interval above chance on every held-out family",
            bool(families) and len(above_families) == len(families),
            f"{len(above_families)} of {len(families)}{_missing(families, above_families)}",
        ),
        Target(
            "8 shots: interval above chance on at least two of six real sets",
            len(above_real) >= 2,
            f"{len(above_real)} of {len(real)}: {', '.join(above_real) or 'none'}",
        ),
        Target(
            "tuned on 1,000 rows above the best few-shot prompt on all six real sets",
            len(gains) == len(REAL_TASKS) and min(gains.values()) > 0,
            _points(gains),
        ),
        Target(
            "tuned on 1,000 rows at most 5 points behind TF-IDF on at least four real sets",
            sum(value >= -5 for value in behind.values()) >= 4,
            _points(behind),
        ),
        Target(
            "loads in less than a second",
            bool(load) and load["load_seconds"] < 1,
            f"{load['load_seconds']:.2f} s; {load['first_load_seconds']:.2f} s with what the "
            "library imports at the first model"
            if load
            else "not measured",
        ),
    ]


def _above_chance(counts: Mapping[str, Any]) -> list[str]:
    return [name for name, count in counts.items() if count and count["above_chance"]]


def _missing(counts: Mapping[str, Any], above: Sequence[str]) -> str:
    names = ", ".join(name for name in counts if name not in above)
    return f"; not on {names}" if names else ""


def _points(values: Mapping[str, float]) -> str:
    told = (f"{name} {value:+.1f}" for name, value in values.items())
    return ", ".join(told) or "not measured"
