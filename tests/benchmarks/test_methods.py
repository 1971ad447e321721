from typing import Any

from benchmarks.methods import is_done, page

MACHINE = {"processor": "A processor", "cores": 2}
NUMBERS = {
    "score": 80.0, "low": 75.0, "high": 85.0, "base": 50.0, "outcome": "better",
    "trainable_ratio": 0.01, "peak_bytes": 600e6, "train_seconds": 12.0, "size_bytes": 40e3,
    "slower": {"1": 1.2, "32": 1.1},
}  # fmt: skip


def record(task: str, seed: int, **changes: Any) -> dict[str, Any]:
    who = {"method": "lora", "task": task, "seed": seed, "machine": MACHINE, "threads": 2}
    return {**who, **NUMBERS, **changes}


def test_a_method_is_clearly_better_only_with_every_seed() -> None:
    text = page(
        [
            record("sst2", 0, score=10.0),  # measured again below
            record("sst2", 0, score=79.0),
            record("sst2", 1, score=81.0, slower={}),  # answers are timed with one seed
            record("trec", 0),
            record("trec", 1, outcome="cannot tell"),
        ]
    )
    [row] = [line for line in text.splitlines() if line.startswith("| `lora` | 80.0")]
    assert "80.0 (75–85; seeds 79.0–81.0); base 50.0" in row
    assert row.endswith("| - | sst2 |")
    assert "2 seeds that draw rows" in text and "on\nA processor, 2 of 2 cores." in text
    assert "| `lora` | 1.00% | 600 MB | 12 s | 40 kB | 1.20× | 1.10× |" in text


def test_why_most_methods_are_no_better_is_said_from_what_was_measured() -> None:
    no_better = {"outcome": "cannot tell", "score": 52.0}
    words = {"method": "words alone", "task": "sst2", "seed": 0, "machine": MACHINE}
    records = [
        record("sst2", 0, **no_better),
        record("sst2", 0, method="ln", score=51.0),
        record("sst2", 0, method="ia3", **no_better),
        record("trec", 0),
        record("trec", 0, method="ln"),
        {**words, "score": 68.0, "low": 62.0, "high": 73.0},
    ]
    assert not is_done(records, "lora", "sst2", 0), "of other code"
    text = page(records)
    assert (
        "On `sst2` 1 of 3 methods are clearly better than the base; the best mean is 52.0" in text
    )
    assert "`words alone` to score 68.0" in text and "On `trec`" not in text
    assert "fewer than 2 tasks: `ia3`, `lora`." in text
    assert "`prompt_tuning`: On `e2e_nlg`" not in text, "it is not among them"
    text = page([*records, record("sst2", 0, method="prompt_tuning", **no_better)])
    assert "`prompt_tuning`: On `e2e_nlg`" in text
    [row] = [line for line in text.splitlines() if line.startswith("| `words alone`")]
    assert row == "| `words alone` | 68.0 (62–73; seeds 68.0–68.0) | - | - | - |"


def test_what_could_not_be_measured_is_said() -> None:
    failed = {
        "method": "lora", "task": "sst2", "seed": 0, "machine": MACHINE, "threads": 2,
        "error": "no room",
    }  # fmt: skip
    assert "could not: no room" in page([failed])
