"""A contestant's side of the turns: it hears an order, does it, and answers; else it waits.

"warm"     get everything going; a training also tells its loss before and after
"turn"     do a measured piece of work
"account"  the same once more, and tell where the time went

Free of torch.
"""

import io
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from benchmarks.workload import Case


class Accountant(Protocol):
    """Watches where time goes between two calls."""

    def start(self) -> None:
        """Begin to watch."""

    def stop(self) -> dict[str, Any]:
        """Say what was seen, ready for JSON."""


class Seat:
    """The wire to the one who calls the turns; without orders the process ends."""

    def __init__(self) -> None:
        """Take standard output for answers; what libraries print goes to the log."""
        self._answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        if isinstance(sys.stdout, io.TextIOWrapper):  # so that an error is the last line
            sys.stdout.reconfigure(line_buffering=True)

    def wait(self) -> str:
        """Wait, using no processor.

        Returns:
            The next order.
        """
        line = sys.stdin.readline()
        if not line:
            os._exit(0)  # whatever a library would still like to write is of no use
        return str(json.loads(line))

    def answer(self, **values: Any) -> None:
        """Answer the last order.

        Args:
            **values: ready for JSON.
        """
        told = {**values, "peak_bytes": peak_bytes()}
        self._answers.write(json.dumps(told, allow_nan=False) + "\n")
        self._answers.flush()


class Pace:
    """Makes a training loop of somebody else take turns: it waits inside `after_step`."""

    def __init__(
        self,
        seat: Seat,
        case: Case,
        held_out: Callable[[], float],
        accountant: Accountant | None = None,
    ) -> None:
        """Say nothing yet.

        Args:
            seat: the wire.
            case: says how long a turn is.
            held_out: gives the loss on the held-out rows.
            accountant: for the order "account".
        """
        self._seat, self._case, self._held_out = seat, case, held_out
        self._accountant = accountant
        self._order, self._first_loss = "", 0.0
        self._begun = self._stepped = self._cpu = 0.0
        self._num_steps = self._num_tokens = 0

    def begin(self, **facts: Any) -> None:
        """Say that the first step is next, and wait for the order to take it.

        Args:
            **facts: to tell with it.
        """
        self._seat.answer(**facts)
        self._hear()

    def after_step(self, num_tokens: int) -> None:
        """Count a step; where the turn is over, answer and wait for the next.

        Args:
            num_tokens: real tokens of text it learnt from.
        """
        self._stepped = time.perf_counter()
        self._num_steps += 1
        self._num_tokens += num_tokens
        seconds = self._stepped - self._begun
        if self._order == "warm" and self._num_steps < self._case.warm_steps:
            return
        if self._order != "warm" and seconds < self._case.turn_seconds:
            return
        told: dict[str, Any] = {
            "seconds": seconds,
            "tokens": self._num_tokens,
            "steps": self._num_steps,
            "processor_seconds": time.process_time() - self._cpu,
        }
        if self._order == "warm":
            told |= {"first_loss": self._first_loss, "last_loss": self._held_out()}
        if self._order == "account" and self._accountant:
            told["account"] = self._accountant.stop()
        self._seat.answer(**told)
        self._hear()

    def leave_out(self) -> None:
        """Do not count the time since the last step: it went into something else."""
        now = time.perf_counter()
        self._begun += now - self._stepped
        self._stepped = now

    def _hear(self) -> None:
        self._order = self._seat.wait()
        if self._order == "warm":
            self._first_loss = self._held_out()
        if self._order == "account" and self._accountant:
            self._accountant.start()
        self._num_steps = self._num_tokens = 0
        self._cpu = time.process_time()
        self._begun = self._stepped = time.perf_counter()


def take_turns(
    seat: Seat,
    work: Callable[[], dict[str, Any]],
    *,
    warms_up: bool = True,
    accountant: Accountant | None = None,
    **facts: Any,
) -> None:
    """Do the same piece of work at every order.

    Args:
        seat: the wire.
        work: gives what to tell.
        warms_up: whether it is done once before the measured turns.
        accountant: for the order "account".
        **facts: to tell before the first order.
    """
    seat.answer(**facts)
    while True:
        order = seat.wait()
        if order == "warm" and not warms_up:
            seat.answer()
            continue
        watching = accountant if order == "account" else None
        if watching:
            watching.start()
        cpu, begun = time.process_time(), time.perf_counter()
        told = work()
        seconds = time.perf_counter() - begun
        if watching:
            told["account"] = watching.stop()
        seat.answer(seconds=seconds, processor_seconds=time.process_time() - cpu, **told)


def case_from_arguments() -> tuple[str, Case]:
    """Read who this process is and what it is to do.

    Returns:
        The contestant's name and the case.
    """
    return sys.argv[1], Case(**json.loads(sys.argv[2]))


def peak_bytes() -> int:
    """Read the most memory this process ever held.

    Unlike the resource module's figure this one does not begin with that of the parent.

    Returns:
        Bytes; 0 where the system does not say.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    found = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return int(found.split()[1]) << 10
