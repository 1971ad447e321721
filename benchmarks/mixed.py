"""One mixed batch beside one adapter after the other: the same rows, answers and base.

    python -m benchmarks.mixed [--adapters 2 8] [--methods lora] [--rounds 5]

K adapters on the starter model, rows in turn for each. "mixed" answers all rows together, each
with its adapter; "one by one" exchanges the adapter on the base K times and answers its own rows,
once with the adapter beside the weights, once merged into them. "one adapter" answers all rows
with a single adapter: no mixture can be faster. The contestants take turns. Writes
docs/many_adapters.md.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from benchmarks.records import ROOT, this_machine
from engine.adapter_bank import AdapterBank
from engine.adapter_exchange import AdapterExchange
from engine.adapter_import import ImportedAdapter
from engine.answering.generation import generate, stream
from engine.base_model import load_base, locate_base
from engine.language_model import LanguageModel
from engine.method import attach_method, parse_options, trainable
from engine.methods import get_method
from engine.model_folder import STARTER
from engine.planning.hardware import prepare_process

PAGE = ROOT / "docs" / "many_adapters.md"
OPTIONS: dict[str, dict[str, Any]] = {
    "lora": {"rank": 8}, "ia3": {}, "prompt_tuning": {"num_tokens": 20},
    "prefix": {"num_tokens": 20},
}  # fmt: skip
NUM_PROMPT_TOKENS, NUM_NEW_TOKENS = 48, 32
_PAGE = """# One base, many adapters

Written by `python -m benchmarks.mixed`.

One base in memory can answer every row of a batch with an adapter of its own, in the same forward
passes: LoRA and its variants, (IA)³, soft prompts, prefixes, and rows without any.

```python
from pathlib import Path

from engine.adapter_bank import AdapterBank
from engine.adapter_import import read_adapter
from engine.base_model import load_base, locate_base

folder = locate_base("starter")
adapters = {{name: read_adapter(Path(name), folder) for name in ("billing", "travel")}}
bank = AdapterBank(load_base(folder, "fp32"), adapters)
prompts = [bank.language_model.encode(text) for text in ("Where is my parcel?", "Hello!")]
answers = bank.answers(prompts, ["billing", None], stop="\\n", max_new_tokens=32)
```

Under one name a bank takes several adapters that work together, such as a LoRA and a soft prompt:
`{{"both": (lora, prompt)}}`.

`AdapterExchange` puts one adapter after the other on the base and takes it off bit for bit, beside
the weights or merged into them; `combine_loras` adds weighted LoRAs up to one.

## What a mixed batch gains

{num_rows} rows in turn for each adapter, greedy answers of {num_new_tokens} tokens from the
starter, on {processor}, {num_threads} threads. "One by one" exchanges the adapter and answers its
own rows; "one adapter" answers all rows with the same one: no mixture can be faster. Medians of
{num_rounds} rounds in which the ways took turns; adapters are drawn, not learned, which costs as
much.

{table}
"""


def made_up(base: LanguageModel, method: str, seed: int) -> ImportedAdapter:
    """An adapter whose values are drawn, not learned: it costs as much."""
    spec, options = get_method(method), parse_options(get_method(method), OPTIONS[method])
    exchange = AdapterExchange(base)
    tuned = attach_method(base, spec, options, seed=seed)
    draw = torch.Generator().manual_seed(seed)
    tensors = {
        name: value.detach() + 0.02 * torch.randn(value.shape, generator=draw)
        for name, value in trainable(tuned.model).items()
    }
    exchange.use(None)
    return ImportedAdapter(method, options, tensors, seed=seed)


def contestants(
    base: LanguageModel, method: str, prompts: list[list[int]], num_adapters: int
) -> tuple[dict[str, Callable[[], list[str]]], int]:
    """Make one function for each way of answering all rows, and count the answers' tokens."""
    adapters = {str(at): made_up(base, method, at) for at in range(num_adapters)}
    names = [str(row % num_adapters) for row in range(len(prompts))]
    exchange = AdapterExchange(copy.deepcopy(base))
    bank = AdapterBank(base, adapters)
    asked: dict[str, Any] = {"stop": "", "max_new_tokens": NUM_NEW_TOKENS}

    def one_by_one(merges: bool) -> list[str]:
        answers = [""] * len(prompts)
        for name, adapter in adapters.items():
            tuned = exchange.use(adapter)
            tuned = exchange.merge() if merges else tuned
            rows = [row for row, own in enumerate(names) if own == name]
            before = tuned.virtual_token_ids
            found = generate(tuned, before, [prompts[row] for row in rows], **asked)
            for row, answer in zip(rows, found, strict=True):
                answers[row] = answer
        return answers

    def one_adapter() -> list[str]:
        tuned = exchange.use(adapters["0"])
        return generate(tuned, tuned.virtual_token_ids, prompts, **asked)

    ways: dict[str, Callable[[], list[str]]] = {
        "mixed": lambda: bank.answers(prompts, names, **asked),
        "one by one": lambda: one_by_one(merges=False),
        "one adapter": one_adapter,
    }
    if get_method(method).merge:
        ways["one by one, merged"] = lambda: one_by_one(merges=True)
    numbers = bank.numbers(names, len(prompts))
    num_tokens = sum(1 for _ in stream(bank.language_model, [], prompts, adapters=numbers, **asked))
    return ways, num_tokens


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--adapters", type=int, nargs="*", default=[2, 8])
    parser.add_argument("--methods", nargs="*", default=list(OPTIONS), choices=list(OPTIONS))
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    prepare_process()
    torch.set_num_threads(options.threads)
    base = load_base(locate_base(STARTER), "fp32")
    draw = torch.Generator().manual_seed(0)
    shape = (options.rows, NUM_PROMPT_TOKENS)
    drawn = torch.randint(100, base.vocabulary_size, shape, generator=draw)
    prompts = [row[: NUM_PROMPT_TOKENS - at % 16].tolist() for at, row in enumerate(drawn)]
    lines = [
        "| method | adapters | way | tokens a second | beside one by one | answers equal |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for method in options.methods:
        for num_adapters in options.adapters:
            ways, num_tokens = contestants(copy.deepcopy(base), method, prompts, num_adapters)
            for line in rows_of(ways, num_tokens, options.rounds):
                lines.append(f"| `{method}` | {num_adapters} | {line} |")
                print(lines[-1], flush=True)
    content = _PAGE.format(
        num_rows=options.rows, num_new_tokens=NUM_NEW_TOKENS, num_threads=options.threads,
        num_rounds=options.rounds, table="\n".join(lines), **this_machine(),
    )  # fmt: skip
    PAGE.write_text(content, encoding="utf-8")


def rows_of(
    ways: dict[str, Callable[[], list[str]]], num_tokens: int, num_rounds: int
) -> Iterator[str]:
    """Let the ways take turns, and give the cells of each."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    answers = {way: answer() for way, answer in ways.items()}  # also warms up
    for _ in range(num_rounds):
        for way, answer in ways.items():
            before = time.perf_counter()
            answer()
            seconds[way].append(time.perf_counter() - before)
    usual = statistics.median(seconds["one by one"])
    for way, took in seconds.items():
        middle = statistics.median(took)
        pairs = zip(answers[way], answers["one by one"], strict=True)
        equal = sum(own == other for own, other in pairs)
        same = "-" if way == "one adapter" else f"{equal} of {len(answers[way])}"
        yield f"{way} | {num_tokens / middle:,.0f} | {usual / middle:.2f}× | {same}"


if __name__ == "__main__":
    main()
