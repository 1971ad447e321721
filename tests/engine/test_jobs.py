import json
from pathlib import Path

import pytest

from engine.events import (
    Evaluated,
    Failed,
    Finished,
    Launched,
    Saved,
    Started,
    Stepped,
    Stopped,
)
from engine.job_status import JobStatus
from engine.jobs import Job, create_job
from engine.liveness import boot_id, memory_kills
from templates.errors import RunError


def started(first_step: int) -> Started:
    return Started(10, first_step, 5, 50, ("a notice",))


def stepped(step: int) -> Stepped:
    return Stepped(step, 1.0, 0.1, 2.0, 30, 0.01)


def test_request_is_written_once_and_read_by_kind(tmp_path: Path) -> None:
    job = create_job(tmp_path / "train-1", "train", {"plan": {"seed": 1}})
    assert job.request("train") == {"plan": {"seed": 1}}
    with pytest.raises(RunError, match="a train job, not a compare job"):
        job.request("compare")
    with pytest.raises(RunError, match="no such run"):
        Job(tmp_path / "nothing").request("train")
    with pytest.raises(AssertionError, match="ids are new"):
        create_job(tmp_path / "train-1", "train", {})


def test_a_resumed_story_drops_steps_taken_twice(tmp_path: Path) -> None:
    job = create_job(tmp_path / "train-1", "train", {})
    assert job.status() == JobStatus("new")
    first = job.start_attempt()
    for event in (started(1), stepped(1), Saved(1, "step-1", True), stepped(2), stepped(3)):
        first.write(event)
    assert job.status().state == "interrupted"
    second = job.start_attempt()
    for event in (started(2), stepped(2), Evaluated(2, 0.5, 0.9, True, 0.1)):
        second.write(event)
    second.write(Finished(2, 2, 0.5, "all steps taken", 1.0, 1))
    steps = [event.step for event in job.events() if isinstance(event, Stepped)]
    assert steps == [1, 2]
    assert job.events()[0] == started(1)
    assert job.status().state == "finished"


def test_a_torn_last_line_is_dropped(tmp_path: Path) -> None:
    job = create_job(tmp_path / "train-1", "train", {})
    attempt = job.start_attempt()
    attempt.write(started(1))
    with attempt.path.open("a") as file:
        file.write('{"event": "Stepped", "st')
    assert job.events() == [started(1)]


@pytest.mark.parametrize(
    ("event", "state"), [(Stopped(3), "stopped"), (Failed("what", "fix"), "failed")]
)
def test_the_last_event_decides_the_state(tmp_path: Path, event: Stopped, state: str) -> None:
    job = create_job(tmp_path / "train-1", "train", {})
    job.start_attempt().write(event)
    assert job.status().state == state


def test_events_carry_their_time(tmp_path: Path) -> None:
    job = create_job(tmp_path / "train-1", "train", {})
    attempt = job.start_attempt()
    attempt.write(stepped(1))
    line = json.loads(attempt.path.read_text())
    assert line["event"] == "Stepped" and line["at"] > 1_600_000_000


def test_killed_before_its_first_event_a_run_can_begin_again(tmp_path: Path) -> None:
    job = create_job(tmp_path / "train-1", "train", {})
    job.start_attempt()  # nothing is written
    again = job.start_attempt()
    assert again.path.parent.name == "2"
    again.write(started(1))
    assert job.status().state == "interrupted"


def test_a_resume_that_fails_at_once_does_not_erase_the_story(tmp_path: Path) -> None:
    job = create_job(tmp_path / "train-1", "train", {})
    first = job.start_attempt()
    for event in (started(1), stepped(1), Saved(1, "step-1", True)):
        first.write(event)
    job.start_attempt().write(Failed("The base model's files changed", "Plan again"))
    assert stepped(1) in job.events() and job.status().state == "failed"
    first.write(Finished(1, 1, 0.5, "all steps taken", 1.0, 1))
    assert job.status().state == "finished"


def test_two_processes_cannot_train_the_same_run(tmp_path: Path) -> None:
    job = create_job(tmp_path / "train-1", "train", {})
    with job.lock():
        with pytest.raises(RunError, match=r"Another process is working.*train-1.*Wait until"):
            with Job(tmp_path / "train-1").lock():
                pass
    with job.lock():
        pass


def test_a_folder_without_a_request_is_never_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("engine.jobs.write_atomically", full)
    with pytest.raises(RunError, match="disk is full"):
        create_job(tmp_path / "train-1", "train", {})
    assert not list(tmp_path.glob("train-*"))


def test_the_first_last_word_counts(tmp_path: Path) -> None:
    job = create_job(tmp_path / "train-1", "train", {})
    attempt = job.start_attempt()
    attempt.write(started(1))
    assert not attempt.has_ended
    attempt.write(Finished(1, 1, 0.5, "all steps taken", 1.0, 1))
    assert attempt.has_ended
    attempt.write(Stopped(1))
    attempt.close()
    assert job.status().state == "finished" and job.status().best_loss == 0.5


def test_a_word_that_no_encoding_knows_is_still_written(tmp_path: Path) -> None:
    job = create_job(tmp_path / "train-1", "train", {})
    job.start_attempt().write(Failed("The file \udcff is gone", "Bring it back"))
    assert job.status().state == "failed" and "is gone" in job.status().what


def test_of_a_long_run_steps_are_left_out_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = create_job(tmp_path / "train-1", "train", {})
    attempt = job.start_attempt()
    attempt.write(started(1))
    for step in range(1, 5001):
        attempt.write(stepped(step))
        if step % 1000 == 0:
            attempt.write(Evaluated(step, 0.5, 0.9, True, 0.1))
    events = job.events()
    steps = [event.step for event in events if isinstance(event, Stepped)]
    assert steps[:2000] == list(range(1, 2001)) and len(steps) < 2100
    assert [e.step for e in events if isinstance(e, Evaluated)] == [1000, 2000, 3000, 4000, 5000]


def test_ended_on_request_it_says_so(tmp_path: Path) -> None:
    job = create_job(tmp_path / "train-1", "train", {})
    job.start_attempt().write(Launched(1, 1, boot_id(), memory_kills()))
    assert "ended from outside" in job.status().what
    job.record_death(on_request=True)
    assert job.status().state == "interrupted" and "as asked" in job.status().what
