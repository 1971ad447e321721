from pathlib import Path

import pytest

from engine.jobs import Job, create_job
from studio.home import Home
from studio.runs.about import ABOUT, About, change_about, read_about
from templates.errors import RunError


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return create_job(tmp_path / "jobs" / "train-1", "train", {})


def test_labels_are_kept_and_changed_one_by_one(job: Job) -> None:
    assert read_about(job) == About()
    change_about(job, name="the ../../good one", add_tags=["tickets", "rank 8"])
    change_about(job, note="first line\n\tsecond", add_tags=["best", "tickets"])
    about = change_about(job, remove_tags=["rank  8", "never there"])
    assert (
        about
        == read_about(job)
        == About(name="the ../../good one", tags=("tickets", "best"), note="first line\n\tsecond")
    )
    assert sorted(path.name for path in job.folder.iterdir()) == [ABOUT, "request.json"]
    assert change_about(job, name="").name == ""


def test_what_cannot_be_seen_is_dropped(job: Job) -> None:
    about = change_about(
        job, name=" a\x1b[31m\tb\n\u202ec\ud800 ", add_tags=["x\x00\n y"], note="\x07one\r\ntwo\x9b"
    )
    assert about == About(name="a[31m b c", tags=("x y",), note="one\ntwo")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"name": "n" * 101}, "The name has at most 100 characters; this one is longer"),
        ({"note": "n" * 10_001}, "The note has at most 10,000 characters; this one is longer"),
        ({"add_tags": ["t" * 31]}, "A tag has at most 30 characters; this one is longer"),
        ({"add_tags": [" \x00"]}, "A tag is empty"),
        ({"add_tags": [f"t{n}" for n in range(21)]}, "A job has at most 20 tags"),
    ],
)
def test_too_much_is_refused_and_changes_nothing(job: Job, change: dict, sentence: str) -> None:
    before = change_about(job, name="n" * 100, add_tags=["t" * 30], note="n" * 10_000)
    with pytest.raises(RunError) as caught:
        change_about(job, **change)
    assert str(caught.value) == f"{sentence} (train-1). Shorten it, or leave it out."
    assert read_about(job) == before


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff", b"{", b"[]", b"[" * 100_000, b'{"name": 3}', b'{"colour": "red"}',
     b'{"name": "' + b"n" * 101 + b'"}'],
    ids=lambda content: content[:12],
)  # fmt: skip
def test_damaged_labels_are_none(job: Job, content: bytes) -> None:
    (job.folder / ABOUT).write_bytes(content)
    assert read_about(job) == About()
    assert change_about(job, name="again").name == "again"


def test_a_label_does_not_make_an_old_job_the_latest(tmp_path: Path) -> None:
    home = Home(tmp_path)
    old, new = (create_job(tmp_path / "jobs" / f"train-{n}", "train", {}) for n in (1, 2))
    change_about(old, name="old")
    assert home.find("train", "latest") == new.folder


def test_there_must_be_a_job(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"There is no such run \(train-9\). List them first."):
        change_about(Job(tmp_path / "train-9"), name="x")
