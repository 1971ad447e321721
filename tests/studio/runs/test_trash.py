from pathlib import Path

import pytest

from engine.jobs import Job, create_job
from studio.home import Home
from studio.jobs.queue import Queue
from studio.runs.trash import delete_job, empty_trash, list_trash, restore_job
from templates.errors import RunError
from tests.studio.runs.conftest import go_on


@pytest.fixture
def empty_home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def make(home: Home, name: str, **request: object) -> Job:
    kind = name.partition("-")[0]
    return create_job(home.place(kind) / name, kind, request)


def test_a_deleted_run_comes_back_as_it_was_and_goes_on(home: Home, paused: Job) -> None:
    before = {path: path.read_bytes() for path in paused.folder.rglob("*") if path.is_file()}
    assert delete_job(home, paused) == ()
    assert not paused.folder.exists() and [job.id for job in list_trash(home)] == [paused.id]
    assert paused.id not in [job.id for job in home.jobs()]
    assert list_trash(home)[0].status().state == "stopped"
    restored = restore_job(home, paused.id)
    assert restored == paused and not list_trash(home)
    assert before == {
        path: path.read_bytes() for path in paused.folder.rglob("*") if path.is_file()
    }
    Queue(home).resume(paused)
    Queue(home).stop(paused)
    go_on(home, paused)
    assert paused.status().state == "finished"


def test_what_was_made_from_it_is_named_and_stays(empty_home: Home) -> None:
    run, other = make(empty_home, "train-1"), make(empty_home, "train-2")
    for kind in ("compare", "predict", "publish"):
        make(empty_home, f"{kind}-1", run_id=run.id)
        make(empty_home, f"{kind}-2", run_id=other.id)
    (empty_home.place("sweep") / "sweep-1.json").write_text('{"runs": ["train-1"]}')
    (empty_home.place("sweep") / "sweep-2.json").write_text('{"runs": ["train-10"]}')
    (empty_home.place("compare") / "compare-3").mkdir()  # unreadable
    assert sorted(delete_job(empty_home, run)) == ["compare-1", "predict-1", "publish-1", "sweep-1"]
    assert len(empty_home.jobs()) == 8


def test_a_job_that_waits_is_not_deleted(empty_home: Home, paused: Job, home: Home) -> None:
    Queue(home).resume(paused)
    with pytest.raises(RunError, match="The job waits for its turn"):
        delete_job(home, paused)
    assert paused.folder.is_dir() and not list_trash(home)


def test_a_deleted_job_is_never_started(home: Home, paused: Job) -> None:
    """Resumed by another process between the look at the line and the rename."""
    queue = Queue(home, launch=lambda *arguments, **options: pytest.fail("started"))
    delete_job(home, paused)
    (home.root / "queue.json").write_text(f'{{"waiting": [{{"job": "{paused.id}"}}]}}')
    queue.advance()
    assert queue.waiting() == []


def test_an_unreadable_job_can_be_deleted_but_not_a_missing_one(empty_home: Home) -> None:
    job = make(empty_home, "train-1")
    (job.folder / "request.json").write_bytes(b"")
    delete_job(empty_home, job)
    assert list_trash(empty_home)
    with pytest.raises(RunError) as caught:
        delete_job(empty_home, job)
    assert str(caught.value) == "There is no such job (train-1). List the jobs first."


def test_one_of_the_same_id_is_never_replaced(empty_home: Home) -> None:
    job = make(empty_home, "train-1", seed=1)
    delete_job(empty_home, job)
    make(empty_home, "train-1", seed=2)
    with pytest.raises(RunError) as caught:
        restore_job(empty_home, "train-1")
    assert str(caught.value) == (
        "A job of this id is there already (train-1). "
        "Delete that one first: python app.py jobs delete train-1."
    )
    with pytest.raises(RunError) as caught:
        delete_job(empty_home, job)
    assert str(caught.value) == (
        "Another job of this id is in the trash already (train-1). "
        "Empty the trash first: python app.py jobs trash --empty."
    )
    assert job.request("train") == {"seed": 2}


@pytest.mark.parametrize(
    ("reference", "what"),
    [
        ("train-", "Several jobs in the trash begin with 'train-'"),
        ("../jobs", "There is no job '../jobs' in the trash"),
        ("", "There is no job '' in the trash"),
    ],
)
def test_the_trash_knows_ids_and_beginnings(empty_home: Home, reference: str, what: str) -> None:
    for name in ("train-1a", "train-1b"):
        delete_job(empty_home, make(empty_home, name))
    with pytest.raises(RunError) as caught:
        restore_job(empty_home, reference)
    assert str(caught.value) == f"{what}. Give one of these ids: train-1a, train-1b."
    assert restore_job(empty_home, "train-1a").id == "train-1a"
    assert restore_job(empty_home, "train-1").id == "train-1b"
    with pytest.raises(RunError) as caught:
        restore_job(empty_home, "x")
    assert str(caught.value) == "There is no job 'x' in the trash. The trash is empty."


def test_emptying_removes_only_what_is_in_the_trash(empty_home: Home, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_bytes(b"x" * 99)
    job, linked = make(empty_home, "train-1"), empty_home.place("train") / "train-2"
    (job.folder / "data").write_bytes(b"x" * 1000)
    (job.folder / "link").symlink_to(outside)
    delete_job(empty_home, job)
    trash = empty_home.root / "trash"
    linked.symlink_to(outside)
    linked.rename(trash / "train-2")
    (trash / ".train-0.deleting").mkdir()  # half gone when somebody was killed
    (trash / ".train-0.deleting" / "rest").write_bytes(b"x" * 10)
    (trash / "stray").write_bytes(b"")
    assert 1010 <= empty_trash(empty_home) < 2000
    assert list(trash.iterdir()) == [] and (outside / "precious").is_file()
    assert empty_trash(empty_home) == 0


def test_a_trash_that_is_a_link_is_not_emptied(empty_home: Home, tmp_path: Path) -> None:
    outside = tmp_path / "documents"
    outside.mkdir()
    (outside / "precious").write_bytes(b"x")
    empty_home.root.mkdir()
    (empty_home.root / "trash").symlink_to(outside)
    with pytest.raises(RunError) as caught:
        empty_trash(empty_home)
    assert str(caught.value) == (
        "The trash is a link to another place, where nothing may be deleted "
        f"({empty_home.root / 'trash'}). Remove the link."
    )
    assert (outside / "precious").is_file()
