"""How fast training is: ours beside `peft` and `trl`, interleaved, with the same rows and losses.

    make bench                                    everything, then docs/performance.md
    python -m benchmarks.train --quick            a first look
    python -m benchmarks.train --models llama-15m --methods lora --series main

What is finished is not measured again. Run it on a machine that does nothing else.
"""

import argparse
import itertools
import statistics
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from benchmarks.models import model_folder
from benchmarks.records import MODELS_FOLDER, read_records, records_path, this_machine
from benchmarks.turns import Contestant, measure, ours, peer
from benchmarks.workload import LEARNING_RATES, MODELS, Case, Precision

SERIES = ("main", "length", "batch", "data")
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
_TOKENS_A_STEP = 4096  # in the series over lengths
_LENGTHS, _QUICK_LENGTHS = (128, 512, 1024, 2048, 4096), (128, 512, 1024)
_BATCH_SIZES, _QUICK_BATCH_SIZES = (1, 4, 16, 64), (2, 8, 32)
_DATA_TOKENS, _QUICK_DATA_TOKENS = (10_000, 100_000, 1_000_000, 10_000_000), (10_000, 100_000)
_SERIES_MODEL = "llama-15m"
_DATA_MODEL = "tiny"  # so that ten million tokens take minutes, and handling them counts


def choose_precision(model: str, how: dict[str, Any]) -> Precision:
    """Measure how our own trainer is faster on this machine, once for each model.

    Args:
        model: its name.
        how: how long and how often to measure.

    Returns:
        "fp32" or "bf16".
    """
    case = Case("train", "precision", model, "lora", precision="fp32", **how)
    rivals = [ours(precision, f"ours {precision}") for precision in PRECISIONS]
    measure(case, rivals[1:], first=rivals[0])
    rates = _rates(case)
    assert "ours fp32" in rates, "our own trainer does not run"
    return max(PRECISIONS, key=lambda precision: rates.get(f"ours {precision}", 0.0))


def rivals_of(case: Case) -> list[Contestant]:
    """List the peers, `trl` in its best way: the one that was faster with LoRA of the same model.

    Args:
        case: a soft prompt goes before every row, which packed rows have no place for.

    Returns:
        The contestants.
    """
    ways = ["trl packed", "trl padding-free"]
    if case.method == "prompt_tuning":
        ways = ["trl padded"]
    elif (case.method, case.settings) != ("lora", "ours"):
        rates = _rates(replace(case, method="lora", settings="ours"))
        ways = [max(ways, key=lambda name: rates.get(name, 0.0))]
    return [peer("peft"), *(peer(name) for name in ways)]


def _rates(case: Case) -> dict[str, float]:
    """Median tokens a second of everybody who was measured on a case's model and method."""
    found = {}
    for record in read_records(records_path(this_machine())):
        measured = record.opened
        if (measured.series, measured.model, measured.method, measured.settings) == (
            case.series, case.model, case.method, case.settings
        ):  # fmt: skip
            for name, told in record.contestants.items():
                turns = [turn for turn in told.get("turns", []) if "tokens" in turn]
                if turns:
                    found[name] = statistics.median(t["tokens"] / t["seconds"] for t in turns)
    return found


def cases(options: argparse.Namespace) -> Iterator[tuple[Case, list[Contestant]]]:
    """List what is measured, the most important first.

    Args:
        options: from the command line.

    Yields:
        A case and the peers in it.
    """
    how = {
        "num_turns": options.turns,
        "turn_seconds": options.seconds,
    }
    models = dict.fromkeys([*options.models, _series_model(options)])
    chosen = {model: options.precision or choose_precision(model, how) for model in models}
    if "main" in options.series:
        for model, method in itertools.product(options.models, options.methods):
            precision = "nf4" if method == "qlora" else chosen[model]
            case = Case("train", "main", model, method, precision=precision, **how)
            for settings in ("ours", "own"):
                given = replace(case, settings=settings)
                yield given, rivals_of(given)
    model = _series_model(options)
    case = Case("train", "", model, "lora", precision=chosen[model], **how)
    if "length" in options.series:
        for length in _QUICK_LENGTHS if options.quick else _LENGTHS:
            rows = max(1, _TOKENS_A_STEP // length)
            given = replace(case, series="length", row_tokens=length, batch_size=rows)
            yield given, [peer("peft")]
    if "batch" in options.series:
        for size in _QUICK_BATCH_SIZES if options.quick else _BATCH_SIZES:
            yield replace(case, series="batch", batch_size=size), [peer("peft")]
    if "data" in options.series:
        for num_tokens in _QUICK_DATA_TOKENS if options.quick else _DATA_TOKENS:
            given = replace(case, series="data", model=_DATA_MODEL, num_turns=1)
            yield replace(given, data_tokens=num_tokens), []


def _series_model(options: argparse.Namespace) -> str:
    model: str = options.models[0] if _SERIES_MODEL not in options.models else _SERIES_MODEL
    return model


def main() -> None:
    """Measure one case after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    real = [name for name in MODELS if name != "tiny"]
    parser.add_argument("--quick", action="store_true", help="one model, few short turns")
    parser.add_argument("--models", nargs="*", choices=list(MODELS))
    parser.add_argument("--methods", nargs="*", choices=list(LEARNING_RATES))
    parser.add_argument("--series", nargs="*", default=list(SERIES), choices=SERIES)
    parser.add_argument("--precision", choices=PRECISIONS, help="default: the faster, measured")
    parser.add_argument("--turns", type=int, help="measured turns of each contestant")
    parser.add_argument("--seconds", type=float, help="of each turn, at least")
    options = parser.parse_args()
    options.models = options.models or (real[:1] if options.quick else real)
    options.methods = options.methods or list(LEARNING_RATES)
    options.turns = options.turns or (3 if options.quick else 5)
    options.seconds = options.seconds or (1.5 if options.quick else 2.5)
    MODELS_FOLDER.mkdir(parents=True, exist_ok=True)
    for model in {*options.models, _series_model(options), _DATA_MODEL}:
        model_folder(model, MODELS_FOLDER)
    for case, rivals in cases(options):
        is_account = case.series == "main" and case.settings == "ours"
        measure(case, rivals, with_account=is_account)


if __name__ == "__main__":
    main()
