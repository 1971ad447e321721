"""Heats: every contestant is a process that waits for its turn, so all see the same machine.

Contestants are made one after the other, warmed up, and then take turns until each has had its
number; who begins changes from turn to turn. How much of the processor went to other programs
meanwhile is written down with every turn.
"""

import json
import os
import selectors
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import psutil

from benchmarks.records import (
    LOGS_FOLDER,
    ROOT,
    Record,
    add_record,
    finished,
    product_digest,
    read_records,
    records_path,
    this_machine,
)
from benchmarks.workload import Case, Precision
from studio.settings import child_environment

OURS, PEAK = "ours", "peak"
_PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"
_READY_SECONDS, _ANSWER_SECONDS = 300.0, 7200.0
_LEAST_FREE_RATIO = 0.3  # of all memory, before one more contestant is let in
MOST_FOREIGN_CORES, _MOST_TRIES = 0.5, 4  # above that a turn is taken again
_OF_TIME = ("user", "nice", "system", "irq", "softirq")


class GoneError(Exception):
    """A contestant gave up; the sentence says why, as far as it said so itself."""


@dataclass(frozen=True)
class Contestant:
    """Somebody to be measured.

    Attributes:
        name: in the record; a peer's tells it what to do.
        module: run with `python -m`.
        precision: instead of the case's, for our own.
    """

    name: str
    module: str
    precision: Precision | None = None

    @property
    def is_peer(self) -> bool:
        """Whether it lives in the peers' environment."""
        return self.module == "benchmarks.peers"


def ours(precision: Precision | None = None, name: str = OURS) -> Contestant:
    """Our own trainer and answering.

    Args:
        precision: instead of the case's.
        name: in the record.

    Returns:
        The contestant.
    """
    return Contestant(name, "benchmarks.ours", precision)


def peer(name: str) -> Contestant:
    """Another library.

    Args:
        name: tells which, and how it is used.

    Returns:
        The contestant.
    """
    return Contestant(name, "benchmarks.peers")


MACHINE = Contestant(PEAK, "benchmarks.peak")


