import os
import shutil
from pathlib import Path

import pytest

from engine.checkpoints import best_checkpoint, newest_checkpoint
from engine.events import Finished, Started
from engine.jobs import Job
from studio.home import Home
from studio.records import planned
from studio.runs.disk import disk_use, prune_checkpoints_of, size_bytes
from templates.errors import RunError
from tests.studio.runs.conftest import PAUSE_STEP, go_on, running, spoil, train


def names(job: Job) -> list[str]:
    return sorted(path.name for path in job.checkpoints.iterdir())


def test_a_file_counts_once_and_links_not_at_all(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    for place, size in (("jobs/train-1/a", 10), ("jobs/train-2/a", 20), ("jobs/.x.tmp/a", 1),
                        ("datasets/ds-1/a", 30), ("uploads/up-1/a", 40), ("trash/train-0/a", 50),
                        ("queue.json", 60), ("plans/deep/a", 70)):  # fmt: skip
        path = home.root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)
    os.link(home.root / "uploads/up-1/a", home.root / "jobs/train-2/linked")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "large").write_bytes(b"x" * 10_000)
    (home.root / "jobs/train-1/outside").symlink_to(tmp_path / "outside")
    (home.root / "jobs/train-1/large").symlink_to(tmp_path / "outside" / "large")
    (home.root / "jobs/train-3").symlink_to(tmp_path / "outside")
    use = disk_use(home)
    assert use.jobs_bytes == {"train-1": 10, "train-2": 60, "train-3": 0}
    assert use.places_bytes == {
        "jobs": 71, "datasets": 30, "uploads": 0, "trash": 50, "other": 130,
    }  # fmt: skip
    assert use.total_bytes == 281
    linked = tmp_path / "linked"
    linked.symlink_to(home.root)
    assert disk_use(Home(linked)).total_bytes == 281, "the home itself may be a link"


def test_an_empty_home_takes_up_nothing(tmp_path: Path) -> None:
    assert disk_use(Home(tmp_path / "new")).total_bytes == 0
    assert size_bytes(tmp_path / "nowhere") == 0


def test_a_finished_run_keeps_its_best_weights(home: Home, finished: Job) -> None:
    best = best_checkpoint(finished.checkpoints)
    weights = best.weights_sha256
    shutil.copytree(best.folder, finished.checkpoints / ".step-00000099.tmp")
    before = size_bytes(finished.folder)
    freed = prune_checkpoints_of(home, finished)
    assert names(finished) == [best.folder.name]
    assert freed == before - size_bytes(finished.folder) > 0
    after = best_checkpoint(finished.checkpoints)
    assert (after.state, after.weights_sha256) == (best.state, weights)
    assert finished.status().state == "finished"
    assert prune_checkpoints_of(home, finished) == 0


def test_a_paused_run_keeps_what_it_goes_on_from(home: Home, paused: Job) -> None:
    """And ends with the bits of a run that never stopped and was never pruned."""
    newest, _ = newest_checkpoint(paused.checkpoints)
    best = best_checkpoint(paused.checkpoints)
    for needless in (1, 2):
        shutil.copytree(best.folder, paused.checkpoints / f"step-{needless:08d}")
    assert prune_checkpoints_of(home, paused) >= 2 * size_bytes(best.folder)
    assert names(paused) == [best.folder.name, newest.folder.name]
    go_on(home, paused)
    whole = train(home, planned(paused))
    started = [event for event in paused.events() if isinstance(event, Started)]
    assert started[-1].first_step == PAUSE_STEP + 1
    assert isinstance(paused.events()[-1], Finished)
    found = [best_checkpoint(job.checkpoints).weights_sha256 for job in (paused, whole)]
    assert found[0] == found[1]


def test_a_damaged_newest_checkpoint_goes_and_the_sound_one_stays(home: Home, paused: Job) -> None:
    best = best_checkpoint(paused.checkpoints).folder.name
    spoil(paused.checkpoints / f"step-{PAUSE_STEP:08d}")
    before, _ = newest_checkpoint(paused.checkpoints)
    prune_checkpoints_of(home, paused)
    assert names(paused) == sorted({best, before.folder.name})
    after, notices = newest_checkpoint(paused.checkpoints)
    assert after == before and not notices


@pytest.mark.parametrize("which", ["finished", "paused"])
def test_with_a_damaged_best_nothing_is_deleted(
    home: Home, which: str, request: pytest.FixtureRequest
) -> None:
    job = request.getfixturevalue(which)
    best = best_checkpoint(job.checkpoints).folder
    spoil(best)
    before = names(job)
    with pytest.raises(RunError) as caught:
        prune_checkpoints_of(home, job)
    assert str(caught.value) == (
        "The best checkpoint of the run is damaged or gone "
        f"({job.id}/{best.name}/learned.safetensors). Train it again; nothing was changed."
    )
    assert names(job) == before


@pytest.mark.parametrize("name", ["learned.safetensors", "state.json", "manifest.json"])
def test_with_no_sound_checkpoint_nothing_is_deleted(home: Home, paused: Job, name: str) -> None:
    before = names(paused)
    for folder in paused.checkpoints.iterdir():
        (folder / name).write_bytes(b"{}")
    with pytest.raises(RunError, match="No checkpoint of the run is sound"):
        prune_checkpoints_of(home, paused)
    assert names(paused) == before


def test_a_newer_studio_is_left_in_peace(home: Home, paused: Job) -> None:
    manifest = paused.checkpoints / f"step-{PAUSE_STEP:08d}" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"version": 7', '"version": 8'))
    with pytest.raises(RunError, match=r"made by a newer studio \(version 8\).*Update the studio"):
        prune_checkpoints_of(home, paused)


def test_only_runs_that_rest_are_pruned(home: Home, paused: Job) -> None:
    running(paused)
    with pytest.raises(RunError, match="The job is running"):
        prune_checkpoints_of(home, paused)


def test_a_run_that_never_saved_has_nothing_to_prune(home: Home, paused: Job) -> None:
    shutil.rmtree(paused.checkpoints)
    assert prune_checkpoints_of(home, paused) == 0
