"""Write docs/performance.md from the recorded lines, and from nothing else.

python -m benchmarks.report
"""

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.account import BETWEEN, PRODUCTS
from benchmarks.records import MEASURED, ROOT, Record, product_digest, read_records
from benchmarks.results import (
    FIRST_LOSS_RATIO,
    LAST_LOSS_NATS,
    LAST_LOSS_OF_DROP,
    Result,
    fastest_peer,
    results_of,
)
from benchmarks.turns import MOST_FOREIGN_CORES, OURS
from benchmarks.workload import ALPHA, MODELS, NUM_NEW_TOKENS, NUM_PROMPTS, RANK, Case

PAGE = ROOT / "docs" / "performance.md"
TRIED = ROOT / "benchmarks" / "tried.md"
_TITLES = {"lora": "LoRA", "prompt_tuning": "prompt", "full": "full", "qlora": "QLoRA"}
_SETTINGS = {
    "ours": "given our type, threads and allocator",
    "own": "out of the box",
}
_MOST_MEMORY_RATIO, _LEAST_SHARE_OF_PEAK = 0.6, 0.4
_LEAST_LINEARITY, _MOST_GROWTH = 0.9, 1.2
_SMALL_CALL_MICROSECONDS = 20
_HOW = f"""
Every contestant is a process of its own. All of a case are in memory at once and take turns, so
that each sees the same machine; a turn of training ends with a whole step after at least
{Case.turn_seconds:g} seconds. A turn beside which other programs had more than
{MOST_FOREIGN_CORES:g} cores is taken again, up to three times. Numbers are medians over turns, with
the lowest and highest in brackets. Tokens are those of the text: padding and soft prompts are not
counted, for anybody. Memory is the most that a process ever held, libraries included.

The rows are the same for all: 2,000 of a median of 60 + 20 tokens; batches of 8; random weights;
AdamW at a constant rate; LoRA of rank {RANK} and alpha {ALPHA} on queries and values, a soft prompt
of 20 tokens. Peers draw and pad as they do by themselves. `trl` runs without gradient
checkpointing, packed or padding-free where the method allows it, as was faster with LoRA of the
same model. The loss on held-out rows is computed by the same code for all, before the first step
and after {Case.warm_steps}; where the first differs by more than {FIRST_LOSS_RATIO:.1%}, or the
last by more than {LAST_LOSS_OF_DROP:.0%} of what it fell by and {LAST_LOSS_NATS:g} nats, the row
says so. QLoRA computes in bf16 for us and for peers that are given our type. The series over data
reads its whole set once on a very small model, from loading the base to the last step: one turn.
Where the time goes counts four bytes a value, each input read and as much as the largest written.

Useful work is products alone: 2N a token forward and 2N backward, 2N more where all weights learn,
causal attention, and the head only where a supervised token is predicted. The peak is that of the
machine's faster type, measured between the turns; "at the whole peak" says how many times as fast
as that peer anything could be that does the useful products at this peak, and nothing else. Where
the time goes is set beside the peak of the type that is computed in. Speeds beside targets are
cut, not rounded.
"""


@dataclass(frozen=True)
class Target:
    """Something promised.

    Attributes:
        words: what.
        wanted: how much, in words.
        find: gives what was found in words and whether it is enough; None where not measured.
    """

    words: str
    wanted: str
    find: Callable[[Sequence[Result]], tuple[str, bool] | None]


def page(records: Sequence[Record]) -> str:
    """Build the page.

    Args:
        records: of any machines.

    Returns:
        Markdown.
    """
    parts = ["# Performance", "Written by `python -m benchmarks.report`; `make bench` measures."]
    machines = {str(record.machine): record.machine for record in records}
    for name, machine in machines.items():
        own = [record for record in records if str(record.machine) == name]
        results = results_of(own)
        parts += [
            f"## {machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB",
            _about(machine, own, results),
            *_section("Targets", _targets(results)),
            *_section("Training", _training(results)),
            *_section("What it costs with more", _scaling(results)),
            *_section("Answers", _answers(results)),
            *_section("Where the time of a step goes", _accounts(results, "train")),
            *_section("Where the time of answers goes", _answer_accounts(results)),
            *_section("Everybody", _everybody(results)),
        ]
    if TRIED.exists():
        parts += ["## What was tried", TRIED.read_text(encoding="utf-8").strip()]
    parts += ["## How it is measured", _HOW.strip()]
    return "\n\n".join(parts) + "\n"


