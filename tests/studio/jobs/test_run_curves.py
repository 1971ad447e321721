import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

import studio.jobs.run_curves
from data_prep.curves import Curves, read_curves
from engine.events import Stepped
from engine.jobs import Job, create_job
from studio.jobs.run_curves import RunCurves


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many files each real read was about."""
    found: list[int] = []

    def read(attempts: dict[int, Path], *, max_points: int) -> Curves:
        found.append(len(attempts))
        return read_curves(attempts, max_points=max_points)

    monkeypatch.setattr(studio.jobs.run_curves, "read_curves", read)
    return found


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    clock = SimpleNamespace(now=0.0)
    module = SimpleNamespace(monotonic=lambda: clock.now)
    monkeypatch.setattr(studio.jobs.run_curves, "time", module)
    return clock


def new_job(folder: Path, number: int = 1) -> Job:
    return create_job(folder / f"train-{number}", "train", {})


def stepped(step: int) -> Stepped:
    return Stepped(step, 1.0, 0.1, 1.0, 10, 0.1)


def test_a_run_is_read_when_it_grew_and_never_twice_in_two_seconds(
    tmp_path: Path, reads: list[int], clock: SimpleNamespace
) -> None:
    job, curves = new_job(tmp_path), RunCurves()
    assert curves.of(job) == Curves()
    attempt = job.start_attempt()
    num_seen = []
    for number in range(1, 101):  # a step and five looks every tenth of a second
        attempt.write(stepped(number))
        clock.now += 0.1
        num_seen += [len(curves.of(job).steps.step) for _ in range(5)]
    assert len(reads) <= 1 + 5 and num_seen[-1] >= 80
    clock.now += 2
    assert len(curves.of(job).steps.step) == 100
    num_reads = len(reads)
    clock.now += 100
    assert len(curves.of(job).steps.step) == 100 and len(reads) == num_reads


def test_the_end_is_there_at_once_and_an_attempt_more_is_seen(
    tmp_path: Path, reads: list[int], clock: SimpleNamespace
) -> None:
    job, curves = new_job(tmp_path), RunCurves()
    attempt = job.start_attempt()
    attempt.write(stepped(1))
    assert curves.of(job).steps.step == (1,)
    attempt.write(stepped(2))
    assert curves.of(job).steps.step == (1,)
    assert curves.of(job, is_over=True).steps.step == (1, 2)
    assert curves.of(job, is_over=True).steps.step == (1, 2) and len(reads) == 2
    clock.now += 3
    job.start_attempt().write(stepped(3))
    assert curves.of(job).steps.step == (1, 2, 3) and reads[-1] == 2


def test_threads_share_one_read(tmp_path: Path, reads: list[int]) -> None:
    job, curves = new_job(tmp_path), RunCurves()
    attempt = job.start_attempt()
    for number in range(1, 2000):
        attempt.write(stepped(number))
    found: list[Curves] = []
    gate = threading.Barrier(8)

    def look() -> None:
        gate.wait()
        found.append(curves.of(job))

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reads == [1] and len(found) == 8 and all(one is found[0] for one in found)
    assert len(found[0].steps.step) == 500


def test_only_the_last_runs_are_remembered(tmp_path: Path, reads: list[int]) -> None:
    curves = RunCurves()
    jobs = [new_job(tmp_path, number) for number in range(33)]
    for job in jobs:
        curves.of(job)
    curves.of(jobs[-1])
    assert len(reads) == 33
    curves.of(jobs[0])
    assert len(reads) == 34, "it was forgotten"


def test_a_run_that_is_deleted_meanwhile_has_no_curves(tmp_path: Path) -> None:
    assert RunCurves().of(Job(tmp_path / "gone")) == Curves()
