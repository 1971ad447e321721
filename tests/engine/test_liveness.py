"""When a process is gone, and what is counted where, so that no neighbour's memory is blamed."""

import fcntl
import subprocess
import sys
import time
from pathlib import Path

import pytest

from engine.liveness import find_process, is_alive, memory_kills

# Its first thread ends and another goes on, as for an instant in every killed worker.
_HEADLESS = """
import ctypes, fcntl, sys, threading, time
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
memory = bytearray(b"1" * 300_000_000)  # takes a while to give back
threading.Thread(target=time.sleep, args=(30,)).start()
ctypes.CDLL(None).pthread_exit(None)
"""


def test_a_process_is_alive_until_its_last_thread_lets_go_of_locks(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", _HEADLESS, str(path)]) as child:
        process = find_process(child.pid)
        assert process is not None
        deadline = time.monotonic() + 30
        while state_of(child.pid) != "Z":
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert is_alive(process)
        child.kill()
        while is_alive(process):
            assert time.monotonic() < deadline
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


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
