"""How fast answers are: ours beside `model.generate` and a plain scoring loop, interleaved.

    python -m benchmarks.infer [--quick] [--models llama-15m] [--tasks generate score]

Greedy answers of 32 tokens to 64 prompts, and the likeliest of a few labels behind eight solved
items. What is finished is not measured again. Run it on a machine that does nothing else.
"""

import argparse
from collections.abc import Iterator

from benchmarks.models import model_folder
from benchmarks.records import MODELS_FOLDER
from benchmarks.turns import Contestant, measure, peer
from benchmarks.workload import MODELS, Case, Precision, Settings

_BATCH_SIZES = (8, 16, 32, 64)
RIVALS = {
    "generate": [peer(f"generate {size}") for size in _BATCH_SIZES],
    "score": [peer("plain loop"), peer("plain loop, last logits")],
}
_SETTINGS: tuple[tuple[Settings, Precision], ...] = (
    ("ours", "fp32"),
    ("ours", "bf16"),
    ("own", "fp32"),
)
_MOST_WEIGHTS = 10**7  # a plain loop over a larger model takes minutes: it is measured in one way


def cases(options: argparse.Namespace) -> Iterator[tuple[Case, list[Contestant]]]:
    """List what is measured.

    Args:
        options: from the command line.

    Yields:
        A case and the peers in it.
    """
    for model in options.models:
        for task in options.tasks:
            once = task == "score" and MODELS[model].linear_weights > _MOST_WEIGHTS
            for settings, precision in _SETTINGS[:1] if once else _SETTINGS:
                case = Case(
                    task, "main", model, settings=settings, precision=precision,
                    num_turns=options.turns,
                )  # fmt: skip
                yield case, RIVALS[task]


def main() -> None:
    """Measure one case after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    real = [name for name in MODELS if name != "tiny"]
    parser.add_argument("--quick", action="store_true", help="one model, fewer turns")
    parser.add_argument("--models", nargs="*", choices=list(MODELS))
    parser.add_argument("--tasks", nargs="*", default=list(RIVALS), choices=list(RIVALS))
    parser.add_argument("--turns", type=int, help="measured turns of each contestant")
    options = parser.parse_args()
    options.models = options.models or (real[:1] if options.quick else real)
    options.turns = options.turns or (3 if options.quick else 5)
    MODELS_FOLDER.mkdir(parents=True, exist_ok=True)
    for model in options.models:
        model_folder(model, MODELS_FOLDER)
    for case, rivals in cases(options):
        measure(case, rivals, with_account=case.settings == "ours")


if __name__ == "__main__":
    main()
