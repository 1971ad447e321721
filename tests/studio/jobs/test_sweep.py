"""Sweeps: what is promoted, dropped and kept, whoever is killed; then the same with workers."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engine.events import Evaluated, Failed, Finished, Launched, Started, Stepped, Stopped
from engine.jobs import Job
from engine.plan import BaseChoice, MethodChoice, Schedule, TrainPlan
from engine.planning.estimate import CostEstimate, MemoryParts
from studio.home import Home
from studio.jobs import queue as queue_module
from studio.jobs import sweeping
from studio.jobs.halving import Halving
from studio.jobs.queue import Queue
from studio.jobs.requests import TrainRequest
from studio.jobs.sweep import Sweep, read_sweep
from studio.jobs.sweep_table import SweepTable, sweep_table
from studio.jobs.sweeping import resume_sweep, start_sweep, stop_sweep
from studio.records import keep_estimate
from studio.verbs import app
from templates.errors import PlanError, RunError
from tests.studio.jobs.running import (
    copy_home,
    learned_of,
    wait_for,
    wait_until_over,
    with_workers_at_once,
    working_here,
)

ROOT = Path(__file__).parents[3]
HALVING = Halving(eta=2, num_rungs=2)
TOTAL, BETWEEN = 12, 3
# What the members' validation losses level off at: the third is the best, then the first.
LEVELS = (2.0, 3.0, 1.0, 4.0)


class Killed(BaseException):
    """Stands in for the end of a process, at any line."""


@dataclass
class Trainer:
    """Stands in for workers: trains at once, along a curve that the member's seed fixes."""

    home: Home
    levels: tuple[float, ...] = LEVELS
    killed: set[int] = field(default_factory=set)
    starts: list[tuple[int, int]] = field(default_factory=list)

    def __call__(self, home: Path, job: Job, *, until_step: int = 0, token: str = "") -> None:
        seed = int(job.request("train")["plan"]["seed"])
        self.starts.append((seed, until_step))
        begin = max((e.step for e in job.events() if isinstance(e, Evaluated)), default=0)
        attempt = job.start_attempt()
        attempt.write(Launched(2**22 + 1, 1, "another boot", 0, until_step=until_step))
        attempt.write(Started(TOTAL, begin + 1, 5, 50))
        for step in range(begin + 1, (until_step or TOTAL) + 1):
            attempt.write(Stepped(step, 1.0, 0.1, 1.0, 10, 0.1))
            if seed in self.killed:
                self.killed.remove(seed)
                return
            if step % BETWEEN == 0:
                attempt.write(Evaluated(step, self._loss(seed, step), 0.5, True, 0.1))
            if self.levels[seed] > 100 and step == TOTAL - 1:
                attempt.write(Failed("The loss is no longer a number", "Lower the rate"))
                return
        if until_step in (0, TOTAL):
            attempt.write(Finished(TOTAL, TOTAL, self._loss(seed, TOTAL), "all steps", 1.0, 1))
        else:
            attempt.write(Stopped(until_step, self._loss(seed, until_step)))

    def _loss(self, seed: int, step: int) -> float:
        return self.levels[seed] % 100 + 1 / step


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture
def trainer(home: Home) -> Trainer:
    return Trainer(home)


@pytest.fixture
def queue(home: Home, trainer: Trainer) -> Queue:
    return Queue(home, launch=trainer)


def request_of(home: Home, seed: int, *, estimated: bool = True) -> TrainRequest:
    plan = TrainPlan(
        base=BaseChoice(id="starter"), dataset_id="ds-1", dataset_sha256="0",
        method=MethodChoice(name="lora"), seed=seed,
        schedule=Schedule(learning_rate=0.1, epochs=4, batch_size=4, evaluations_per_epoch=1),
    )  # fmt: skip
    memory = MemoryParts(**{name: 1 for name in MemoryParts.model_fields})
    estimate = CostEstimate(
        num_parameters=50, num_trainable=5, memory=memory, memory_available_bytes=100,
        adapter_bytes=1, num_examples=12, longest_tokens=9, epoch_tokens=9,
        epoch_supervised_tokens=9, num_steps=TOTAL, flops=1.0, low_seconds=1.0, high_seconds=2.0,
    )  # fmt: skip
    if estimated:
        keep_estimate(home, plan, estimate)
    return TrainRequest(plan=plan)


def begin(queue: Queue, home: Home, halving: Halving | None = HALVING) -> Sweep:
    plans = [({"seed": seed}, request_of(home, seed)) for seed in range(4)]
    return start_sweep(queue, home, plans, halving, name="four seeds")


def advance_until_still(queue: Queue) -> None:
    for _ in range(30):
        before = queue.line()
        queue.advance()
        if queue.line() == before and not before.waiting and not before.running:
            return
    raise AssertionError(queue.line())


