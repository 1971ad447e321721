"""Speed on this machine: loading, a LoRA step, greedy decoding."""

import os
import platform
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import torch

from engine.answering.generation import generate
from engine.events import Stepped
from starter.measuring.bench import Bench, Values
from starter.measuring.texts import OPENINGS
from starter.measuring.tuning import tune, tuning_rows
from templates.files import sha256_of_bytes

SPEED_STEPS = 40
DECODED_TOKENS = 128
# The library imports an architecture's code at the first use; a skeleton asks for it, and for no
# weights, so that opening the model can be told apart.
_LOADING = """
import sys, time
from engine.base_model import load_base, load_skeleton, locate_base
folder = locate_base(sys.argv[1])
begun = time.perf_counter()
load_skeleton(folder)
imported = time.perf_counter()
load_base(folder, "fp32")
done = time.perf_counter()
print(done - imported, done - begun)
"""


def measure_speed(bench: Bench) -> None:
    """Time loading, a LoRA step and greedy decoding on this machine.

    Args:
        bench: what to measure, and where to.
    """
    cells = bench.cells("speed")
    machine = sha256_of_bytes(f"{platform.node()} {bench.hardware.name}".encode())[:12]
    cells.measure("load", machine, partial(load_values, bench))
    cells.measure("lora", machine, partial(lora_values, bench))
    for batch_size in (1, 16):
        cells.measure(f"decode/{batch_size}", machine, partial(decode_values, bench, batch_size))


def load_values(bench: Bench) -> Values:
    """Time loading in fresh processes.

    Args:
        bench: the model.

    Returns:
        Medians: load_seconds for `load_base` alone, first_load_seconds with the code that the
        library imports only when a model is opened, process_seconds with interpreter and imports.
    """
    loads: list[tuple[float, ...]] = []
    for _ in range(1 if bench.quick else 3):
        begun = time.perf_counter()
        done = subprocess.run(  # noqa: S603 - our own text
            [sys.executable, "-c", _LOADING, str(bench.model.resolve())],
            cwd=Path(__file__).parents[2],
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        whole = time.perf_counter() - begun
        loads.append((*map(float, done.stdout.split()[-2:]), whole))
    names = ("load_seconds", "first_load_seconds", "process_seconds")
    medians = (statistics.median(column) for column in zip(*loads, strict=True))
    return {**dict(zip(names, medians, strict=True)), **_machine(bench)}


def lora_values(bench: Bench) -> Values:
    """Time LoRA steps on film reviews (sst2) at the product's defaults.

    Args:
        bench: the model.

    Returns:
        tokens_per_second and step_seconds, medians over steps.
    """
    task = bench.real_task("sst2")
    training, validation = tuning_rows(task, 500)
    steps = 4 if bench.quick else SPEED_STEPS
    events, _ = tune(bench, task, training, validation, max_steps=steps)
    stepped = [event for event in events if isinstance(event, Stepped)]
    return {
        "tokens_per_second": statistics.median(e.num_tokens / e.seconds for e in stepped),
        "step_seconds": statistics.median(e.seconds for e in stepped),
        "steps": len(stepped),
        **_machine(bench),
    }


def decode_values(bench: Bench, batch_size: int) -> Values:
    """Time the product's greedy decoding, reading of the prompts included.

    Args:
        bench: the model.
        batch_size: prompts at once.

    Returns:
        tokens_per_second over all rows; tokens counted at the model, so early ends do not flatter.
    """
    language_model = bench.language_model
    prompts = [
        language_model.encode(f"{number}. {OPENINGS[number % len(OPENINGS)]}")
        for number in range(1, batch_size + 1)
    ]
    rows: list[int] = []
    hook = language_model.model.register_forward_hook(
        lambda model, inputs, output: rows.append(output.logits.shape[:2].numel())
    )
    try:
        begun = time.perf_counter()
        generate(
            language_model,
            [int(language_model.tokenizer.eos_token_id)],
            prompts,
            stop="",
            max_new_tokens=16 if bench.quick else DECODED_TOKENS,
            batch_size=batch_size,
        )
        seconds = time.perf_counter() - begun
    finally:
        hook.remove()
    num_tokens = sum(rows[2:])  # the first passes try the model, and read what all prompts share
    return {
        "tokens_per_second": num_tokens / seconds,
        "tokens": num_tokens,
        **_machine(bench),
    }


def _machine(bench: Bench) -> Values:
    return {"processor": bench.hardware.name, "threads": torch.get_num_threads()}
