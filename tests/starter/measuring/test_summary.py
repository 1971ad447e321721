"""Targets: met, missed, or not measured."""

from typing import Any

from starter.measuring.summary import Target, targets
from starter.tasks import REAL_TASKS


def forged(*, above: bool, tuned: float, classical: float, load: float) -> dict[str, Any]:
    def entry(kind: str) -> dict[str, Any]:
        shots = {"0": {"mean": 0.5}, "8": {"mean": 0.6, "above_chance": above}}
        return {"kind": kind, "counts": {**shots, "16": {"mean": None}}, "control": {}}

    return {
        "in_context": {**{name: entry("real") for name in REAL_TASKS}, "codes": entry("family")},
        "tuning": {
            name: {
                "1000": {
                    "tuned": {"balanced_accuracy": tuned},
                    "classical": {"balanced_accuracy": classical},
                }
            }
            for name in REAL_TASKS
        },
        "speed": {"load": {"load_seconds": load, "first_load_seconds": load + 2}},
    }


def test_targets_that_are_met() -> None:
    found = targets(forged(above=True, tuned=0.7, classical=0.74, load=0.4))
    assert [target.met for target in found] == [True] * 5
    assert found[0].detail == "1 of 1" and found[4].detail.startswith("0.40 s; 2.40 s")


def test_targets_that_are_missed() -> None:
    found = targets(forged(above=False, tuned=0.6, classical=0.66, load=1.2))
    assert [target.met for target in found] == [False] * 5
    assert "not on codes" in found[0].detail and "sst2 -6.0" in found[3].detail


def test_one_real_set_behind_few_shot_is_enough_to_miss() -> None:
    content = forged(above=True, tuned=0.7, classical=0.7, load=0.4)
    content["tuning"]["trec"]["1000"]["tuned"]["balanced_accuracy"] = 0.55
    assert [target.met for target in targets(content)] == [True, True, False, True, True]
    del content["tuning"]["trec"]
    assert not targets(content)[2].met  # not measured is not met


def test_nothing_measured_meets_nothing() -> None:
    assert not any(target.met for target in targets({}))
    assert all(isinstance(target, Target) and target.detail for target in targets({}))
