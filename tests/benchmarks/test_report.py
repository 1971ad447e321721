"""The page is made of recorded lines alone, and says what they do not hold."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import records
from benchmarks.records import Record, add_record, finished, product_digest, read_records
from benchmarks.report import page
from benchmarks.results import results_of
from benchmarks.turns import OURS, PEAK
from benchmarks.workload import Case

MACHINE = {
    "processor": "A processor", "cores": 2, "memory_gib": 24, "system": "Linux",
    "python": "3.11", "torch": "2", "transformers": "5",
}  # fmt: skip
TRAINING = Case("train", "main", "llama-15m", "lora")


def told(rate: float, *, last_loss: float = 10.3, foreign_cores: float = 0.0) -> dict[str, Any]:
    turn = {
        "seconds": 2.0, "tokens": rate * 2, "steps": 4, "processor_seconds": 4.0,
        "peak_bytes": 10**9, "foreign_cores": foreign_cores,
    }  # fmt: skip
    turns = [turn | {"tokens": rate * 2 * share} for share in (0.9, 1.0, 1.1)]
    warm = {"first_loss": 10.4, "last_loss": last_loss}
    return {"turns": turns, "ready": {"seconds": 3.0}, "warm": warm}


def record(case: Case, **contestants: dict[str, Any]) -> Record:
    speeds = {"fp32_gflops": 250.0, "bf16_gflops": 140.0, "copy_gigabytes": 20.0}
    machine = {PEAK: {"turns": [speeds | {"seconds": 1.0}]}}
    return Record(vars(case), MACHINE, product_digest(case.method), {**contestants, **machine})


def with_account() -> dict[str, Any]:
    parts = {
        "linear layers": {"seconds": 1.5, "calls": 80, "flops": 1.5e11, "bytes": 1e9},
        "element by element": {"seconds": 0.5, "calls": 10**6, "flops": 0.0, "bytes": 1e9},
    }
    account = {"seconds": 2.0, "parts": parts}
    return told(5000) | {
        "account": {"seconds": 2.0, "tokens": 8000, "steps": 4, "account": account}
    }


def test_the_page_names_machine_targets_opponents_and_where_time_goes() -> None:
    given = record(TRAINING, ours=with_account(), peft=told(800), **{"trl packed": told(1000)})
    text = page([given])
    assert "## A processor, 2 cores, 24 GiB" in text
    found = "| LoRA, llama-15m, peers given our type, threads and allocator | 5× as fast "
    [target] = [line for line in text.splitlines() if line.startswith(found)]
    assert "| 5.00× `trl packed`; " in target and target.endswith("at the whole peak | yes |")
    assert "LoRA of llama-15m in fp32: a step of 2,500 tokens takes 500.0 ms" in text
    assert "arithmetic: 100 GFLOP/s, 40% of the peak" in text
    assert "not quiet" not in text


def test_a_missed_target_a_loud_machine_and_another_loss_are_said() -> None:
    case = replace(TRAINING, settings="own")
    lazy = told(1100, last_loss=10.4)
    text = page([record(case, ours=told(5000, foreign_cores=0.5), peft=told(1000), lazy=lazy)])
    [target] = [line for line in text.splitlines() if "| 8× as fast |" in line]
    assert "| 4.54× `lazy`, whose loss differs; " in target and target.endswith("| **no** |")
    assert "**The machine was not quiet**" in text
    assert "10.400 → 10.400 (differs)" in text


def test_a_target_is_not_reached_by_rounding() -> None:
    text = page([record(TRAINING, ours=told(4999), peft=told(1000))])
    assert "| 4.99× `peft`; 7.2× at the whole peak | **no** |" in text


def test_who_could_not_is_listed_and_no_opponent() -> None:
    gone = {"turns": [], "error": "ValueError: no"}
    text = page([record(TRAINING, ours=told(5000), peft=told(1000), trl=gone)])
    assert "could not: ValueError: no" in text
    assert "5.00× `peft`" in text


def test_newer_lines_take_the_place_of_older_ones_but_a_quick_look_never_does() -> None:
    quick = replace(TRAINING, num_turns=3)
    records = [
        record(TRAINING, ours=told(1000)),
        record(TRAINING, ours=told(2000)),
        record(quick, ours=told(3000)),
    ]
    [result] = results_of(records)
    assert result.rate == 2000


def test_what_was_measured_with_earlier_code_is_said() -> None:
    said = "Measured before the engine's code changed for the last time"
    lora = record(TRAINING, ours=told(1000), peft=told(800))
    full = record(replace(TRAINING, method="full"), ours=told(1000), peft=told(800))
    assert said not in page([lora, full])
    assert said not in page([replace(lora, product="earlier"), lora])
    assert f"{said}: lora (llama-15m)." in page([lora, full, replace(lora, product="earlier")])
    assert f"{said}: all of it." in page([replace(lora, product="earlier")])


def test_answers_scores_and_series_have_tables() -> None:
    length = replace(TRAINING, series="length", row_tokens=512)
    data = [replace(TRAINING, series="data", data_tokens=count) for count in (10**5, 10**6)]
    answering = Case("generate", "main", "llama-15m")
    text = page(
        [
            record(length, ours=told(4000), peft=told(1000)),
            *(record(case, ours=told(4000)) for case in data),
            record(answering, ours=with_account(), **{"generate 8": told(300)}),
        ]
    )
    assert "greedy answers to all prompts take 2,000 ms" in text
    assert (
        "| linear layers | 1500.00 | 75% | 80 | arithmetic: 100 GFLOP/s, 40% of the peak |" in text
    )
    assert "| 512 | 4,000 (3,600–4,400) |" in text
    assert "1.00× the speed and 1.00× the memory at 1,000,000 tokens as at 100,000" in text
    assert "at least 16.66× `generate 8` (llama-15m)" in text


def test_products_are_set_beside_the_peak_of_the_type_that_is_computed_in() -> None:
    answering = Case("generate", "main", "llama-15m", precision="bf16")
    text = page([record(answering, ours=with_account())])  # 100 of 140 GFLOP/s; 250 in fp32
    assert "arithmetic: 100 GFLOP/s, 71% of the peak" in text


def test_finished_measurements_are_found_again_also_behind_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    whole = record(TRAINING, ours=told(1000))
    add_record(path, whole)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(vars(whole))[:40])
    assert read_records(path) == [whole]
    add_record(path, whole)
    assert read_records(path) == [whole, whole]
    assert finished(read_records(path), TRAINING) == {OURS, PEAK}
    assert not finished(read_records(path), replace(TRAINING, batch_size=4))


def test_only_code_that_a_case_runs_makes_its_figures_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("engine", "benchmarks"):
        shutil.copytree(records.ROOT / name, tmp_path / name)
    monkeypatch.setattr(records, "ROOT", tmp_path)

    def change(name: str, more: str) -> str:
        with (tmp_path / "engine" / name).open("a", encoding="utf-8") as file:
            file.write(more)
        digest: str = product_digest.__wrapped__("lora")
        return digest

    answering: str = product_digest.__wrapped__("")

    before = change("loss.py", "# a comment\n")
    assert change("methods/new.py", "SPEC = 1\n") == before
    assert change("methods/full.py", "OTHER = 1\n") == before
    assert product_digest.__wrapped__("") == answering
    assert change("answering/slots.py", "OTHER = 1\n") == before
    assert product_digest.__wrapped__("") != answering
    changed = change("methods/lora.py", "OTHER = 1\n")
    assert changed != before
    assert change("loss.py", "OTHER = 1\n") != changed