def _section(title: str, content: str) -> list[str]:
    return [f"### {title}", content] if content else []


def _about(machine: dict[str, object], records: Sequence[Record], results: Sequence[Result]) -> str:
    lines = [
        f"{machine['system']}, Python {machine['python']}, torch {machine['torch']}, "
        f"transformers {machine['transformers']}."
    ]
    if results:
        peak = results[-1].peak
        lines.append(
            f"Matrix peak {peak['fp32_gflops']:.0f} GFLOP/s in fp32 and {peak['bf16_gflops']:.0f} "
            f"in bf16; copies {peak['copy_gigabytes']:.0f} GB/s."
        )
    for model in MODELS:
        rates = {
            result.name.removeprefix("ours "): result.rate
            for result in results
            if result.case.series == "precision" and result.case.model == model and not result.error
        }
        if rates:
            said = ", ".join(f"{rate:,.0f} tokens/s in {name}" for name, rate in rates.items())
            best = max(rates, key=lambda name: rates[name])
            lines.append(f"{model}: our LoRA does {said}, so {best} is measured.")
    loud = [result for result in results if not result.error and not result.is_quiet]
    if loud:
        cores = max(result.foreign_cores for result in loud)
        lines.append(
            f"**The machine was not quiet**: in {len(loud)} of {len(results)} results other "
            f"programs used up to {cores:.1f} cores. Compare by processor time, or measure again."
        )
    if any(result.case.num_turns < 5 and result.case.series == "main" for result in results):
        lines.append("Some numbers are of a quick look: fewer and shorter turns.")
    newest = {record.opened: record.product for record in records}
    old = {case for case, product in newest.items() if product != product_digest(case.method)}
    if old:
        names = sorted({f"{case.method or case.task} ({case.model})" for case in old})
        said = "all of it" if len(old) == len(newest) else ", ".join(names)
        lines.append(f"Measured before the engine's code changed for the last time: {said}.")
    return "\n".join(lines)


def _targets(results: Sequence[Result]) -> str:
    rows = []
    for target in TARGETS:
        found = target.find(results)
        if found:
            rows.append((target.words, target.wanted, found[0], "yes" if found[1] else "**no**"))
    return _table(("target", "wanted", "found", "reached"), rows) if rows else ""


def _faster(model: str, method: str, settings: str, least: float) -> Target:
    def find(results: Sequence[Result]) -> tuple[str, bool] | None:
        for result in _main(results, "train", settings):
            if (result.case.model, result.case.method) == (model, method):
                peer = fastest_peer(results, result.case)
                if peer:
                    most = peer.times_slower / result.share_of_peak
                    differs = "" if peer.losses_agree else ", whose loss differs"
                    words = f"{_cut(peer.times_slower)}× `{peer.name}`{differs}"
                    words += f"; {most:.1f}× at the whole peak"
                    return words, peer.times_slower >= least
        return None

    words = f"{_TITLES[method]}, {model}, peers {_SETTINGS[settings]}"
    return Target(words, f"{least:g}× as fast", find)


def _cut(ratio: float) -> str:
    """Two digits, never rounded up: 1.998 must not read as 2 where 2 was wanted."""
    return f"{math.floor(100 * ratio) / 100:.2f}"


def _find_memory(results: Sequence[Result]) -> tuple[str, bool] | None:
    peers = [
        peer
        for result in _main(results, "train", "ours")
        if (peer := fastest_peer(results, result.case))
    ]
    if not peers:
        return None
    worst = max(peers, key=lambda peer: peer.memory_ratio)
    words = f"at most {worst.memory_ratio:.2f}× ({_TITLES[worst.case.method]}, {worst.case.model})"
    return words, worst.memory_ratio <= _MOST_MEMORY_RATIO


def _find_share(results: Sequence[Result]) -> tuple[str, bool] | None:
    for result in _main(results, "train", "ours"):
        if (result.case.model, result.case.method) == ("gpt2-124m", "lora"):
            return f"{result.share_of_peak:.0%}", result.share_of_peak >= _LEAST_SHARE_OF_PEAK
    return None


