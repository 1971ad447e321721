"""Contestants take turns, one at a time, and one that gives up does not stop the others."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import turns
from benchmarks.turns import Contestant, compare_answers, hold_heat
from benchmarks.workload import Case

CASE = Case("train", "main", "tiny", "lora", num_turns=3, turn_seconds=0.0, warm_steps=4)


def contestant(name: str) -> Contestant:
    return Contestant(name, "tests.benchmarks.sitting")


@pytest.fixture(autouse=True)
def _logs_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "LOGS_FOLDER", tmp_path)
    monkeypatch.setattr(turns, "MOST_FOREIGN_CORES", float("inf"))  # other tests run beside


def test_turns_alternate_and_who_begins_changes() -> None:
    told, waiting = hold_heat(CASE, [contestant("a"), contestant("b")])
    assert not waiting
    begun = sorted((turn["begun_at"], name) for name in "ab" for turn in told[name]["turns"])
    assert [name for _, name in begun] == ["a", "b", "b", "a", "a", "b"]
    assert all(turn["peak_bytes"] > 1e6 for turn in told["a"]["turns"])
    assert all(turn["foreign_cores"] >= 0 for turn in told["a"]["turns"])


def test_a_turn_beside_other_programs_is_taken_again_but_not_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "MOST_FOREIGN_CORES", -1.0)
    answers = []
    plain = turns.Child.ask

    def ask(child: turns.Child, order: str) -> dict[str, object]:
        answers.append(order)
        return plain(child, order)

    monkeypatch.setattr(turns.Child, "ask", ask)
    told, _ = hold_heat(replace(CASE, num_turns=2), [contestant("a")])
    assert len(told["a"]["turns"]) == 2
    assert answers.count("turn") == 2 * 4


def test_who_gives_up_leaves_its_last_words_and_the_others_go_on() -> None:
    told, _ = hold_heat(CASE, [contestant("dying"), contestant("b")])
    assert told["dying"]["error"] == "it was too much"
    assert len(told["dying"]["turns"]) == 1  # after warming up
    assert len(told["b"]["turns"]) == 3


def test_a_loop_of_steps_waits_between_turns_and_leaves_out_what_is_no_step() -> None:
    told, _ = hold_heat(replace(CASE, num_turns=1), [contestant("stepping")])
    [turn], warm = told["stepping"]["turns"], told["stepping"]["warm"]
    assert (warm["steps"], warm["tokens"]) == (4, 28)
    assert (warm["first_loss"], warm["last_loss"]) == (2.5, 2.5)
    assert (turn["steps"], turn["tokens"]) == (1, 7)
    assert warm["seconds"] < 0.03  # of 0.04 slept


def test_where_memory_is_short_the_rest_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "_LEAST_FREE_RATIO", 2.0)
    told, waiting = hold_heat(replace(CASE, num_turns=1), [contestant(name) for name in "abcd"])
    assert list(told) == ["a", "b", "c"]
    assert [other.name for other in waiting] == ["d"]


def test_answers_and_scores_become_agreement() -> None:
    told = {
        "ours": {"warm": {"answers": ["w1 w2", "w3"], "scores": [[-1.0, -2.0], [-3.0, -1.0]]}},
        "other": {"warm": {"answers": ["w1 w9", "w3 w4"], "scores": [[-1.0, -2.5], [-1.0, -3.0]]}},
    }
    compare_answers(told, "ours")
    assert told["ours"]["warm"] == {"agreement": 1.0, "largest_difference": 0.0}
    assert told["other"]["warm"] == {"agreement": 0.5, "largest_difference": 2.0}
