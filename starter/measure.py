"""Measure the starter model, so that every number of its card comes from a file.

    python -m starter.measure --data $STUDIO_DATA --model starter/model --first <folder> \\
        --out build/starter/measured [--only prose,in_context] [--quick]
    python -m starter.measure --model starter/model --out build/starter/measured --summary

Each finished cell is a line of `<out>/<part>.jsonl` and is not measured again for the same
weights and the same rows. `<out>/measured.json` folds the lines of one model into tables.

The parts are those of `starter/measuring/`: prose, in_context, tuning, speed, texts.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

# Read when torch loads: as in studio/settings.py.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

from engine.base_model import locate_base
from engine.planning.hardware import prepare_process
from starter.corpus import CorpusError
from starter.measuring.bench import Bench
from starter.measuring.in_context import measure_in_context
from starter.measuring.prose import measure_prose
from starter.measuring.speed import measure_speed
from starter.measuring.summary import summarise
from starter.measuring.texts import measure_texts
from starter.measuring.tuning import measure_tuning
from templates.errors import StudioError

PARTS: dict[str, Callable[[Bench], None]] = {
    "prose": measure_prose,
    "in_context": measure_in_context,
    "tuning": measure_tuning,
    "speed": measure_speed,
    "texts": measure_texts,
}


def read_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; the data folder comes from --data or STUDIO_DATA.

    Args:
        arguments: the words after the command; None reads the real command line.

    Returns:
        The options; `only` is a list of parts.
    """
    parser = argparse.ArgumentParser(
        prog="python -m starter.measure", description="Measure the starter model."
    )
    default = os.environ.get("STUDIO_DATA")
    parser.add_argument("--data", type=Path, default=default, help="default: $STUDIO_DATA")
    parser.add_argument("--model", type=Path, default=Path(__file__).parent / "model")
    parser.add_argument("--first", type=Path, help="folder of the first version, for prose")
    parser.add_argument("--out", type=Path, default=Path("build/starter/measured"))
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas between")
    parser.add_argument("--quick", action="store_true", help="few rows: to see whether it works")
    parser.add_argument("--summary", action="store_true", help="measure nothing, write the tables")
    options = parser.parse_args(arguments)
    options.only = [part.strip() for part in options.only.split(",") if part.strip()]
    unknown = [part for part in options.only if part not in PARTS]
    if unknown:
        parser.error(f"there is no part {', '.join(unknown)}; the parts are {', '.join(PARTS)}")
    if options.data is None and not options.summary:
        parser.error("no data: set STUDIO_DATA (or --data) to a folder with text/ and tasks/")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what is missing, write the tables, and say which targets are met.

    Args:
        arguments: the words after the command; None reads the real command line.

    Returns:
        The exit status: 0 also where a target is missed, 2 where something cannot be opened.
    """
    options = read_options(arguments)
    bench = Bench(options.model, options.out, options.data, options.first, options.quick)
    try:
        locate_base(str(options.model))
        if not options.summary:
            prepare_process()
            for part in options.only:
                PARTS[part](bench)
        measured = summarise(bench)
    except (StudioError, CorpusError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    for target in measured["targets"]:
        sign = "met   " if target["met"] else "missed"
        print(f"{sign} {target['name']}: {target['detail']}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