def _quicker_answers(precision: str, least: float) -> Target:
    def find(results: Sequence[Result]) -> tuple[str, bool] | None:
        peers = [
            peer
            for result in _main(results, "generate", "ours")
            if result.case.precision == precision and (peer := fastest_peer(results, result.case))
        ]
        if not peers:
            return None
        worst = min(peers, key=lambda peer: peer.times_slower)
        words = f"at least {_cut(worst.times_slower)}× `{worst.name}` ({worst.case.model})"
        return words, worst.times_slower >= least

    words = f"greedy answers in {precision} beside `generate` at its best batch size"
    return Target(words, f"{least:g}× as fast", find)


def _find_scores(results: Sequence[Result]) -> tuple[str, bool] | None:
    loops = [
        result
        for result in results
        if (result.case.task, result.case.settings) == ("score", "ours")
        and result.name == "plain loop"
        and not result.error
    ]
    if not loops:
        return None
    worst = min(loops, key=lambda loop: loop.times_slower)
    words = f"at least {_cut(worst.times_slower)}× ({worst.case.model}, {worst.case.precision})"
    return words, worst.times_slower >= 8


def _find_linear(results: Sequence[Result]) -> tuple[str, bool] | None:
    found = [result for result in _ours(results) if result.case.series == "data"]
    found.sort(key=lambda result: result.case.data_tokens)
    # The smallest set pays for loading the model and little else.
    found = [result for result in found if result.case.data_tokens >= 100_000]
    if len(found) < 2:
        return None
    linear = found[-1].rate / found[0].rate
    growth = found[-1].peak_bytes / found[0].peak_bytes
    words = (
        f"{linear:.2f}× the speed and {growth:.2f}× the memory at {found[-1].case.data_tokens:,} "
        f"tokens as at {found[0].case.data_tokens:,}"
    )
    return words, linear >= _LEAST_LINEARITY and growth <= _MOST_GROWTH


TARGETS = (
    *(
        _faster(model, method, settings, least)
        for model, method, given, own in (
            ("llama-15m", "lora", 5, 8),
            ("llama-60m", "lora", 4, 6),
            ("gpt2-124m", "lora", 3.5, 5),
            *((model, "full", 3, 5) for model in MODELS if model != "tiny"),
            *((model, "prompt_tuning", 4, 6) for model in MODELS if model != "tiny"),
        )
        for settings, least in (("ours", given), ("own", own))
    ),
    Target("peak memory of training", f"at most {_MOST_MEMORY_RATIO}×", _find_memory),
    Target(
        "LoRA of gpt2-124m, share of the matrix peak", f"{_LEAST_SHARE_OF_PEAK:.0%}", _find_share
    ),
    _quicker_answers("fp32", 2),
    _quicker_answers("bf16", 1.5),
    Target("scores behind eight solved items", "8× the plain loop", _find_scores),
    Target("cost linear in tokens, memory flat", "0.9× the speed, 1.2× the memory", _find_linear),
)


def _training(results: Sequence[Result]) -> str:
    tables = []
    for settings, words in _SETTINGS.items():
        rows = []
        for result in _main(results, "train", settings):
            peer = fastest_peer(results, result.case)
            row = [
                result.case.model, _TITLES[result.case.method], result.case.precision,
                _spread(result), f"{result.peak_bytes / 1e6:,.0f}", f"{result.share_of_peak:.0%}",
            ]  # fmt: skip
            if peer:
                agree = "agree" if peer.losses_agree else "**differ**"
                row += [
                    peer.name, _spread(peer), f"{peer.peak_bytes / 1e6:,.0f}",
                    f"**{peer.times_slower:.1f}×**", f"{peer.memory_ratio:.2f}×", agree,
                ]  # fmt: skip
            rows.append(row + ["-"] * (12 - len(row)))
        if rows:
            header = (
                "model", "method", "held in", "our tokens/s", "MB", "of the peak", "best peer",
                "tokens/s", "MB", "as fast", "memory", "losses",
            )  # fmt: skip
            tables.append(f"Peers {words}:\n\n{_table(header, rows)}")
    return "\n\n".join(tables)


