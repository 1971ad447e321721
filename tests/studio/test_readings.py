"""Files on their way into projects, read by the real child."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_prep.table_file import Corrections
from data_prep.upload import load_upload
from engine.events import Delivered, Failed
from studio.home import Home
from studio.jobs.queue import Queue
from studio.jobs.requests import TABLE, DownloadRequest
from studio.projects import Project, Projects
from studio.readings import Readings
from studio.records import DOWNLOADED, Downloaded
from templates.errors import RunError

GOOD, RAGGED = b"text,label\na,x\nb,y\n", b"text,label\na,x\nb;y\n"


class Desk:
    """A home with its readings."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = Home(root / "home")
        self.projects = Projects(self.home)
        self.queue = Queue(self.home)
        self.readings = Readings(self.home, self.projects, self.queue)

    def project(self) -> Project:
        return self.projects.new("tables")

    def file(self, content: bytes, name: str = "table.csv") -> Path:
        path = self.root / name
        path.write_bytes(content)
        return path

    def settled(self, project: Project) -> Project:
        self.readings.wait(project.id, 60)
        assert self.readings.reached(project.id) is None
        return self.projects.read(project.id)

    def uploads(self) -> set[Path]:
        return set(self.home.place("upload").glob("up-*"))

    def left(self) -> list[Path]:
        return list((self.home.root / "incoming").glob("*/*"))


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    desk = Desk(tmp_path_factory.mktemp("desk"))
    yield desk
    desk.readings.close()


def test_a_file_becomes_the_upload_of_its_project(desk: Desk) -> None:
    project, path = desk.project(), desk.file(GOOD)
    desk.readings.take(project.id, path, name="mine.csv")
    after = desk.settled(project)
    upload = load_upload(desk.home.place("upload") / after.upload)
    assert (upload.name, upload.num_rows) == ("mine.csv", 2)
    assert not path.exists() and desk.left() == []
    assert desk.readings.find(project.id) is None


def test_a_sample_stays_where_it_is(desk: Desk) -> None:
    project, path = desk.project(), desk.file(GOOD)
    desk.readings.take(project.id, path, name="mine.csv", keep=True)
    assert desk.settled(project).upload and path.exists()


def test_what_cannot_be_read_stays_with_its_problem_until_it_is_corrected(desk: Desk) -> None:
    project = desk.project()
    desk.readings.take(project.id, desk.file(RAGGED), name="mine.csv")
    assert desk.settled(project).upload == ""
    again = Readings(desk.home, desk.projects, desk.queue)  # as the next server sees it
    incoming = again.find(project.id)
    assert incoming and incoming.problem and "line 3" in incoming.problem.where
    assert again.source(project.id)[0].read_bytes() == RAGGED
    again.close()
    desk.readings.read_again(project.id, Corrections(delimiter="|"))
    after = desk.settled(project)
    assert load_upload(desk.home.place("upload") / after.upload).columns[0].name == "text,label"
    assert desk.readings.find(project.id) is None


def test_an_upload_is_read_again_into_a_new_one(desk: Desk) -> None:
    project = desk.project()
    desk.readings.take(project.id, desk.file(GOOD), name="without an ending.csv")
    before = desk.settled(project).upload
    desk.readings.read_again(project.id, Corrections(has_header=False))
    after = desk.settled(project).upload
    assert after != before
    folders = desk.home.place("upload")
    assert load_upload(folders / after).num_rows == 3
    assert load_upload(folders / before).num_rows == 2
    desk.readings.read_again(project.id, Corrections(encoding="nonsense"))
    assert desk.settled(project).upload == after
    incoming = desk.readings.find(project.id)
    assert incoming and incoming.problem and incoming.upload == after
    desk.readings.discard(project.id)
    assert desk.readings.source(project.id)[0].parent.name == after


def test_a_cancelled_reading_leaves_nothing(desk: Desk) -> None:
    project = desk.project()
    desk.readings.take(project.id, desk.file(GOOD[:11] + b"a,x\n" * 3_000_000), name="long.csv")
    before = set(desk.home.place("upload").iterdir())
    desk.readings.read_again(project.id, Corrections())  # pressed twice: nothing new begins
    desk.readings.cancel(project.id)
    assert desk.settled(project).upload == ""
    assert desk.readings.find(project.id) is None and desk.left() == []
    assert set(desk.home.place("upload").iterdir()) <= before


