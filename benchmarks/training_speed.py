"""LoRA steps on the starter: our loop beside a plain loop over `peft`, and beside the limit.

Same base, same tickets, same batches, same rank, same optimizer, in one run; the two take turns.
The plain loop is what a careful person writes first: right padding, all logits, the library's loss.

    python benchmarks/training_speed.py [--steps 20] [--rounds 3] [--batch-size 16]
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from studio.settings import prepare_environment

prepare_environment()

import torch
from peft import LoraConfig, get_peft_model

from data_prep.prepare import prepare
from data_prep.recipe import propose_recipe
from data_prep.upload import load_upload, read_upload
from engine.base_model import load_base, locate_base
from engine.batches import collate, epoch_batches
from engine.encode import Encoded, encode_all
from engine.language_model import LanguageModel
from engine.loss import loss_sum
from engine.method import attach_method, parse_options, trainable
from engine.methods import get_method
from engine.planning.hardware import measure_hardware, prepare_process
from templates.dataset import read_split

TICKETS = Path(__file__).parents[1] / "data_prep" / "samples" / "tickets.csv"
RATE = 1e-3


def training_items(language_model: LanguageModel, folder: Path) -> list[Encoded]:
    """Prepare the tickets and encode the training split."""
    read_upload(TICKETS, folder / "up-1")
    recipe = propose_recipe(load_upload(folder / "up-1"))
    dataset = prepare(folder / "up-1", recipe, folder)
    examples = read_split(folder / dataset.id, "train")
    return encode_all(
        language_model, examples, dataset.template, max_length_tokens=256, too_long="drop"
    )[0]


def our_model() -> tuple[LanguageModel, torch.optim.Optimizer]:
    """The starter with our LoRA."""
    spec = get_method("lora")
    base = load_base(locate_base("starter"), "fp32")
    tuned = attach_method(base, spec, parse_options(spec, {"rank": 8}), seed=0)
    tuned.model.train()
    return tuned, torch.optim.AdamW(list(trainable(tuned.model).values()), lr=RATE, fused=True)


def their_model() -> tuple[Any, torch.optim.Optimizer]:
    """The starter with peft's LoRA."""
    base = load_base(locate_base("starter"), "fp32").model
    config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(base, config).train()
    learned = [value for value in model.parameters() if value.requires_grad]
    return model, torch.optim.AdamW(learned, lr=RATE, fused=True)


def our_step(tuned: LanguageModel, optimizer: torch.optim.Optimizer, items: list[Encoded]) -> float:
    """One step of our trainer."""
    batch = collate(items, tuned)
    loss = loss_sum(tuned, batch) / batch.num_supervised
    loss.backward()
    torch.nn.utils.clip_grad_norm_(list(trainable(tuned.model).values()), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return float(loss.detach())


def their_step(model: Any, optimizer: torch.optim.Optimizer, items: list[Encoded]) -> float:
    """One step of the plain loop."""
    width = max(len(item.ids) for item in items)
    ids = [[*item.ids, *[0] * (width - len(item.ids))] for item in items]
    mask = [[1] * len(item.ids) + [0] * (width - len(item.ids)) for item in items]
    labels = [
        [id_ if seen else -100 for id_, seen in zip(item.ids, item.supervised, strict=True)]
        + [-100] * (width - len(item.ids))
        for item in items
    ]
    output = model(
        input_ids=torch.tensor(ids),
        attention_mask=torch.tensor(mask),
        labels=torch.tensor(labels),
        use_cache=False,
    )
    output.loss.backward()
    torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return float(output.loss.detach())


def main() -> None:
    """Measure and print medians and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=16)
    options = parser.parse_args()
    prepare_process()
    ours, theirs = our_model(), their_model()
    with tempfile.TemporaryDirectory() as folder:
        items = training_items(ours[0], Path(folder))
    lengths = [len(item.ids) for item in items]
    orders = epoch_batches(lengths, options.batch_size, seed=0, epoch=0)[: options.steps]
    batches = [[items[number] for number in order] for order in orders]
    num_tokens = sum(len(item.ids) for batch in batches for item in batch)
    rates: dict[str, list[float]] = {"ours": [], "plain peft loop": []}
    for round_ in range(options.rounds + 1):  # the first round warms up
        for name, step, pair in (
            ("ours", our_step, ours),
            ("plain peft loop", their_step, theirs),
        ):
            before = time.process_time()
            for batch in batches:
                step(*pair, batch)  # type: ignore[operator]
            if round_:
                rates[name].append(num_tokens / (time.process_time() - before))
    parameters = sum(value.numel() for value in ours[0].model.parameters())
    hardware = measure_hardware()
    # Frozen linear layers: 2N forward and 2N for the gradient that passes through.
    ideal = hardware.fp32_flops_per_second / hardware.num_cores / (4 * parameters)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, values in rates.items():
        spread = f"{min(values):.0f} to {max(values):.0f}"
        print(f"{name:18s} {medians[name]:8.0f} real tokens per processor second ({spread})")
    print(f"ratio              {medians['ours'] / medians['plain peft loop']:8.2f}")
    print(f"share of limit     {medians['ours'] / ideal:8.2f} of {ideal:.0f} tokens per second")
    print(json.dumps({"median": medians, "tokens": num_tokens}))


if __name__ == "__main__":
    main()