def states(table: SweepTable) -> list[str]:
    return [row.state for row in table.rows]


def test_the_better_half_goes_on_at_each_rung(queue: Queue, home: Home, trainer: Trainer) -> None:
    sweep = begin(queue, home)
    assert [member.rungs for member in sweep.members] == [(3, 6)] * 4
    advance_until_still(queue)
    assert trainer.starts == [(0, 3), (1, 3), (2, 3), (3, 3), (0, 6), (2, 6), (2, 0)]
    table = sweep_table(queue, home, sweep)
    assert states(table) == ["dropped", "dropped", "finished", "dropped"]
    assert [row.dropped_at for row in table.rows] == [2, 1, 0, 1]
    assert [row.rank for row in table.rows] == [2, 3, 1, 4]
    assert [row.step for row in table.rows] == [6, 3, 12, 3]
    assert table.rows[2].best_loss == pytest.approx(1 + 1 / 12, abs=1e-4)
    assert table.winner == sweep.members[2].job and table.is_over
    assert queue.line().sweeps == (), "looked at no more"
    assert read_sweep(home.find("sweep", "latest")) == sweep


def test_without_halving_all_train_to_the_end(queue: Queue, home: Home, trainer: Trainer) -> None:
    sweep = begin(queue, home, None)
    advance_until_still(queue)
    assert trainer.starts == [(seed, 0) for seed in range(4)]
    table = sweep_table(queue, home, sweep)
    assert states(table) == ["finished"] * 4 and table.winner == sweep.members[2].job
    assert [row.rank for row in table.rows] == [2, 3, 1, 4]


@pytest.mark.parametrize("where", ["_save", "_launch"])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("when", range(1, 12, 2))
def test_whoever_is_killed_while_moving_on_the_next_goes_on(
    queue: Queue,
    home: Home,
    trainer: Trainer,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    after: bool,
    when: int,
) -> None:
    sweep = begin(queue, home)
    calls = 0
    original = getattr(queue, where)

    def fatal(*arguments: object, **options: object) -> None:
        nonlocal calls
        calls += 1
        if calls == when and not after:
            raise Killed
        original(*arguments, **options)
        if calls == when:
            raise Killed

    monkeypatch.setattr(queue, where, fatal)
    try:
        advance_until_still(queue)
    except Killed:
        advance_until_still(Queue(home, launch=trainer))
    table = sweep_table(queue, home, sweep)
    assert states(table) == ["dropped", "dropped", "finished", "dropped"]
    assert [row.step for row in table.rows] == [6, 3, 12, 3]


@pytest.mark.parametrize("when", range(1, 7))
def test_killed_while_starting_nothing_is_begun(
    queue: Queue, home: Home, trainer: Trainer, monkeypatch: pytest.MonkeyPatch, when: int
) -> None:
    calls = 0

    def fatal(original: object) -> object:
        def counted(*arguments: object, **options: object) -> object:
            nonlocal calls
            calls += 1
            if calls == when:
                raise Killed
            return original(*arguments, **options)  # type: ignore[operator]

        return counted

    for name in ("write_atomically", "create_job"):
        monkeypatch.setattr(sweeping, name, fatal(getattr(sweeping, name)))
    monkeypatch.setattr(queue_module, "write_atomically", fatal(queue_module.write_atomically))
    with pytest.raises(Killed):
        begin(queue, home)
    advance_until_still(Queue(home, launch=trainer))
    assert trainer.starts == []
    for path in home.all("sweep"):
        table = sweep_table(queue, home, read_sweep(path))
        assert set(states(table)) <= {"stopped", "deleted"} and not table.winner


def test_who_diverges_gives_its_place_to_the_next(
    queue: Queue, home: Home, trainer: Trainer
) -> None:
    trainer.levels = (2.0, 3.0, 101.0, 4.0)
    sweep = begin(queue, home)
    advance_until_still(queue)
    table = sweep_table(queue, home, sweep)
    assert states(table) == ["finished", "dropped", "failed", "dropped"]
    assert table.winner == sweep.members[0].job
    assert table.rows[2].rank == 0 and "no longer a number" in table.rows[2].what


def test_an_interrupted_member_is_waited_for_until_it_is_resumed(
    queue: Queue, home: Home, trainer: Trainer
) -> None:
    trainer.killed = {1}
    sweep = begin(queue, home)
    advance_until_still(queue)
    table = sweep_table(queue, home, sweep)
    assert states(table) == ["paused", "interrupted", "paused", "paused"]
    assert not table.is_over and "restarted" in table.rows[1].what
    queue.resume(Job(home.place("train") / sweep.members[1].job))
    advance_until_still(queue)
    assert trainer.starts[4] == (1, 3), "as far as its rung, though nobody said so"
    assert sweep_table(queue, home, sweep).winner == sweep.members[2].job


