from pathlib import Path

import pytest

from engine.events import Evaluated, Event, Launched, Sample, Sampled, Saved, Started, Stepped
from engine.jobs import Job, create_job
from studio.jobs.run_story import RunStories

_START: tuple[Event, ...] = (Launched(1, 1, "boot", 0), Started(20, 1, 4, 100))
_FIRST = (Sample("Where is it?", "shipping", "billing", (3,)),)
_LATER = (Sample("Where is it?", "shipping", "shipping", (3,)),)


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return create_job(tmp_path / "train-1", "train", {})


def write(job: Job, *events: Event) -> Path:
    attempt = job.start_attempt()
    for event in events:
        attempt.write(event)
    attempt.close()
    return attempt.path


def test_a_story_has_everything_but_steps_and_the_first_answers(job: Job) -> None:
    step, checked = Stepped(1, 2.0, 0.1, 1.0, 8, 0.1), Evaluated(1, 1.5, 0.5, True, 0.1)
    write(job, *_START, Sampled(0, _FIRST, 0.1), step, checked, Sampled(1, _LATER, 0.1))

    story = RunStories().of(job)

    assert [stamped.event for stamped in story.events] == [*_START, checked]
    assert story.first_samples == _FIRST


def test_what_was_added_is_read_and_a_torn_line_waits_for_its_end(job: Job) -> None:
    stories = RunStories()
    path = write(job, *_START)
    before = stories.of(job)
    assert stories.of(job) is before  # nothing new: charts and logs drawn from it stay valid
    line = b'{"event":"Saved","at":1,"monotonic_seconds":1,"step":5,"folder":"x","is_best":true}\n'

    with path.open("ab") as file:
        file.write(line[:30])
    assert stories.of(job) == before
    with path.open("ab") as file:
        file.write(line[30:] + b"not an event\n")

    assert stories.of(job).events[-1].event == Saved(5, "x", True)
    assert len(stories.of(job).events) == 3


def test_a_later_attempt_goes_on_with_the_story(job: Job) -> None:
    stories = RunStories()
    write(job, *_START, Sampled(0, _FIRST, 0.1))
    stories.of(job)
    write(job, Launched(2, 2, "boot", 0))

    assert isinstance(stories.of(job).events[-1].event, Launched)
    assert stories.of(job).first_samples == _FIRST


def test_a_folder_made_anew_is_read_anew(job: Job) -> None:
    stories = RunStories()
    write(job, *_START)
    path = write(job, *_START)
    assert len(stories.of(job).events) == 4
    path.unlink()

    assert len(stories.of(job).events) == 2


def test_a_run_that_never_began_has_no_story(job: Job) -> None:
    assert RunStories().of(job).events == ()
