"""A tiny whole run, in memory for tests and as a command for judges that kill processes.

`python -m tests.engine.train_tiny OUT BASE STEPS` trains, or goes on; then writes OUT/result.txt.
"""

import hashlib
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from engine.base_model import load_base, locate_base
from engine.encode import encode_example
from engine.events import Started
from engine.method import attach_method, parse_options, trainable
from engine.methods import get_method
from engine.plan import Limits, Schedule
from engine.trainer import Training, train
from tests.engine.tiny import TEMPLATE, TICKETS

SCHEDULE = Schedule(learning_rate=5e-3, epochs=4, batch_size=3, evaluations_per_epoch=1)


def tiny_training(
    base: Path,
    checkpoints: Path,
    method: str = "lora",
    *,
    options: Mapping[str, object] | None = None,
    **changes: object,
) -> Training:
    """12 steps with an evaluation after every third."""
    spec = get_method(method)
    language_model = load_base(locate_base(str(base)), spec.precisions[0])
    if options is None:
        options = {"rank": 4, "dropout": 0.3} if method == "lora" else {}
    settings = parse_options(spec, options)
    tuned = attach_method(language_model, spec, settings, seed=3)
    items = [encode_example(tuned, ticket, TEMPLATE) for ticket in TICKETS]
    whole = Training(tuned, items, items[:4], SCHEDULE, Limits(), 5, checkpoints)
    return replace(whole, **{"new_optimizer": spec.new_optimizer(settings)} | changes)


def digest(training: Training) -> str:
    """The bits of what was learned."""
    hashed = hashlib.sha256()
    for name, tensor in sorted(trainable(training.language_model.model).items()):
        hashed.update(name.encode() + tensor.detach().contiguous().numpy().tobytes())
    return hashed.hexdigest()


def main() -> None:
    torch.set_num_threads(1)
    out, base = Path(sys.argv[1]), Path(sys.argv[2])
    limits = Limits(max_steps=int(sys.argv[3]))
    training = tiny_training(base, out / "checkpoints", limits=limits)
    for event in train(training):
        if isinstance(event, Started):
            print(f"goes on after step {event.first_step - 1}", *event.notices, flush=True)
    (out / "result.txt").write_text(digest(training))


if __name__ == "__main__":
    main()
