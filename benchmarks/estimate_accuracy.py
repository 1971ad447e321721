"""How far the plan page's estimate is from what a run really takes.

    .venv/bin/python benchmarks/estimate_accuracy.py

Random Llama models of two sizes are trained for a few steps by each method, each in a fresh
process; estimated and measured peak memory and seconds stand side by side. The targets: memory
within 25 %, the true time inside the estimated range.

On a machine that others use too, threads wait for each other and no wall time means much. Then
take `--threads 1` and read the processor seconds, which are judged as well.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from engine.base_model import locate_base
from engine.encode import Encoded
from engine.events import Finished
from engine.method import parse_options
from engine.methods import get_method
from engine.plan import BaseChoice, MethodChoice, Schedule, TrainPlan
from engine.planning.cost import estimate, item_length
from engine.planning.hardware import measure_hardware, prepare_process
from engine.runs import tuned_model
from engine.trainer import Training, train
from tests.engine.tiny import tiny_tokenizer

SIZES = {"small": (256, 688, 4), "middle": (512, 1376, 8)}
PRECISIONS = {
    "full": "fp32", "lomo": "fp32", "lora": "fp32", "qlora": "nf4", "prompt_tuning": "fp32",
}  # fmt: skip
VOCABULARY_SIZE = 4096


def save_model(folder: Path, size: str) -> Path:
    """Write a random Llama as an ordinary model folder."""
    width, inner, layers = SIZES[size]
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY_SIZE, hidden_size=width, intermediate_size=inner,
        num_hidden_layers=layers, num_attention_heads=width // 64,
        num_key_value_heads=width // 64, max_position_embeddings=512,
        tie_word_embeddings=True, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def make_items(count: int, longest: int, seed: int) -> list[Encoded]:
    """Draw items whose last few tokens are supervised."""
    draw = random.Random(seed)
    items = []
    for _ in range(count):
        prompt, answer = draw.randint(longest // 4, longest - 12), draw.randint(3, 12)
        ids = tuple(draw.randrange(5, VOCABULARY_SIZE) for _ in range(prompt + answer))
        items.append(Encoded(ids, (False,) * prompt + (True,) * answer))
    return items


def plan_for(folder: Path, method: str, options: argparse.Namespace) -> TrainPlan:
    """Plan one epoch."""
    spec = get_method(method)
    chosen = parse_options(spec, {"start": "random"} if method == "prompt_tuning" else {})
    return TrainPlan(
        base=BaseChoice(id=str(folder), precision=options.precision or PRECISIONS[method]),
        dataset_id="random",
        dataset_sha256="",
        method=MethodChoice(name=method, options=chosen.model_dump()),
        schedule=Schedule(learning_rate=1e-4, epochs=1, batch_size=options.batch),
    )


def estimate_one(plan: TrainPlan, train_items: list[Encoded], held_out: list[Encoded]) -> None:
    """Do what the plan page does; print one JSON line."""
    before = time.perf_counter()
    hardware = measure_hardware()
    cost = estimate(
        plan,
        locate_base(plan.base.id),
        [item_length(item) for item in train_items],
        hardware,
        validation_lengths=[item_length(item) for item in held_out],
    )
    seconds = time.perf_counter() - before
    line = {"cost": cost.model_dump(), "hardware": hardware.model_dump(), "estimated_in": seconds}
    print(json.dumps(line))


def train_one(plan: TrainPlan, train_items: list[Encoded], held_out: list[Encoded]) -> None:
    """Do what the worker does; print one JSON line."""
    prepare_process()
    model = tuned_model(plan, locate_base(plan.base.id))
    spec = get_method(plan.method.name)
    options = parse_options(spec, plan.method.options)
    with tempfile.TemporaryDirectory() as checkpoints:
        training = Training(
            model, train_items, held_out, plan.schedule, plan.limits, 0, Path(checkpoints),
            new_optimizer=spec.new_optimizer(options),
        )  # fmt: skip
        before = time.process_time()
        finished = next(event for event in train(training) if isinstance(event, Finished))
    line = {
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "seconds": finished.seconds,
        "processor_seconds": time.process_time() - before,
        "threads": torch.get_num_threads(),
    }
    print(json.dumps(line))


def report(size: str, method: str, result: dict[str, Any]) -> None:
    """Print one row of the table, and the parts below it."""
    cost, hardware = result["cost"], result["hardware"]
    guess, truth = sum(cost["memory"].values()), result["peak_bytes"]
    low, high, took = cost["low_seconds"], cost["high_seconds"], result["seconds"]
    own, own_high = result["processor_seconds"] / result["threads"], high / hardware["busy_ratio"]
    print(
        f"| {size} | {method} | {guess / 1e6:.0f} | {truth / 1e6:.0f} | {guess / truth - 1:+.0%} "
        f"| {low:.1f}-{high:.1f} | {took:.1f} | {'yes' if low <= took <= high else 'NO'} "
        f"| {low:.1f}-{own_high:.1f} | {own:.1f} | {'yes' if low <= own <= own_high else 'NO'} "
        f"| {hardware['busy_ratio']:.1f} | {result['estimated_in']:.2f} "
        f"| {cost['flops'] / 1e9:.0f} |",
        flush=True,
    )
    parts = {name: round(value / 1e6) for name, value in cost["memory"].items()}
    print("    ", parts, f"{hardware['fp32_flops_per_second'] / 1e9:.0f} GFLOP/s fp32", flush=True)


def main() -> None:
    """Run every size and method, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="*", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--methods", nargs="*", default=list(PRECISIONS), choices=list(PRECISIONS))
    parser.add_argument("--examples", type=int, default=48)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--longest", type=int, default=160, help="tokens of the longest example")
    parser.add_argument("--threads", type=int, default=0, help="0: as torch chooses")
    parser.add_argument("--precision", default="", help="instead of the method's first")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        folder, method, stage = options.one
        if options.threads:
            torch.set_num_threads(options.threads)
        items = make_items(options.examples, options.longest, 0)
        held_out = make_items(options.examples // 4, options.longest, 1)
        work = estimate_one if stage == "estimate" else train_one
        work(plan_for(Path(folder), method, options), items, held_out)
        return
    print(
        "| size | method | MB estimated | MB measured | error | seconds estimated | measured "
        "| inside | processor seconds estimated | measured (a thread) | inside | busy "
        "| s to estimate | GFLOP |\n" + "|---" * 14 + "|"
    )
    with tempfile.TemporaryDirectory() as folder:
        for size in options.sizes:
            model = save_model(Path(folder) / size, size)
            for method in options.methods:
                result: dict[str, Any] = {}
                for stage in ("estimate", "train"):
                    command = [
                        sys.executable, __file__, "--one", str(model), method, stage,
                        "--examples", str(options.examples), "--batch", str(options.batch),
                        "--longest", str(options.longest), "--precision", options.precision,
                        "--threads", str(options.threads),
                    ]  # fmt: skip
                    done = subprocess.run(command, capture_output=True, text=True, check=False)
                    if done.returncode:
                        raise SystemExit(done.stderr)
                    result |= json.loads(done.stdout.splitlines()[-1])
                report(size, method, result)


if __name__ == "__main__":
    main()
