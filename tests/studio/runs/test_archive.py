import json
import shutil
import zipfile
from pathlib import Path

import pytest

from engine.checkpoints import best_checkpoint, newest_checkpoint
from engine.jobs import Job, create_job
from studio.home import Home
from studio.jobs.queue import Queue
from studio.jobs.requests import CompareRequest
from studio.records import newest_comparison, planned
from studio.runs.about import change_about, read_about
from studio.runs.archive import CARRIED
from studio.runs.difference import difference
from studio.runs.disk import prune_checkpoints_of
from studio.runs.exporting import export_run
from studio.runs.importing import import_run
from studio.runs.trash import delete_job
from studio.work.tuned_run import open_tuned_run
from templates.dataset import read_dataset
from templates.errors import DataError, RunError
from tests.studio.runs.conftest import go_on, running, spoil, train


@pytest.fixture
def elsewhere(tmp_path: Path) -> Home:
    return Home(tmp_path / "elsewhere")


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_finished_run_moves_to_another_home(
    home: Home, finished: Job, elsewhere: Home, tmp_path: Path
) -> None:
    change_about(finished, name="the good one")
    (finished.folder / "worker.log").write_text("a library said: /home/me")
    best = best_checkpoint(finished.checkpoints)
    ticks: list[float] = []
    archive = tmp_path / "run.zip"
    manifest = export_run(
        home, finished, archive, progress=lambda share, words: ticks.append(share)
    )
    assert ticks == sorted(ticks) and 0 <= ticks[0] < ticks[-1] <= 1
    assert list(tmp_path.glob(".*.tmp")) == []
    with zipfile.ZipFile(archive) as pack:
        assert pack.namelist() == ["manifest.json", *(file.name for file in manifest.files)]
    assert not {"job/lock", "job/worker.log"} & {file.name for file in manifest.files}
    assert manifest.base_id == planned(finished).base.id

    there = import_run(elsewhere, archive)
    assert there.id == finished.id and there.folder.parent == elsewhere.place("train")
    assert read_about(there).name == "the good one"
    assert there.events() == finished.events() and there.status() == finished.status()
    assert Queue(elsewhere).state(there) == "finished"
    opened = open_tuned_run(elsewhere, there.id)  # what compare, predict and publish begin with
    assert opened.checkpoint.weights_sha256 == best.weights_sha256
    assert read_dataset(opened.dataset_folder) == read_dataset(home.place("dataset") / "ds-tickets")
    assert not difference(finished, there).settings
    assert sorted(path.name for path in elsewhere.root.iterdir()) == ["datasets", "jobs", "locks"]


def test_a_pruned_run_is_compared_elsewhere(home: Home, finished: Job, tmp_path: Path) -> None:
    prune_checkpoints_of(home, finished)
    export_run(home, finished, tmp_path / "run.zip")
    elsewhere = Home(tmp_path / "elsewhere")
    import_run(elsewhere, tmp_path / "run.zip")
    queue = Queue(elsewhere)
    compare = queue.submit(CompareRequest(run_id=finished.id))
    queue.stop(compare)
    go_on(elsewhere, compare)
    assert compare.status().state == "finished", compare.status()
    assert newest_comparison(elsewhere, finished.id) is not None


def test_a_paused_run_ends_elsewhere_with_the_same_bits(
    home: Home, paused: Job, elsewhere: Home, tmp_path: Path
) -> None:
    export_run(home, paused, tmp_path / "run.zip")
    there = import_run(elsewhere, tmp_path / "run.zip")
    assert there.status().state == "stopped"
    queue = Queue(elsewhere)
    queue.resume(there)
    queue.stop(there)
    go_on(elsewhere, there)
    assert there.status().state == "finished"
    whole = train(home, planned(paused))
    found = [best_checkpoint(job.checkpoints).weights_sha256 for job in (there, whole)]
    assert found[0] == found[1]
    assert len((there.folder / "metrics.csv").read_text().splitlines()) == 16


def test_an_export_is_the_same_bytes_and_comes_back_after_a_deletion(
    home: Home, finished: Job, tmp_path: Path
) -> None:
    for name in ("a.zip", "b.zip"):
        export_run(home, finished, tmp_path / name)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    delete_job(home, finished)
    back = import_run(home, tmp_path / "a.zip")
    assert back == finished, "its data was still here, and kept"
    with pytest.raises(RunError) as caught:
        import_run(home, tmp_path / "a.zip")
    assert str(caught.value) == (
        f"This run is here already ({finished.id}). Delete it first (python app.py jobs delete "
        f"{finished.id}), or import it with another STUDIO_HOME."
    )


