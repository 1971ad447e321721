"""What is counted where, so that the end of a process is not blamed on a neighbour's memory."""

from pathlib import Path

import pytest

from engine.liveness import memory_kills


def test_a_group_that_counts_whole_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group, own, machine = (tmp_path / name for name in ("events", "oom_control", "vmstat"))
    monkeypatch.setattr("engine.liveness._KILL_COUNTERS", ((group,), (own, machine)))
    assert memory_kills() == 0
    machine.write_text("nr_free_pages 5\noom_kill 4\n")
    own.write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n")
    assert memory_kills() == 5
    group.write_text("low 0\noom 9\noom_kill 2\noom_group_kill 1\n")
    assert memory_kills() == 2, "the machine's count holds those of other groups"
    group.write_text("oom_kill many\n")
    assert memory_kills() == 5
