import dataclasses
import math
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

import engine.attempts
import engine.job_status
import studio.jobs.progress
from engine.attempts import Attempt
from engine.checkpoints import TrainerState
from engine.events import (
    Delivered,
    Evaluated,
    Event,
    Failed,
    Finished,
    Launched,
    Noticed,
    Progressed,
    Sample,
    Sampled,
    Saved,
    Started,
    Stepped,
    Stopped,
)
from engine.jobs import Job, create_job
from engine.liveness import this_process
from studio.home import Home
from studio.jobs.progress import read_progress
from studio.jobs.queue import Queue
from studio.jobs.requests import FetchRequest
from studio.verbs import app
from templates.errors import RunError
from tests.engine.tiny import save_tiny
from tests.studio.jobs.running import (
    has,
    long_plan,
    plan_of,
    start,
    wait_for,
    wait_until_over,
    working_here,
)

ANSWERS = (Sample("where is it", "shipping", "billing", (3,)),)


@pytest.fixture
def empty(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def launched(*, until_step: int = 0) -> Launched:
    process = this_process()
    return Launched(process.pid, process.started, process.boot_id, 0, until_step=until_step)


def write(attempt: Attempt, *events: Event) -> None:
    for event in events:
        attempt.write(event)


class Clock:
    """Both clocks: the one for people may jump, the other only goes on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.utc = time.monotonic(), 1.7e9
        clock = SimpleNamespace(monotonic=lambda: self.now, time=lambda: self.utc)
        for module in (engine.attempts, engine.job_status, studio.jobs.progress):
            monkeypatch.setattr(module, "time", clock)


def step(number: int, seconds: float = 1.0, num_tokens: int = 100) -> Stepped:
    return Stepped(number, 0.5 + 1 / number, 0.01 * number, 1.0, num_tokens, seconds)


def test_a_run_from_its_first_word_to_its_last(empty: Home) -> None:
    queue, job = Queue(empty), create_job(empty.new("train"), "train", {})
    attempt = job.start_attempt()
    write(attempt, launched(), Progressed(0.0, "loading the base"))
    found = read_progress(queue, job)
    assert (found.state, found.words, found.step) == ("running", "loading the base", 0)
    assert found.memory_bytes is not None and found.memory_bytes > 10_000_000
    assert (found.loss, found.best_step, found.eta_low_seconds) == (None, None, None)
    write(attempt, Started(20, 1, 5, 50, ("two rows were cut",)), Sampled(0, ANSWERS, 0.1))
    found = read_progress(queue, job)
    assert (found.total_steps, found.samples, found.sampled_step) == (20, ANSWERS, 0)
    assert found.eta_high_seconds is None
    write(attempt, *map(step, range(1, 6)), Evaluated(5, 0.25, 0.5, True, 0.1), Noticed("hot"))
    found = read_progress(queue, job)
    assert (found.step, found.done_ratio, found.words) == (5, 0.25, "step 5/20")
    assert (found.loss, found.learning_rate, found.tokens_per_second) == (0.7, 0.05, 100.0)
    assert found.validation_loss == 0.25 and found.notices == ("two rows were cut", "hot")
    assert 0 <= found.eta_low_seconds <= found.eta_high_seconds
    write(attempt, Finished(20, 15, 0.2, "all steps taken", 9.0, 10**9))
    found = read_progress(queue, job)
    assert (found.state, found.done_ratio, found.failure) == ("finished", 1.0, None)
    assert (found.memory_bytes, found.eta_high_seconds) == (None, None)


def test_the_way_to_the_end_holds_evaluations_and_survives_a_clock_that_jumps(
    empty: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    queue, job = Queue(empty), create_job(empty.new("train"), "train", {})
    attempt = job.start_attempt()
    write(attempt, launched(), Started(1000, 1, 5, 50))
    for number in range(1, 401):  # a second each, and every tenth an evaluation of five
        clock.now += 1.0
        write(attempt, step(number))
        if number % 10 == 0:
            clock.now += 5.0
            clock.utc += (-1) ** number * 1e6 * number
            write(attempt, Evaluated(number, 0.5, 0.5, True, 5.0))
        found = read_progress(queue, job) if number > 50 and number % 50 == 7 else None
        if found:
            truth = 1.5 * (1000 - number)
            assert 0 < found.eta_low_seconds < truth < found.eta_high_seconds
            assert number < 200 or found.eta_high_seconds < 1.4 * found.eta_low_seconds
    assert read_progress(queue, job).elapsed_seconds == pytest.approx(600)
    clock.now += 30
    assert read_progress(queue, job).elapsed_seconds == pytest.approx(630)


def test_the_way_ends_where_the_run_pauses(empty: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    queue, job = Queue(empty), create_job(empty.new("train"), "train", {})
    attempt = job.start_attempt()
    write(attempt, launched(until_step=30), Started(1000, 11, 5, 50))
    for number in range(11, 21):
        clock.now += 1.0
        write(attempt, step(number))
    found = read_progress(queue, job)
    assert found.eta_low_seconds < 10 < found.eta_high_seconds < 20
    for number in range(21, 33):
        write(attempt, step(number))
    found = read_progress(queue, job)
    assert (found.eta_low_seconds, found.eta_high_seconds) == (0, 0), "never less than nothing"


def test_a_resumed_run_knows_what_was_before_but_not_what_is_done_again(empty: Home) -> None:
    queue, job = Queue(empty), create_job(empty.new("train"), "train", {})
    attempt = job.start_attempt()
    write(attempt, launched(), Started(9, 1, 5, 50), Sampled(0, ANSWERS, 0.1))
    write(attempt, step(1), Evaluated(2, 0.9, 0.5, True, 0.1), Sampled(2, ANSWERS, 0.1))
    write(attempt, Stopped(2, 0.9))
    attempt = job.start_attempt()
    write(attempt, launched(), Started(9, 3, 5, 50), step(3), Evaluated(4, 0.1, 0.5, True, 0.1))
    attempt = job.start_attempt()
    assert read_progress(queue, job).validation_loss == 0.1
    write(attempt, launched(), Progressed(0.0, "loading"))
    assert read_progress(queue, job).validation_loss == 0.1, "nobody knows yet where it goes on"
    write(attempt, Started(9, 4, 5, 50))
    found = read_progress(queue, job)
    assert (found.step, found.sampled_step) == (3, 2)
    assert found.validation_loss == 0.9, "step 4 is taken again"


def test_torn_lines_and_an_empty_file_are_no_trouble(empty: Home) -> None:
    queue, job = Queue(empty), create_job(empty.new("train"), "train", {})
    attempt = job.start_attempt()
    attempt.path.write_bytes(b"")
    assert read_progress(queue, job).state == "stopped"
    write(attempt, launched(), Started(9, 1, 5, 50), Evaluated(1, 0.9, 0.5, True, 0.1), step(1))
    with attempt.path.open("ab") as file:
        file.write(b'\n{"event":"Evaluated","at":1,"st\n{"event":"Sampled","samples":[3]}\n{"eve')
    found = read_progress(queue, job)
    assert (found.validation_loss, found.samples, found.step) == (0.9, (), 1)


def test_the_best_step_is_the_newest_checkpoints(empty: Home) -> None:
    queue, job = Queue(empty), create_job(empty.new("train"), "train", {})
    for number, best in ((9, 9), (12, 9)):
        folder = job.checkpoints / f"step-{number:08d}"
        folder.mkdir(parents=True)
        state = TrainerState(step=number, best_step=best, best_loss=0.5)
        (folder / "state.json").write_text(state.model_dump_json())
    assert read_progress(queue, job).best_step == 9
    (job.checkpoints / "step-00000012" / "state.json").write_text("{")
    assert read_progress(queue, job).best_step == 9, "the next older one"


def test_a_failure_is_said_until_the_job_waits_again(empty: Home) -> None:
    queue = Queue(empty)
    job = queue.submit(FetchRequest(base="a/b"))
    behind = queue.submit(FetchRequest(base="a/c"))
    assert [read_progress(queue, one).place for one in (job, behind)] == [1, 2]
    assert read_progress(queue, behind).state == "queued"
    queue.stop(job)
    assert read_progress(queue, job).state == "stopped"
    attempt = job.start_attempt()
    write(attempt, launched(), Failed("It fell", "Stand up", "the stairs"))
    found = read_progress(queue, job)
    assert found.state == "failed" and found.failure == Failed("It fell", "Stand up", "the stairs")
    queue.resume(job)
    found = read_progress(queue, job)
    assert (found.state, found.place, found.failure) == ("queued", 2, None)


@pytest.mark.parametrize("kind", ["prepare", "compare", "predict", "publish", "fetch"])
def test_other_kinds_have_words_and_a_share(empty: Home, kind: str) -> None:
    queue, job = Queue(empty), create_job(empty.new(kind), kind, {})
    attempt = job.start_attempt()
    write(attempt, launched(), Progressed(0.5, "zero-shot"), Noticed("slow today"))
    found = read_progress(queue, job)
    assert (found.state, found.words, found.done_ratio) == ("running", "zero-shot", 0.5)
    assert (found.epoch, found.eta_high_seconds, found.total_steps) == (None, None, 0)
    assert found.notices == ("slow today",) and found.memory_bytes
    write(attempt, Delivered(("comparison.json",), 1.0, 10**8))
    assert read_progress(queue, job).state == "finished"


def test_no_such_job_is_a_sentence(empty: Home) -> None:
    with pytest.raises(RunError, match="no such run"):
        read_progress(Queue(empty), Job(empty.root / "jobs" / "train-none"))


def test_an_hour_costs_no_more_than_a_minute(empty: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read is counted, for the time of a busy machine says little."""
    queue, job = Queue(empty), create_job(empty.new("train"), "train", {})
    attempt = job.start_attempt()
    write(attempt, launched(), Started(10**6, 1, 5, 50, ("first words",)))
    write(attempt, Noticed("early"))
    attempt.close()
    line = attempt.path.read_bytes().splitlines()[0]
    write(attempt, step(1))
    one_step = attempt.path.read_bytes()[-len(line) :].splitlines()[-1]
    with attempt.path.open("ab") as file:
        file.write((one_step + b"\n") * 60_000)
    write(attempt, Evaluated(2, 0.9, 0.5, True, 0.1), Saved(2, "step-2", True))
    write(attempt, Sampled(2, ANSWERS, 0.1), *map(step, range(3, 50)))
    assert attempt.path.stat().st_size > 6_000_000
    parsed = []
    real = studio.jobs.progress.from_json
    monkeypatch.setattr(
        studio.jobs.progress, "from_json", lambda line: parsed.append(line) or real(line)
    )
    found = read_progress(queue, job)
    assert (found.step, found.validation_loss, found.samples) == (49, 0.9, ANSWERS)
    assert found.notices == ("first words", "early")
    assert len(parsed) < 60
    times = []
    for _ in range(20):
        before = time.perf_counter()
        read_progress(queue, job)
        times.append(time.perf_counter() - before)
    assert min(times) < 0.01


def test_a_real_run_with_samples_and_epochs(home: Home) -> None:
    queue = Queue(home)
    job = start(home, plan_of(home))
    wait_for(job, has(Sampled))
    assert wait_until_over(home, job).state == "finished"
    found = read_progress(queue, job)
    assert found.epoch == 2.0 and found.best_step and found.validation_loss
    assert len(found.samples) == 3 and len({one.expected for one in found.samples}) > 1
    assert not math.isclose(found.elapsed_seconds, 0)
    with working_here():
        behind = start(home, plan_of(home), num_samples=0)
    silent = read_progress(queue, behind)
    assert silent.samples == () and silent.sampled_step is None
    assert dataclasses.replace(silent, elapsed_seconds=0).validation_loss == found.validation_loss


def test_a_real_run_that_is_stopped_in_between(home: Home) -> None:
    queue = Queue(home)
    job = start(home, long_plan(home))
    wait_for(job, has(Evaluated, Sampled))
    found = read_progress(queue, job)
    assert found.state == "running" and found.memory_bytes > 50_000_000
    assert found.eta_low_seconds <= found.eta_high_seconds and found.elapsed_seconds > 0
    queue.stop(job)
    assert wait_until_over(home, job).state == "stopped"
    assert read_progress(queue, job).eta_low_seconds is None


def test_a_run_whose_examples_cannot_be_answered_trains_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One label is longer than the context: its rows are left out, and nothing can be scored."""
    home = Home(tmp_path / "home")
    monkeypatch.setenv("STUDIO_HOME", str(home.root))
    base = save_tiny(tmp_path / "base", "llama")
    labels = ("billing", "shipping", "long " * 60)
    rows = [f"ticket {number} of {number * 7},{labels[number % 3]}\n" for number in range(60)]
    table = tmp_path / "table.csv"
    table.write_text("text,label\n" + "".join(rows))
    task = ("--task", "classification", "--input", "text", "--label", "label")
    with working_here():
        for arguments in (
            ("upload", table),
            ("prepare", "--base", base, *task),
            ("plan", "--base", base, "-o", "rank=4", "-o", "epochs=1", "-o", "too_long=drop"),
        ):
            result = CliRunner().invoke(app, [str(argument) for argument in arguments])
            assert result.exit_code == 0, result.stderr
        queue, job = Queue(home), start(home, plan_of(home))
    assert job.status().state == "finished"
    found = read_progress(queue, job)
    assert found.samples == () and found.validation_loss
    assert any("No answers are shown during training" in words for words in found.notices)