def test_only_the_needed_checkpoints_travel(home: Home, paused: Job, tmp_path: Path) -> None:
    best, (newest, _) = best_checkpoint(paused.checkpoints), newest_checkpoint(paused.checkpoints)
    shutil.copytree(best.folder, paused.checkpoints / "step-00000001")
    manifest = export_run(home, paused, tmp_path / "run.zip")
    folders = {file.name.split("/")[2] for file in manifest.files if "checkpoints" in file.name}
    assert folders == {best.folder.name, newest.folder.name}


def test_a_run_that_never_began_travels_too(home: Home, paused: Job, tmp_path: Path) -> None:
    job = create_job(home.new("train"), "train", paused.request("train"))
    export_run(home, job, tmp_path / "run.zip")
    there = import_run(Home(tmp_path / "elsewhere"), tmp_path / "run.zip")
    assert there.status().state == "new"


def test_links_are_not_carried(home: Home, finished: Job, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (finished.folder / "about.json").symlink_to(tmp_path / "secret")
    manifest = export_run(home, finished, tmp_path / "run.zip")
    assert "job/about.json" not in {file.name for file in manifest.files}


def test_what_cannot_be_exported_is_a_sentence(home: Home, paused: Job, tmp_path: Path) -> None:
    compare = create_job(home.place("compare") / "compare-1", "compare", {"run_id": "x"})
    with pytest.raises(RunError) as caught:
        export_run(home, compare, tmp_path / "run.zip")
    assert str(caught.value) == (
        "Only runs can be exported, and this is a compare job (compare-1). "
        "Give the id of a train job."
    )
    (tmp_path / "there.zip").write_bytes(b"mine")
    with pytest.raises(RunError, match=r"There is such a file already .*Name a new file"):
        export_run(home, paused, tmp_path / "there.zip")
    with pytest.raises(RunError, match=r"There is no place to write run\.zip"):
        export_run(home, paused, tmp_path / "nowhere" / "run.zip")
    best = best_checkpoint(paused.checkpoints).folder
    spoil(best)
    with pytest.raises(RunError, match="The best checkpoint of the run is damaged or gone"):
        export_run(home, paused, tmp_path / "run.zip")
    with (home.place("dataset") / "ds-tickets" / "test.jsonl").open("a") as file:
        file.write("\n")
    with pytest.raises(DataError, match="The prepared data changed since it was prepared"):
        export_run(home, paused, tmp_path / "run.zip")
    running(paused)
    shutil.rmtree(home.place("dataset") / "ds-tickets")
    with pytest.raises(DataError, match="There is no prepared data here"):
        export_run(home, paused, tmp_path / "run.zip")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "there.zip"]


def test_a_run_that_runs_or_has_other_data_by_now_is_not_exported(
    home: Home, paused: Job, tmp_path: Path
) -> None:
    manifest = home.place("dataset") / "ds-tickets" / "dataset.json"
    before = manifest.read_text()
    content = json.loads(before)
    content["template"]["separator"] += " "
    manifest.write_text(json.dumps(content))
    with pytest.raises(RunError, match="The data is not what the run learned from any more"):
        export_run(home, paused, tmp_path / "run.zip")
    manifest.write_text(before)
    running(paused)
    with pytest.raises(RunError, match="The job is running"):
        export_run(home, paused, tmp_path / "run.zip")


def test_a_label_changed_during_the_export_leaves_no_bad_archive(
    home: Home, finished: Job, tmp_path: Path
) -> None:
    change_about(finished, name="one")

    def rename(share: float, words: str) -> None:
        if words == "packing":
            change_about(finished, name="two")

    with pytest.raises(RunError) as caught:
        export_run(home, finished, tmp_path / "run.zip", progress=rename)
    assert str(caught.value) == (
        "A file changed while it was exported (job/about.json). Export it again."
    )
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


@pytest.mark.parametrize(
    "name",
    [
        "job/../request.json", "/job/request.json", "job//request.json", "job/request.json/",
        "job/lock", "job/worker.log", "job/.request.json", "job/attempts/abc/events.jsonl",
        "job/attempts/0/events.jsonl", "job/attempts/1/worker.log", "job\\request.json",
        "job/checkpoints/.step-00000001.tmp/state.json", "dataset/a/b", "dataset/..", "dataset/.x",
        "dataset/" + "x" * 200, "request.json", "job/request.json\n", "dataset/\u0430.jsonl",
    ],
)  # fmt: skip
def test_no_other_name_is_carried(name: str) -> None:
    assert not CARRIED.fullmatch(name)
