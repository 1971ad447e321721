"""The line of jobs, with a launcher that only notes whom it was told to start."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from engine.attempts import Attempt
from engine.events import Delivered, Failed, Launched, Stopped
from engine.jobs import Job
from engine.liveness import memory_kills, this_process
from studio.home import Home
from studio.jobs.queue import Queue
from studio.jobs.requests import CompareRequest, FetchRequest, PublishRequest, read_request
from templates.errors import RunError
from tests.faults import fault


@dataclass
class Started:
    """Stands in for workers: an attempt that says it is this very process, and runs."""

    jobs: list[str] = field(default_factory=list)
    orders: dict[str, tuple[int, str]] = field(default_factory=dict)
    attempts: dict[str, Attempt] = field(default_factory=dict)

    def __call__(self, home: Path, job: Job, *, until_step: int = 0, token: str = "") -> None:
        self.jobs.append(job.id)
        self.orders[job.id] = (until_step, token)
        me = this_process()
        attempt = self.attempts[job.id] = job.start_attempt()
        attempt.write(Launched(me.pid, me.started, me.boot_id, memory_kills()))

    def end(self, job: Job, event: object = None) -> None:
        self.attempts[job.id].write(event or Delivered((), 1.0, 1))
        self.attempts[job.id].close()


@pytest.fixture
def started() -> Started:
    return Started()


@pytest.fixture
def queue(tmp_path: Path, started: Started) -> Queue:
    return Queue(Home(tmp_path), launch=started)


def compare(run: str = "train-1") -> CompareRequest:
    return CompareRequest(run_id=run)


def test_first_in_first_out_one_at_a_time(queue: Queue, started: Started) -> None:
    first, second, third = (queue.submit(compare(f"train-{number}")) for number in range(3))
    assert [queue.state(job) for job in (first, second)] == ["queued", "queued"]
    queue.advance()
    queue.advance()
    assert started.jobs == [first.id] and queue.state(first) == "running"
    assert queue.waiting() == [second.id, third.id]
    started.end(first)
    queue.advance()
    assert started.jobs == [first.id, second.id] and queue.state(first) == "finished"


def test_lanes_do_not_wait_for_each_other(queue: Queue, started: Started) -> None:
    slow, behind = queue.submit(compare()), queue.submit(compare())
    fetch = queue.submit(FetchRequest(base="org/name"), token="secret")
    queue.advance()
    assert started.jobs == [slow.id, fetch.id] and queue.waiting() == [behind.id]
    assert started.orders[fetch.id] == (0, "secret")


def test_a_token_is_in_no_file(queue: Queue, tmp_path: Path) -> None:
    queue.submit(FetchRequest(base="org/name"), token="hf_very_secret")
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or b"hf_very_secret" not in path.read_bytes(), path


def test_the_order_can_be_changed(queue: Queue, started: Started) -> None:
    jobs = [queue.submit(compare()) for _ in range(3)]
    queue.move(jobs[2], 1)
    assert queue.waiting() == [jobs[2].id, jobs[0].id, jobs[1].id]
    queue.move(jobs[2], 99)
    assert queue.waiting()[-1] == jobs[2].id
    queue.advance()
    with pytest.raises(RunError, match="Only a waiting job can change its place"):
        queue.move(jobs[0], 1)


def test_a_waiting_job_can_be_taken_out_and_put_back(queue: Queue, started: Started) -> None:
    first, second = queue.submit(compare()), queue.submit(compare())
    queue.stop(first)
    assert queue.state(first) == "stopped"
    queue.advance()
    assert started.jobs == [second.id]
    queue.resume(first)
    assert queue.waiting() == [first.id]
    with pytest.raises(RunError, match="already queued"):
        queue.resume(first)
    with pytest.raises(RunError, match="already running"):
        queue.resume(second)
    started.end(second)
    with pytest.raises(RunError, match=r"already finished.*Duplicate"):
        queue.resume(second)


def test_only_what_failed_is_tried_again(queue: Queue, started: Started) -> None:
    job = queue.submit(compare())
    queue.advance()
    started.end(job, Stopped(0))
    queue.advance()
    with pytest.raises(RunError, match=r"this one is stopped.*Resume it"):
        queue.retry(job)
    queue.resume(job, until_step=7)
    queue.advance()
    assert started.orders[job.id] == (7, "")
    started.end(job, Failed("The disk is full", "Free some space"))
    queue.retry(job)
    assert queue.waiting() == [job.id]


@fault(10, "A double click: the same wish at the same time", "One job; both get its id")
def test_the_same_key_gives_one_job(tmp_path: Path, started: Started) -> None:
    def click(_: int) -> str:
        return Queue(Home(tmp_path), launch=started).submit(compare(), key="form 7").id

    with ThreadPoolExecutor(8) as threads:
        ids = set(threads.map(click, range(16)))
    queue = Queue(Home(tmp_path), launch=started)
    assert len(ids) == 1 and queue.waiting() == list(ids)
    assert queue.submit(compare(), key="form 8").id not in ids


def test_two_processes_advancing_start_a_job_once(tmp_path: Path, started: Started) -> None:
    queue = Queue(Home(tmp_path), launch=started)
    job = queue.submit(compare())

    def advance(_: int) -> None:
        Queue(Home(tmp_path), launch=started).advance()

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(advance, range(32)))
    assert started.jobs == [job.id]


@fault(17, "The line's file is damaged or half written", "It is made anew from the job folders")
@pytest.mark.parametrize("damage", ["", '{"waiting": [', '{"waiting": 7}', "\x00\xff"])
def test_a_damaged_line_is_made_anew(queue: Queue, tmp_path: Path, damage: str) -> None:
    jobs = [queue.submit(compare()) for _ in range(3)]
    queue.advance()
    (tmp_path / "queue.json").write_text(damage)
    assert queue.waiting() == [job.id for job in jobs[1:]]
    assert queue.state(jobs[0]) == "running"


def test_a_job_that_was_deleted_leaves_the_line(queue: Queue, started: Started) -> None:
    first, second = queue.submit(compare()), queue.submit(compare())
    first.folder.rename(first.folder.with_name("gone"))
    queue.advance()
    assert started.jobs == [second.id] and queue.waiting() == []


def test_a_kill_between_start_and_note_starts_nothing_twice(
    queue: Queue, started: Started, tmp_path: Path
) -> None:
    job, behind = queue.submit(compare()), queue.submit(compare())
    before = (tmp_path / "queue.json").read_text()
    queue.advance()
    (tmp_path / "queue.json").write_text(before)  # as if killed before it was written
    queue.advance()
    assert started.jobs[0] == job.id and job.id not in started.jobs[1:]
    assert json.loads((tmp_path / "queue.json").read_text())["running"], "it is known again"
    del behind


@fault(17, "The studio's folder may not be written", "One sentence; nothing half made")
def test_a_read_only_home_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jobs").write_text("a file where a folder must be")
    with pytest.raises(RunError, match="no place to write"):
        Queue(Home(tmp_path)).submit(compare())


def test_requests_survive_the_folder(queue: Queue) -> None:
    wish = PublishRequest(run_id="train-1", name="Mine", zipped=True)
    assert read_request(queue.submit(wish)) == wish


def test_a_token_is_waited_for_while_its_holder_lives(tmp_path: Path, started: Started) -> None:
    holder = Queue(Home(tmp_path), launch=started)
    job = holder.submit(FetchRequest(base="org/name"), token="secret")
    other = Queue(Home(tmp_path), launch=started)
    other.advance()
    assert started.jobs == [], "who moves the line has no token for it"
    holder.advance()
    assert started.orders[job.id] == (0, "secret")


def test_a_token_whose_holder_is_dead_is_not_waited_for(tmp_path: Path, started: Started) -> None:
    queue = Queue(Home(tmp_path), launch=started)
    job = queue.submit(FetchRequest(base="org/name"), token="secret")
    line = (tmp_path / "queue.json").read_text()
    (tmp_path / "queue.json").write_text(line.replace(f'"pid": {this_process().pid}', '"pid": 1'))
    Queue(Home(tmp_path), launch=started).advance()
    assert started.orders[job.id] == (0, "")


def test_one_that_cannot_be_started_does_not_hold_up_the_others(
    tmp_path: Path, started: Started
) -> None:
    def launch(home: Path, job: Job, *, until_step: int = 0, token: str = "") -> None:
        if job.id == bad.id:
            raise OSError(24, "Too many open files")
        started(home, job, until_step=until_step, token=token)

    queue = Queue(Home(tmp_path), launch=launch)
    bad, good = queue.submit(compare()), queue.submit(compare())
    queue.advance()
    assert queue.state(bad) == "failed" and "Too many open files" in bad.status().what
    assert started.jobs == [good.id]


@fault(
    4, "The disk is full when the next job's turn comes", "Nothing is started until there is room"
)
def test_a_full_disk_starts_nothing(
    tmp_path: Path, started: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = Queue(Home(tmp_path), launch=started)
    job = queue.submit(compare())

    def full(path: Path, content: str) -> None:
        raise RunError("The disk is full", fix="Free some space")

    with monkeypatch.context() as patch:
        patch.setattr("studio.jobs.queue.write_atomically", full)
        for _ in range(3):
            with pytest.raises(RunError, match="disk is full"):
                queue.advance()
    assert started.jobs == [] and not (job.folder / "attempts").exists()
    queue.advance()
    assert started.jobs == [job.id]


def test_killed_between_key_and_line_the_second_click_puts_it_there(
    tmp_path: Path, queue: Queue
) -> None:
    before = '{"waiting": [], "running": []}'
    job = queue.submit(compare(), key="form 7")
    (tmp_path / "queue.json").write_text(before)
    assert queue.submit(compare(), key="form 7") == job
    assert queue.waiting() == [job.id]


def test_a_stray_file_among_the_attempts_harms_nothing(queue: Queue, started: Started) -> None:
    job = queue.submit(compare())
    (job.folder / "attempts").mkdir()
    (job.folder / "attempts" / ".DS_Store").write_text("?")
    (job.folder / "attempts" / "copy").mkdir()
    (job.folder / "attempts" / "copy" / "events.jsonl").write_text("")
    queue.advance()
    assert queue.state(job) == "running"
    started.end(job)
    assert queue.state(job) == "finished"


def test_a_job_that_is_being_archived_is_not_resumed(queue: Queue) -> None:
    job = queue.submit(compare())
    queue.stop(job)
    with job.lock(), pytest.raises(RunError, match="Another process is working on this job"):
        queue.resume(job)


def test_a_token_is_forgotten_with_its_job(queue: Queue, started: Started, tmp_path: Path) -> None:
    fetch = FetchRequest(base="org/name")
    first, second = (queue.submit(fetch, token=f"secret-{n}") for n in range(2))
    queue.stop(first)
    Queue(Home(tmp_path), launch=started).stop(second)  # as another process does
    queue.advance()
    queue.resume(first)
    queue.resume(second)
    queue.advance()
    started.end(first)
    queue.advance()
    assert {started.orders[job.id] for job in (first, second)} == {(0, "")}


def test_a_second_submission_brings_its_token(
    queue: Queue, started: Started, tmp_path: Path
) -> None:
    fetch = FetchRequest(base="org/name")
    killed = Queue(Home(tmp_path), launch=started)
    first = killed.submit(fetch, key="wish", token="lost")
    (tmp_path / "queue.json").unlink()  # as a kill before its entry leaves it
    again = Queue(Home(tmp_path), launch=started)
    assert again.submit(fetch, key="wish", token="secret") == first
    queue.advance()
    assert started.jobs == [], "its holder is waited for"
    again.advance()
    assert started.orders == {first.id: (0, "secret")}