def test_a_member_that_a_person_stops_is_left_out_until_resumed(
    queue: Queue, home: Home, trainer: Trainer
) -> None:
    sweep = begin(queue, home)
    best = Job(home.place("train") / sweep.members[2].job)
    queue.stop(best)
    assert sweep_table(queue, home, sweep).rows[2].state == "stopped"
    advance_until_still(queue)
    table = sweep_table(queue, home, sweep)
    assert table.best_so_far == sweep.members[0].job
    assert not table.is_over and not table.winner, "the one left out may be better"
    queue.resume(best)
    advance_until_still(queue)
    assert trainer.starts[-3:] == [(2, 3), (2, 6), (2, 0)]
    table = sweep_table(queue, home, sweep)
    assert states(table) == ["finished", "dropped", "finished", "dropped"]
    assert table.winner == best.id


def test_a_stopped_promotion_stays_stopped(queue: Queue, home: Home, trainer: Trainer) -> None:
    sweep = begin(queue, home)
    for _ in range(5):
        queue.advance()
    promoted = sweep.members[2].job
    assert queue.waiting() == [promoted] and trainer.starts[-1] == (0, 6)
    queue.stop(Job(home.place("train") / promoted))
    advance_until_still(queue)
    table = sweep_table(queue, home, sweep)
    assert table.rows[2].state == "stopped"
    assert table.best_so_far == sweep.members[0].job, "and its place went to the next"


def test_a_dropped_member_that_a_person_resumes_goes_to_the_end(
    queue: Queue, home: Home, trainer: Trainer
) -> None:
    sweep = begin(queue, home)
    advance_until_still(queue)
    queue.resume(Job(home.place("train") / sweep.members[1].job))
    advance_until_still(queue)
    assert trainer.starts[-1] == (1, 0)
    assert states(sweep_table(queue, home, sweep))[1] == "finished"


@pytest.mark.parametrize("num_advances", range(8))
def test_stopped_as_a_whole_it_rests_and_resumed_it_ends_the_same(
    queue: Queue, home: Home, trainer: Trainer, num_advances: int
) -> None:
    sweep = begin(queue, home)
    for _ in range(num_advances):
        queue.advance()
    stop_sweep(queue, home, sweep)
    num_starts = len(trainer.starts)
    advance_until_still(queue)
    assert len(trainer.starts) == num_starts
    table = sweep_table(queue, home, sweep)
    # After four looks all are at the first rung, after six two are at the second; then one ends.
    assert states(table).count("dropped") == (0, 0, 0, 0, 2, 2, 3, 3)[num_advances]
    assert table.is_over == bool(table.winner) == (num_advances == 7)
    assert table.is_stuck != table.is_over
    resume_sweep(queue, home, sweep)
    resume_sweep(queue, home, sweep)
    advance_until_still(queue)
    table = sweep_table(queue, home, sweep)
    assert states(table) == ["dropped", "dropped", "finished", "dropped"]
    assert [row.step for row in table.rows] == [6, 3, 12, 3]
    assert sorted(trainer.starts) == [(0, 3), (0, 6), (1, 3), (2, 0), (2, 3), (2, 6), (3, 3)]


def test_a_damaged_line_is_made_anew(queue: Queue, home: Home) -> None:
    for num_advances in (0, 4):
        sweep = begin(queue, home)
        for _ in range(num_advances):
            queue.advance()
        (home.root / "queue.json").write_text("{")
        advance_until_still(queue)
        table = sweep_table(queue, home, sweep)
        assert states(table) == ["dropped", "dropped", "finished", "dropped"]


def test_a_deleted_member_or_file_stops_nobody(queue: Queue, home: Home) -> None:
    sweep = begin(queue, home)
    for _ in range(4):
        queue.advance()
    (home.place("train") / sweep.members[2].job).rename(home.root / "gone")
    advance_until_still(queue)
    table = sweep_table(queue, home, sweep)
    assert states(table) == ["finished", "dropped", "deleted", "dropped"]
    again = begin(queue, home)
    home.find("sweep", again.id).write_text("{")
    advance_until_still(queue)
    with pytest.raises(RunError, match="missing or damaged"):
        read_sweep(home.find("sweep", again.id))


def test_what_cannot_be_a_sweep(queue: Queue, home: Home) -> None:
    request = request_of(home, 7)
    with pytest.raises(PlanError, match="between 1 and 64 members, and this one has 65"):
        start_sweep(queue, home, [({}, request)] * 65)
    with pytest.raises(PlanError, match="this one has 0"):
        start_sweep(queue, home, [])
    with pytest.raises(PlanError, match="never estimated"):
        start_sweep(queue, home, [({}, request_of(home, 8, estimated=False))])


# With real workers from here on.


