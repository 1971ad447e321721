"""Is that process still the one we mean, and what became of it? Free of torch.

A process id alone says little: the system gives it to somebody else after a while, and after a
restart at once. The id, the instant the process was started, and the boot in which that was, name
one process for good.
"""

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

from engine.events import Failed, Launched

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# Where a system counts the processes it ended because memory ran out. The count of a control group
# leaves out its neighbours and, in version 2, takes in the groups below it. In version 1 it does
# not, and the machine's count is needed beside it.
_KILL_COUNTERS = (
    (Path("/sys/fs/cgroup/memory.events"),),
    (Path("/sys/fs/cgroup/memory/memory.oom_control"), Path("/proc/vmstat")),
)
# CUDA, torch's allocator, the system, C++, and oneDNN.
_MEMORY_SIGNS = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "bad_alloc",
    "could not create a primitive",
)
_GIGABYTE = 1e9


@dataclass(frozen=True)
class Process:
    """One process, never mistaken for a later one with the same id."""

    pid: int
    started: int
    boot_id: str


def find_process(pid: int) -> Process | None:
    """Look up a process.

    Args:
        pid: its id.

    Returns:
        Its identity, or None where it is gone or waits only to be collected by its parent.
    """
    started = _started(pid)
    return None if started is None else Process(pid, started, boot_id())


def is_alive(process: Process) -> bool:
    """Say whether this very process still runs.

    Args:
        process: from `find_process`, perhaps before a restart of the machine.

    Returns:
        False also where another process has its id by now.
    """
    return find_process(process.pid) == process


@cache
def boot_id() -> str:
    """Name the time since the machine was started.

    Returns:
        The same text until the next restart.
    """
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:  # not Linux; a minute's grid, because the clock is set now and then
        return f"boot-{round(psutil.boot_time() / 60)}"


def memory_kills() -> int:
    """Count the processes that the system has ended because memory ran out.

    Returns:
        A number that grows with each; 0 where the system does not say.
    """
    for counters in _KILL_COUNTERS:
        counts = [count for counter in counters for count in _kills(counter)]
        if counts:
            return sum(counts)
    return 0


def why_it_ended(launched: Launched, boot: str, kills: int, *, on_request: bool = False) -> Failed:
    """Explain a process that is gone without a last word.

    Args:
        launched: what it said at its start.
        boot: the boot in which it was found gone.
        kills: `memory_kills` at that time.
        on_request: whether a person had it ended at once.

    Returns:
        What happened and what to do.
    """
    if on_request:
        return Failed("It was ended at once, as asked", "Resume it")
    if boot != launched.boot_id:
        return Failed("The machine was restarted while it ran", "Resume it")
    if kills > launched.memory_kills:
        return memory_ran_out(launched)
    return Failed(
        "Its process was ended from outside",
        "Resume it; if nobody ended it, memory ran out: " + memory_ran_out(launched).fix.lower(),
    )


def memory_ran_out(launched: Launched | None = None) -> Failed:
    """Say that memory ran out, beside what the plan was estimated to need.

    Args:
        launched: holds the estimate, where there is one.

    Returns:
        What happened and what to lower.
    """
    estimate = ""
    if launched and launched.estimated_peak_bytes:
        estimate = (
            f": it was estimated to need {launched.estimated_peak_bytes / _GIGABYTE:.1f} GB when "
            f"{launched.memory_available_bytes / _GIGABYTE:.1f} GB were free"
        )
    return Failed(
        f"The memory of this machine is used up{estimate}",
        "Lower micro_batch_tokens or max_length_tokens, turn on recomputes, take qlora, or choose "
        "a smaller base",
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Recognise that memory ran out, whichever library says so.

    Args:
        error: what was raised.

    Returns:
        Whether it means that.
    """
    words = str(error).lower()
    in_words = any(sign in words for sign in _MEMORY_SIGNS)
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and in_words)


def _kills(counter: Path) -> list[int]:
    """Read the one count of a file; nothing where there is none."""
    try:
        lines = counter.read_text(encoding="ascii").splitlines()
        return [int(line.split()[1]) for line in lines if line.startswith("oom_kill ")]
    except (OSError, ValueError):
        return []


def _started(pid: int) -> int | None:
    """When the process was started: clock ticks since boot on Linux, else milliseconds."""
    stat = Path(f"/proc/{pid}/stat")
    if not Path("/proc/self/stat").exists():
        try:
            process = psutil.Process(pid)
            dead = process.status() == psutil.STATUS_ZOMBIE
            return None if dead else round(process.create_time() * 1000)
        except psutil.Error:
            return None
    try:
        # The name in brackets may hold anything, brackets too: split behind its end.
        state, *rest = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    # A process being killed may look dead by its first thread while another, the last, still gives
    # back its memory and holds its files and locks.
    num_threads, started = int(rest[16]), int(rest[18])
    return None if state in "ZX" and num_threads < 2 else started


def this_process() -> Process:
    """Name the process that asks.

    Returns:
        Its identity.
    """
    found = find_process(os.getpid())
    assert found is not None, "who asks is alive"
    return found