def _scaling(results: Sequence[Result]) -> str:
    tables = []
    for series, title, field in (
        ("length", "tokens a row", "row_tokens"),
        ("batch", "rows a step", "batch_size"),
        ("data", "tokens in the data", "data_tokens"),
    ):
        found = [result for result in _ours(results) if result.case.series == series]
        found.sort(key=lambda result: getattr(result.case, field))
        rows = []
        for result in found:
            peer = fastest_peer(results, result.case)
            times = f"{peer.times_slower:.1f}×" if peer else "-"
            memory = f"{peer.peak_bytes / 1e6:,.0f}" if peer else "-"
            share = "-" if series == "data" else f"{result.share_of_peak:.0%}"
            own_memory = f"{result.peak_bytes / 1e6:,.0f}"
            value = f"{getattr(result.case, field):,}"
            rows.append((value, _spread(result), own_memory, share, times, memory))
        if rows:
            case = found[0].case
            words = f"LoRA of {case.model} in {case.precision}"
            header = (title, "our tokens/s", "MB", "of the peak", "as fast as `peft`", "its MB")
            tables.append(f"{words}:\n\n{_table(header, rows)}")
    return "\n\n".join(tables)


def _answers(results: Sequence[Result]) -> str:
    tables = []
    for task, words, unit in (
        (
            "generate",
            f"Greedy answers of {NUM_NEW_TOKENS} tokens to {NUM_PROMPTS} prompts",
            "tokens",
        ),
        ("score", "The likeliest label behind eight solved items", "inputs"),
    ):
        rows = [
            (
                result.case.model, _SETTINGS[result.case.settings], result.case.precision,
                result.name, result.error or _spread(result),
                "-" if result.error else f"{result.peak_bytes / 1e6:,.0f}",
                "-" if result.error or result.name == OURS else f"{result.times_slower:.1f}×",
                f"{result.told.get('warm', {}).get('agreement', 0):.1%}",
            )
            for result in results
            if result.case.task == task
        ]  # fmt: skip
        if rows:
            header = (
                "model", "peers", "ours held in", "who", f"{unit}/s", "MB", "ours is as fast",
                "same answers",
            )  # fmt: skip
            tables.append(f"{words}:\n\n{_table(header, rows)}")
    return "\n\n".join(tables)


def _accounts(results: Sequence[Result], task: str) -> str:
    tables = [
        (_account_of_a_step if task == "train" else _account_of_answers)(result)
        for result in _main(results, task, "ours")
        if "account" in result.told.get("account", {})
    ]
    return "\n\n".join(tables)


def _answer_accounts(results: Sequence[Result]) -> str:
    tables = [_accounts(results, task) for task in ("generate", "score")]
    return "\n\n".join(table for table in tables if table)


def _account_of_a_step(result: Result) -> str:
    """Parts of a profiled turn, as shares of what a step takes when nobody watches."""
    turns, told, case = result.told["turns"], result.told["account"], result.case
    tokens_a_step = sum(t["tokens"] for t in turns) / sum(t["steps"] for t in turns)
    step_ms = 1e3 * tokens_a_step / result.rate
    computed_ms = _computed_ms(result) * tokens_a_step / told["tokens"]
    useful_flops = tokens_a_step * case.useful_flops_per_token()
    useful_ms = 1e3 * useful_flops / (result.own_peak_gflops * 1e9)
    words = (
        f"{_TITLES[case.method]} of {case.model} in {case.precision}: a step of "
        f"{tokens_a_step:,.0f} tokens takes {step_ms:.1f} ms. Its useful products would take "
        f"{useful_ms:.1f} ms at the peak, all that are computed "
        f"{computed_ms:.1f} ms."
    )
    return f"{words}\n\n{_parts(result, step_ms, told['steps'])}"


def _account_of_answers(result: Result) -> str:
    """Parts of one profiled turn, as shares of what it takes when nobody watches."""
    case = result.case
    turn_ms = 1e3 * statistics.median(turn["seconds"] for turn in result.told["turns"])
    what = "greedy answers" if case.task == "generate" else "scores of labels"
    words = (
        f"{case.model} in {case.precision}: {what} to all prompts take {turn_ms:,.0f} ms. The "
        f"products that are computed would take {_computed_ms(result):,.0f} ms at the peak."
    )
    return f"{words}\n\n{_parts(result, turn_ms, 1)}"