@pytest.fixture
def real(prepared: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Home]:
    real = with_workers_at_once(copy_home(prepared, tmp_path))
    monkeypatch.setenv("STUDIO_HOME", str(real.root))
    yield real


def sweep_verb(prepared: Home, *arguments: str) -> list[str]:
    options = ("rank=4", "dropout=0.2", "batch_size=4", "epochs=4", "evaluations_per_epoch=1")
    base = str(prepared.root.parent / "base")
    rates = [f"--learning-rate={rate}" for rate in ("0.001", "0.01", "0.005", "0.0001")]
    return ["sweep", "--base", base, *rates, *(f"--option={item}" for item in options), *arguments]


@pytest.mark.slow
@pytest.mark.timeout(600)  # 45 s on a quiet machine, 160 s seen on a busy one
def test_with_workers_one_killed_the_winner_has_the_bits_of_a_run_alone(
    real: Home, prepared: Home
) -> None:
    """8 workers: 4 to the first rung and one of them twice, 2 to the second, the winner."""
    begun = CliRunner().invoke(app, [*sweep_verb(prepared, "--halving", "--detach", "--json")])
    assert begun.exit_code == 0, begun.stderr
    sweep = read_sweep(real.find("sweep", json.loads(begun.stdout)["sweep"]))
    queue = Queue(real)
    jobs = [Job(real.place("train") / member.job) for member in sweep.members]
    wait_until_over(real, jobs[0])
    queue.advance()
    wait_for(jobs[1], lambda events: any(isinstance(event, Stepped) for event in events))
    process = jobs[1].status().process
    assert process is not None, "a first rung takes longer than a look"
    os.kill(process.pid, signal.SIGKILL)
    for job in jobs[1:]:
        wait_until_over(real, job)
    queue.advance()
    shown = CliRunner().invoke(app, ["sweep", "--show", sweep.id, "--json"])
    assert json.loads(shown.stdout)["is_over"] is False
    assert [row["state"] for row in json.loads(shown.stdout)["members"]] == [
        "paused", "interrupted", "paused", "paused",
    ]  # fmt: skip
    ended = CliRunner().invoke(app, ["sweep", "--resume", "latest"])
    assert ended.exit_code == 0, ended.stderr
    table = sweep_table(queue, real, sweep)
    winner = Job(real.place("train") / table.winner)
    assert f"Next: python app.py compare {winner.id}" in ended.stdout
    assert "on the test rows" in ended.stdout
    assert sorted(states(table)) == ["dropped", "dropped", "dropped", "finished"]
    for row, member in zip(table.rows, sweep.members, strict=True):
        if row.dropped_at:
            status = Job(real.place("train") / row.job).status()
            assert (status.state, status.step) == ("stopped", member.rungs[row.dropped_at - 1])
    request = winner.request("train")
    alone = queue.submit(TrainRequest(**{**request, "sweep_id": ""}))
    with working_here():
        assert wait_until_over(real, alone).state == "finished"
    assert learned_of(winner) == learned_of(alone) != {}
    left, right = (job.events()[-1] for job in (winner, alone))
    assert isinstance(left, Finished) and isinstance(right, Finished)
    assert (left.best_step, left.best_loss) == (right.best_step, right.best_loss)


@pytest.mark.slow
def test_control_c_stops_all_and_a_blocker_begins_none(real: Home, prepared: Home) -> None:
    refused = CliRunner().invoke(app, sweep_verb(prepared, "-o", "max_length_tokens=1"))
    assert refused.exit_code == 1 and "learning rate 0.001" in refused.stderr
    assert not real.all("sweep") and not real.all("train")
    unknown = CliRunner().invoke(app, sweep_verb(prepared, "-o", "rnak=1"))
    assert "There is no setting called 'rnak'" in unknown.stderr
    many = [f"--seed={number}" for number in range(20)]
    assert "this one has 80" in CliRunner().invoke(app, sweep_verb(prepared, *many)).stderr
    process = subprocess.Popen(
        [sys.executable, "app.py", *sweep_verb(prepared, "-o", "epochs=1000", "-o", "patience=999",
                                               "--learning-rate=0.0010")],
        cwd=ROOT, env=dict(os.environ), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not real.all("sweep") and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    sweep = read_sweep(real.find("sweep", "latest"))
    assert len(sweep.members) == 4, "the same plan is not trained twice"
    first = Job(real.place("train") / sweep.members[0].job)
    wait_for(first, lambda events: any(isinstance(event, Stepped) for event in events))
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert f"python app.py sweep --resume {sweep.id}" in errors
    assert first.status().state == "stopped" and first.status().step > 0
    queue = Queue(real)
    queue.advance()
    assert queue.line().waiting == queue.line().running == ()
    assert states(sweep_table(queue, real, sweep)) == ["stopped"] * 4
