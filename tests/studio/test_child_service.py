"""A real child that is cancelled, stopped, killed, or asked more than it reads."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from studio.child_service import ChildService, ChildWords
from templates.errors import RunError
from tests.faults import fault
from tests.studio.watching import in_background, is_gone

CHILD = """
import os, time
from pathlib import Path
from templates.service import Nothing, Operation, Server, Service, take_pipes

class Said(Nothing):
    pid: int

class Work(Nothing):
    mark: Path
    first_seconds: float = 0.0

def work(request):
    request.mark.touch()
    time.sleep(request.first_seconds)
    while True:
        yield Said(pid=os.getpid())
        time.sleep(0.3)

def ping(request):
    return os.getpid()

operations = {"work": Operation(Work, work), "ping": Operation(Nothing, ping)}
Service(*take_pipes(), Server("child", operations, lambda error: False, "")).serve()
"""
WORDS = ChildWords(name="child", too_slow="Wait", too_large="Try again")
MORE_THAN_A_PIPE_HOLDS = {"text": "x" * 300_000}
SOON_SECONDS = 6.0  # what a child that does not heed is given to end, and a busy machine


@pytest.fixture
def service() -> Iterator[ChildService]:
    with ChildService([sys.executable, "-c", CHILD], WORDS) as service:
        service.call("ping")
        yield service


@contextmanager
def cancelled_once(is_time: Path, cancelled: threading.Event) -> Iterator[None]:
    """Cancel from another thread as soon as a file is there; then the end must come soon."""
    at: list[float] = []

    def cancel() -> None:
        deadline = time.monotonic() + 20
        while not is_time.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        at.append(time.monotonic())
        cancelled.set()

    thread = threading.Thread(target=cancel)
    thread.start()
    yield
    thread.join()
    assert time.monotonic() - at[0] < SOON_SECONDS


def test_work_that_says_nothing_yet_is_cancelled(service: ChildService, tmp_path: Path) -> None:
    cancelled = threading.Event()
    request = {"mark": tmp_path / "begun", "first_seconds": 30}
    answer = service.stream("work", request, timeout_seconds=20, cancelled=cancelled)
    with cancelled_once(tmp_path / "begun", cancelled):
        assert list(answer) == []
    assert answer.result is None
    assert service.call("ping", timeout_seconds=20), "the turn is free, and a child is there"


def test_a_child_that_heeds_stays(service: ChildService, tmp_path: Path) -> None:
    cancelled, pid = threading.Event(), service.pid
    request = {"mark": tmp_path / "begun"}
    answer = service.stream("work", request, timeout_seconds=20, cancelled=cancelled)
    assert next(answer) == {"pid": pid}
    with cancelled_once(tmp_path / "begun", cancelled):
        assert len(list(answer)) < 20
    assert service.call("ping") == pid


def test_who_waits_in_line_is_cancelled_and_no_one_else(
    service: ChildService, tmp_path: Path
) -> None:
    first = service.stream("work", {"mark": tmp_path / "begun"})
    next(first)
    cancelled = threading.Event()
    second = service.stream(
        "work", {"mark": tmp_path / "second"}, timeout_seconds=20, cancelled=cancelled
    )
    with cancelled_once(tmp_path / "begun", cancelled):
        assert list(second) == [] and second.result is None
    assert next(first) == {"pid": service.pid} and not (tmp_path / "second").exists()
    with pytest.raises(RunError, match="busy with another request"):
        service.call("ping", timeout_seconds=0.2)
    first.close()
    assert service.call("ping") == service.pid


def test_what_was_cancelled_before_never_begins(service: ChildService, tmp_path: Path) -> None:
    cancelled = threading.Event()
    cancelled.set()
    answer = service.stream("work", {"mark": tmp_path / "begun"}, cancelled=cancelled)
    assert list(answer) == [] and answer.result is None
    assert not (tmp_path / "begun").exists() and service.call("ping") == service.pid


def test_callers_wait_their_turn(service: ChildService) -> None:
    asked = [in_background(lambda: service.call("ping")) for _ in range(8)]
    for thread, _ in asked:
        thread.join()
    assert [found for _, found in asked] == [[service.pid]] * 8


def test_an_answer_that_stops_coming_costs_one_restart(
    service: ChildService, tmp_path: Path
) -> None:
    pid = service.pid
    answer = service.stream("work", {"mark": tmp_path / "begun"}, silence_seconds=0)
    with pytest.raises(RunError, match=r"longer than 0 s and was restarted \(work\)"):
        list(answer)
    assert pid is not None and is_gone(pid, 0)


def test_a_child_that_does_not_read_costs_one_restart(service: ChildService) -> None:
    pid = service.call("ping")
    os.kill(pid, signal.SIGSTOP)
    started = time.monotonic()
    with pytest.raises(RunError, match=r"longer than 1 s and was restarted \(ping\)\. Wait"):
        service.call("ping", MORE_THAN_A_PIPE_HOLDS, timeout_seconds=1)
    assert time.monotonic() - started < 3 and is_gone(pid, 0)
    assert service.call("ping") != pid


def test_a_request_larger_than_the_pipe_arrives_whole(service: ChildService) -> None:
    service.release()  # the next child does not read while it starts
    with pytest.raises(RunError, match="there is no setting called 'text'"):
        service.call("ping", MORE_THAN_A_PIPE_HOLDS)


@pytest.mark.parametrize("is_asked", [True, False])
def test_closing_does_not_wait_for_a_child_that_does_not_read(is_asked: bool) -> None:
    before = {child.pid for child in psutil.Process().children()}
    with ChildService([sys.executable, "-c", CHILD], WORDS) as service:
        pid = service.call("ping")
        os.kill(pid, signal.SIGSTOP)
        if is_asked:
            working, found = in_background(lambda: service.call("ping", MORE_THAN_A_PIPE_HOLDS))
            time.sleep(0.5)
            assert working.is_alive()
        started = time.monotonic()
        service.close()
        assert time.monotonic() - started < 5 and is_gone(pid, 0)
        if is_asked:
            working.join(5)
            assert "ended in the middle" in str(found[0])
        assert {child.pid for child in psutil.Process().children()} == before


def test_a_child_killed_while_idle_is_not_even_noticed(service: ChildService) -> None:
    pid = service.call("ping")
    os.kill(pid, signal.SIGKILL)
    until = time.monotonic() + 5
    while psutil.pid_exists(pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not psutil.pid_exists(pid), "no zombie stays"
    service.release()
    assert service.pid is None


@fault(24, "A child is idle, or the server ends", "No process is left")
def test_an_idle_child_is_ended_and_closing_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    before = {child.pid for child in psutil.Process().children()}
    with ChildService([sys.executable, "-c", CHILD], WORDS, idle_seconds=0.3) as service:
        pid = service.call("ping")
        assert is_gone(pid, 5) and service.pid is None
        mark = tmp_path / "begun"
        request = {"mark": mark, "first_seconds": 30}
        working, found = in_background(lambda: service.call("work", request))
        while not mark.exists():
            time.sleep(0.05)
        busy = service.pid
        assert busy is not None
        service.release()
        assert service.pid == busy, "who is at work is left alone"
        environment = psutil.Process(busy).environ()
        assert environment["HF_HUB_OFFLINE"] == "1" and "hf_secret" not in environment.values()
        service.close()
        working.join()
        assert "ended in the middle" in str(found[0])
        assert {child.pid for child in psutil.Process().children()} == before
        with pytest.raises(RunError, match="The child was closed"):
            service.call("ping")