def _computed_ms(result: Result) -> float:
    """What the products of the profiled turn would take at the peak."""
    parts = result.told["account"]["account"]["parts"].values()
    return 1e3 * sum(part["flops"] for part in parts) / (result.own_peak_gflops * 1e9)


def _parts(result: Result, whole_ms: float, num_times: int) -> str:
    account = result.told["account"]["account"]
    rows = []
    for name, part in sorted(account["parts"].items(), key=lambda item: -item[1]["seconds"]):
        ratio = part["seconds"] / account["seconds"]
        rows.append((name, f"{whole_ms * ratio:.2f}", f"{ratio:.0%}",
                     f"{part['calls'] / num_times:,.0f}", _bound(name, part, result)))  # fmt: skip
    return _table(("part", "ms", "share", "calls", "what bounds it"), rows)


def _bound(name: str, part: dict[str, float], result: Result) -> str:
    if name == BETWEEN or not part["calls"]:
        return "Python, autograd and dispatch"
    if name in PRODUCTS and part["flops"]:
        gflops = part["flops"] / part["seconds"] / 1e9
        share = gflops / result.own_peak_gflops
        return f"arithmetic: {gflops:.0f} GFLOP/s, {share:.0%} of the peak"
    microseconds = 1e6 * part["seconds"] / part["calls"]
    if microseconds < _SMALL_CALL_MICROSECONDS:
        return f"small calls: {microseconds:.0f} µs each"
    rate = part["bytes"] / part["seconds"] / 1e9
    ratio = rate / result.peak["copy_gigabytes"]
    if ratio > 1:
        return f"cache: about {rate:.0f} GB/s, {ratio:.1f} times what a copy in memory does"
    return f"memory: about {rate:.0f} GB/s, {ratio:.0%} of a copy's"


def _everybody(results: Sequence[Result]) -> str:
    header = (
        "model", "method", "peers", "who", "tokens/s", "ours is as fast", "by processor time", "MB",
        "s to begin", "loss", "others' cores",
    )  # fmt: skip
    rows = []
    for result in results:
        case = result.case
        if (case.task, case.series) != ("train", "main"):
            continue
        first = (case.model, _TITLES[case.method], _SETTINGS[case.settings], result.name)
        if result.error:
            rows.append((*first, f"could not: {result.error}", *["-"] * 6))
            continue
        warm = result.told["warm"]
        mark = "" if result.losses_agree else " (differs)"
        rows.append(
            (
                *first, _spread(result), f"{result.times_slower:.1f}×",
                f"{result.times_slower_by_processor:.1f}×", f"{result.peak_bytes / 1e6:,.0f}",
                f"{result.told['ready']['seconds']:.0f}",
                f"{warm['first_loss']:.3f} → {warm['last_loss']:.3f}{mark}",
                f"{result.foreign_cores:.1f}",
            )
        )  # fmt: skip
    return _table(header, rows) if rows else ""


def _ours(results: Iterable[Result]) -> list[Result]:
    return [result for result in results if result.name == OURS and not result.error]


def _main(results: Sequence[Result], task: str, settings: str) -> list[Result]:
    return [
        result
        for result in _ours(results)
        if (result.case.task, result.case.series, result.case.settings) == (task, "main", settings)
    ]


def _spread(result: Result) -> str:
    if len(result.rates) == 1:
        return f"{result.rate:,.0f}"
    return f"{result.rate:,.0f} ({min(result.rates):,.0f}–{max(result.rates):,.0f})"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    cells = ([cell.replace("|", "/") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def main() -> None:
    """Read every machine's lines, and write the page."""
    paths: list[Path] = sorted(MEASURED.glob("*.jsonl"))
    records = [record for path in paths for record in read_records(path)]
    if not records:
        raise SystemExit("Nothing is measured yet: run make bench")
    PAGE.write_text(page(records), encoding="utf-8")
    print(f"{len(records)} heats in {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