def test_cancel_after_the_last_row_keeps_the_table_before(desk: Desk) -> None:
    project = desk.project()
    desk.readings.take(project.id, desk.file(GOOD), name="mine.csv")
    table, before = desk.settled(project).upload, desk.uploads()
    with desk.readings._lock:  # the reader has all rows, and stands right before its change
        desk.readings.read_again(project.id, Corrections(has_header=False))
        deadline = time.monotonic() + 60
        while desk.uploads() == before and time.monotonic() < deadline:
            time.sleep(0.01)
        assert desk.uploads() != before
        time.sleep(0.3)  # the result is on its way
        desk.readings.cancel(project.id)
    assert desk.settled(project).upload == table and desk.uploads() == before
    assert desk.readings.find(project.id) is None and desk.left() == []


def test_a_file_that_waits_for_another_is_cancelled_at_once(desk: Desk) -> None:
    first, second = desk.project(), desk.project()
    content = GOOD[:11] + b"a,x\n" * 3_000_000
    desk.readings.take(first.id, desk.file(content), name="long.csv")
    deadline = time.monotonic() + 60
    while (reached := desk.readings.reached(first.id)) and reached.words == "opening the file":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    desk.readings.take(second.id, desk.file(GOOD), name="short.csv")
    time.sleep(0.2)  # it stands in line
    desk.readings.cancel(second.id)
    desk.readings.wait(second.id, 2)
    assert desk.readings.reached(second.id) is None
    assert desk.readings.find(second.id) is None
    assert desk.readings.reached(first.id) is not None, "the other one goes on"
    desk.readings.cancel(first.id)
    assert desk.settled(first).upload == desk.projects.read(second.id).upload == ""


def test_a_project_without_a_file_says_so(desk: Desk) -> None:
    project = desk.project()
    with pytest.raises(RunError, match="no file"):
        desk.readings.read_again(project.id, Corrections())
    with pytest.raises(RunError):
        desk.readings.source("project-../../etc")
    desk.readings.cancel(project.id)
    assert desk.readings.find(project.id) is None


def test_a_download_is_read_once_it_is_here(desk: Desk) -> None:
    project = desk.project()
    job = desk.queue.submit(DownloadRequest(data_set="org/one"))
    desk.readings.expect(project.id, job.id, name="one")
    assert desk.readings.find(project.id) == desk.readings.find(project.id)
    assert desk.readings.reached(project.id) is None
    attempt = job.start_attempt()
    (job.folder / TABLE).write_bytes(GOOD)
    downloaded = Downloaded(
        name="one train.csv", data_set="org/one", configuration="d", split="train", revision="0"
    )
    (job.folder / DOWNLOADED).write_text(downloaded.model_dump_json())
    attempt.write(Delivered((TABLE, DOWNLOADED), 1.0, 1))
    attempt.close()
    desk.queue.edit(lambda line: line.model_copy(update={"waiting": ()}))
    desk.readings.find(project.id)
    after = desk.settled(project)
    assert load_upload(desk.home.place("upload") / after.upload).name == "one train.csv"


def test_a_failed_download_stays_to_be_tried_again_or_given_up(desk: Desk) -> None:
    project = desk.project()
    job = desk.queue.submit(DownloadRequest(data_set="org/one"))
    desk.readings.expect(project.id, job.id, name="one")
    attempt = job.start_attempt()
    attempt.write(Failed("No network", "Connect"))
    attempt.close()
    desk.queue.edit(lambda line: line.model_copy(update={"waiting": ()}))
    incoming = desk.readings.find(project.id)
    assert incoming and incoming.job == job.id
    with pytest.raises(RunError, match="no file"):
        desk.readings.source(project.id)
    desk.readings.cancel(project.id)
    assert desk.readings.find(project.id) is None


def test_a_deleted_project_does_not_come_back(desk: Desk) -> None:
    project, before = desk.project(), desk.uploads()
    desk.readings.take(project.id, desk.file(GOOD[:11] + b"a,x\n" * 300_000), name="long.csv")
    desk.projects.remove(project.id)
    deadline = time.monotonic() + 60
    while desk.readings.reached(project.id) and time.monotonic() < deadline:
        time.sleep(0.05)
    with pytest.raises(RunError):
        desk.projects.read(project.id)
    assert desk.readings.find(project.id) is None and desk.left() == []
    assert desk.uploads() == before, "nobody would ever find it"