class Child:
    """A contestant's process."""

    def __init__(self, contestant: Contestant, case: Case) -> None:
        """Start it.

        Args:
            contestant: who.
            case: what to do.

        Raises:
            GoneError: there is no environment for peers.
        """
        python = _PEERS_PYTHON if contestant.is_peer else sys.executable
        if contestant.is_peer and not _PEERS_PYTHON.exists():
            raise GoneError("no .venv-peers; make bench sets it up")
        own = {**vars(case), "precision": contestant.precision or case.precision}
        LOGS_FOLDER.mkdir(parents=True, exist_ok=True)
        self._log = LOGS_FOLDER / f"{contestant.name.replace(' ', '-').replace(',', '')}.txt"
        with self._log.open("w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [python, "-m", contestant.module, contestant.name, json.dumps(own)],
                cwd=ROOT,
                env=_environment(contestant, case),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def ask(self, order: str) -> dict[str, Any]:
        """Give an order and wait until it is done.

        Args:
            order: see `seat`; "" only waits for the first answer.

        Returns:
            The answer, and how many cores other programs used meanwhile.

        Raises:
            GoneError: the process ended, or took hours.
        """
        before, begun = _busy_seconds(), time.perf_counter()
        if order:
            self._send(order)
        answer = self._hear(_ANSWER_SECONDS if order else _READY_SECONDS)
        seconds = time.perf_counter() - begun
        busy = _busy_seconds() - before
        if "processor_seconds" in answer:
            answer["foreign_cores"] = max(0.0, busy - answer["processor_seconds"]) / seconds
        return answer

    def end(self) -> None:
        """End the process, and wait until its memory is free."""
        self._process.kill()
        self._process.communicate()

    def _send(self, order: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise GoneError(self._last_words()) from None

    def _hear(self, limit_seconds: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(limit_seconds):
                raise GoneError(f"no answer in {limit_seconds:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise GoneError(self._last_words())
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _last_words(self) -> str:
        if self._process.wait() < 0:
            return f"ended by signal {-self._process.returncode}; memory may have run out"
        lines = self._log.read_text(encoding="utf-8", errors="replace").split("\n")
        return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "no word")


def measure(
    case: Case,
    peers: Sequence[Contestant],
    *,
    first: Contestant | None = None,
    with_account: bool = False,
) -> None:
    """Measure whoever has not been measured in a case yet, in as many heats as memory asks for.

    Args:
        case: what to do.
        peers: who competes with the first one.
        first: in every heat; default ours.
        with_account: whether the first one tells where its time went.
    """
    machine = this_machine()
    path = records_path(machine)
    reference = first or ours(case.precision)
    done = finished(read_records(path), case)
    waiting = [contestant for contestant in peers if contestant.name not in done]
    words = " ".join(f"{value}" for value in case.point.values() if value)
    if reference.name in done and not waiting:
        print(f"{words}: measured before", flush=True)
        return
    while True:
        told, waiting = hold_heat(case, [reference, MACHINE, *waiting], with_account=with_account)
        compare_answers(told, reference.name)
        add_record(path, Record(vars(case), machine, product_digest(case.method), told))
        for name, answers in told.items():
            print(f"{words}: {name}: {_in_short(answers)}", flush=True)
        if not waiting:
            return


def compare_answers(told: dict[str, dict[str, Any]], reference: str) -> None:
    """Replace answers and scores by how far they agree with the reference's.

    Args:
        told: by contestant; changed.
        reference: whose answers the others are compared with.
    """
    warm = {name: answers.get("warm", {}) for name, answers in told.items()}
    expected = warm.get(reference, {})
    for own in warm.values():
        if "answers" in own and "answers" in expected:
            pairs = [
                (left, right)
                for mine, theirs in zip(own["answers"], expected["answers"], strict=True)
                for left, right in zip_longest(mine.split(), theirs.split())
            ]
            own["agreement"] = sum(left == right for left, right in pairs) / max(1, len(pairs))
        if "scores" in own and "scores" in expected:
            rows = list(zip(own["scores"], expected["scores"], strict=True))
            same = sum(a.index(max(a)) == b.index(max(b)) for a, b in rows)
            own["agreement"] = same / len(rows)
            own["largest_difference"] = max(
                abs(left - right) for a, b in rows for left, right in zip(a, b, strict=True)
            )
    for own in warm.values():
        own.pop("answers", None)
        own.pop("scores", None)


def hold_heat(
    case: Case, contestants: Sequence[Contestant], *, with_account: bool = False
) -> tuple[dict[str, dict[str, Any]], list[Contestant]]:
    """Let contestants take turns.

    Args:
        case: what to do.
        contestants: who; the first two are let in even where memory is short.
        with_account: whether the first one tells at the end where its time went.

    Returns:
        What each one answered, and who has to wait for another heat because memory was short.
    """
    told: dict[str, dict[str, Any]] = {}
    children: dict[str, Child] = {}
    waiting: list[Contestant] = []
    try:
        for place, contestant in enumerate(contestants):
            memory = psutil.virtual_memory()
            if place > 2 and memory.available < _LEAST_FREE_RATIO * memory.total:
                waiting.append(contestant)
                continue
            _let_in(contestant, case, children, told)
        for turn in range(case.num_turns):
            names = list(children)
            first = turn % max(1, len(names))
            for name in names[first:] + names[:first]:
                _take_quiet_turn(name, children, told)
        if with_account and contestants[0].name in children:
            _take_turn(contestants[0].name, "account", children, told)
    finally:
        for child in children.values():
            child.end()
    return told, waiting


def _let_in(
    contestant: Contestant,
    case: Case,
    children: dict[str, Child],
    told: dict[str, dict[str, Any]],
) -> None:
    name = contestant.name
    told[name] = {"turns": []}
    begun = time.perf_counter()
    try:
        children[name] = Child(contestant, case)
        told[name]["ready"] = children[name].ask("")
        told[name]["ready"]["seconds"] = time.perf_counter() - begun
    except GoneError as error:
        _give_up(name, error, children, told)
        return
    _take_turn(name, "warm", children, told)


def _in_short(answers: dict[str, Any]) -> str:
    if "error" in answers:
        return f"could not: {answers['error']}"
    rates = {
        f"{unit} a second": [turn[unit] / turn["seconds"] for turn in answers["turns"]]
        for unit in ("tokens", "inputs")
        if all(unit in turn for turn in answers["turns"])
    }
    return ", ".join(f"{statistics.median(values):.4g} {unit}" for unit, values in rates.items())


def _take_quiet_turn(
    name: str, children: dict[str, Child], told: dict[str, dict[str, Any]]
) -> None:
    """Take a turn; once more where other programs had much of the machine, but not for ever."""
    for _ in range(_MOST_TRIES):
        _take_turn(name, "turn", children, told)
        turns = told[name]["turns"]
        if name not in children or turns[-1]["foreign_cores"] <= MOST_FOREIGN_CORES:
            return
        disturbed = turns.pop()
    turns.append(disturbed)  # the page says so


def _take_turn(
    name: str, order: str, children: dict[str, Child], told: dict[str, dict[str, Any]]
) -> None:
    try:
        answer = children[name].ask(order)
    except GoneError as error:
        _give_up(name, error, children, told)
        return
    if order != "warm":  # when answers are compared; every turn gives the same ones
        answer = {key: value for key, value in answer.items() if key not in ("answers", "scores")}
    if order == "turn":
        told[name]["turns"].append(answer)
    else:
        told[name][order] = answer


def _give_up(
    name: str, error: GoneError, children: dict[str, Child], told: dict[str, dict[str, Any]]
) -> None:
    told[name]["error"] = str(error)
    if name in children:
        children.pop(name).end()


def _environment(contestant: Contestant, case: Case) -> dict[str, str]:
    """Ours is the worker's; a peer has it only where the case says so."""
    if contestant.is_peer and case.settings == "own":
        mine = dict(os.environ)
        for name in ("GOMP_SPINCOUNT", "GLIBC_TUNABLES"):  # settings of ours, whoever made them
            mine.pop(name, None)
    else:
        mine = child_environment(offline=True)
    mine.pop("VIRTUAL_ENV", None)
    return mine


def _busy_seconds() -> float:
    times = psutil.cpu_times()
    return float(sum(getattr(times, name) for name in _OF_TIME))
