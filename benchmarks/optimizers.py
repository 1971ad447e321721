"""What an optimizer costs beside what it saves: fused AdamW, 8-bit AdamW and LOMO.

    .venv/bin/python benchmarks/optimizers.py [--rounds 7] [--threads 2]

One large tensor as in full tuning, and many small ones as in LoRA. A step is the gradient of a sum
of products, which is the same for all three, and the update. The three take turns.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from bitsandbytes.optim import AdamW8bit
from torch import nn

from engine.optimizers import Lomo, adamw, backward, clip_gradients
from engine.plan import Schedule

SHAPES = {"one of 2048 x 2048": [(2048, 2048)], "128 of 8 x 512": [(8, 512)] * 128}
SCHEDULE = Schedule(learning_rate=1e-3)


def adamw_8bit(learned: Mapping[str, nn.Parameter], schedule: Schedule) -> torch.optim.Optimizer:
    """Moments in 8 bits, Dettmers et al. 2021, arXiv 2110.02861; small tensors as well."""
    return AdamW8bit(list(learned.values()), lr=SCHEDULE.learning_rate, min_8bit_size=0)


NEW = {"fused AdamW": adamw, "8-bit AdamW": adamw_8bit, "LOMO": Lomo}


def stepper(name: str, shapes: list[tuple[int, int]]) -> tuple[Callable[[], float], Callable]:
    """Make a step that says how long it took, and a count of bytes kept for each value."""
    torch.manual_seed(0)
    learned = {str(at): nn.Parameter(torch.randn(shape)) for at, shape in enumerate(shapes)}
    factors = [torch.randn(shape) for shape in shapes]
    optimizer = NEW[name](learned, SCHEDULE)
    optimizer.param_groups[0]["lr"] = SCHEDULE.learning_rate

    def step() -> float:
        products = zip(learned.values(), factors, strict=True)
        loss = torch.stack([(value * factor).sum() for value, factor in products]).sum()
        before = time.perf_counter()
        backward(loss, optimizer, 1.0)
        clip_gradients(optimizer, SCHEDULE.max_gradient_norm)
        optimizer.step()
        seconds = time.perf_counter() - before
        optimizer.zero_grad()
        return seconds

    def bytes_per_value() -> float:
        kept = sum(
            value.nbytes
            for state in optimizer.state.values()
            for value in state.values()
            if isinstance(value, torch.Tensor)
        )
        return kept / sum(value.numel() for value in learned.values())

    return step, bytes_per_value


def main() -> None:
    """Measure and print one row for each optimizer and shape."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print("| tensors | optimizer | milliseconds a step | bytes kept a value |\n|---|---|---|---|")
    for title, shapes in SHAPES.items():
        steppers = {name: stepper(name, shapes) for name in NEW}
        seconds: dict[str, list[float]] = {name: [] for name in NEW}
        for number in range(options.rounds + 2):
            for name, (step, _) in steppers.items():
                took = step()
                if number >= 2:  # the first ones make the moments
                    seconds[name].append(took)
        for name, (_, bytes_per_value) in steppers.items():
            middle = 1000 * statistics.median(seconds[name])
            print(f"| {title} | {name} | {middle:.1f} | {bytes_per_value():.2f} |")


if __name__ == "__main__":
    main()
