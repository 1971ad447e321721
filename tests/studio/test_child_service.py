"""Cancelling what a real child works on, or what waits for it."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from studio.child_service import ChildService, ChildWords
from templates.errors import RunError

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
