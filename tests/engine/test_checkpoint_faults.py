"""Kills, full disks and damage at every place of a save: what is left must be old or new, whole."""

import json
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from engine.checkpoint_tensors import read_learned, read_optimizer, save_checkpoint
from engine.checkpoints import (
    TrainerState,
    best_checkpoint,
    newest_checkpoint,
    open_checkpoint,
    prune_checkpoints,
)
from engine.events import Finished, Started
from engine.trainer import train
from templates.errors import RunError
from templates.files import sha256_of_file
from tests.engine import dying
from tests.engine.dying import OUTLIVED, disk_full, run_until, without_power
from tests.engine.tiny import save_tiny
from tests.engine.train_tiny import digest, tiny_training
from tests.faults import fault

ROOT = Path(__file__).parents[2]
FILES = ("learned.safetensors", "optimizer.safetensors", "state.json", "manifest.json")


Scene = Callable[[Path], tuple[TrainerState, ...]]


def stand(step: int, best: int, *, due: bool = False) -> TrainerState:
    return TrainerState(step=step, best_step=best, best_loss=0.5, evaluation_due=due)


def tensors(state: TrainerState) -> dict[str, torch.Tensor]:
    """Another value for every save, so that a mixture would show."""
    return {"w": torch.full((8,), state.step + (0.5 if state.evaluation_due else 0.0))}


def save(root: Path, state: TrainerState) -> None:
    save_checkpoint(root, state, tensors(state), {"w/exp_avg": -tensors(state)["w"]})
    prune_checkpoints(root, state, keep_newest=2)


def nothing_yet(root: Path) -> tuple[TrainerState, ...]:
    return (stand(12, 12),)


def an_ordinary_save(root: Path) -> tuple[TrainerState, ...]:
    for step in (3, 6, 9):
        save(root, stand(step, 3))
    return stand(9, 3), stand(12, 3)


def a_new_best(root: Path) -> tuple[TrainerState, ...]:
    for step in (3, 6, 9):
        save(root, stand(step, 3))
    return stand(9, 3), stand(12, 12)


def the_same_step_again(root: Path) -> tuple[TrainerState, ...]:
    for state in (stand(3, 3), stand(9, 3), stand(12, 3, due=True)):
        save(root, state)
    return stand(12, 3, due=True), stand(12, 12)


def after_a_killed_save(root: Path) -> tuple[TrainerState, ...]:
    old, new = an_ordinary_save(root)
    shutil.copytree(root / "step-00000009", root / ".step-00000012.tmp")
    return old, new


SCENES = (nothing_yet, an_ordinary_save, a_new_best, the_same_step_again, after_a_killed_save)


def assert_whole(root: Path, allowed: tuple[TrainerState, ...]) -> TrainerState | None:
    """The newest is one of the allowed ones to the last bit, and the best can be opened."""
    found, notices = newest_checkpoint(root)
    assert not notices
    if found is None:
        return None
    assert found.state in allowed
    assert torch.equal(read_learned(found)["w"], tensors(found.state)["w"])
    assert torch.equal(read_optimizer(found)["w/exp_avg"], -tensors(found.state)["w"])
    assert best_checkpoint(root).state.step == found.state.best_step
    return found.state


def assert_next_save_cleans_up(root: Path, best_step: int) -> None:
    save(root, stand(15, best_step))
    assert_whole(root, (stand(15, best_step),))
    assert all(path.name.startswith("step-") for path in root.iterdir()), "a leftover stayed"
    assert len(list(root.iterdir())) <= 3


@fault(
    2,
    "SIGKILL, half a write or a power cut at every change a save makes on disk",
    "The old or the new checkpoint loads, never a mix",
)
@pytest.mark.parametrize("way", ["killed", "killed_half_written", "without_power"])
@pytest.mark.parametrize("scene", SCENES)
def test_killed_at_any_change_the_old_or_the_new_one_is_there(
    tmp_path: Path, scene: Scene, way: str
) -> None:
    template = tmp_path / "template"
    template.mkdir()
    states = scene(template)
    found = []
    for boundary in range(1, 100):
        root = tmp_path / str(boundary)
        shutil.copytree(template, root)
        fate = without_power(root) if way == "without_power" else getattr(dying, way)
        code = run_until(boundary, fate, lambda root=root: save(root, states[-1]))
        found.append(assert_whole(root, states))
        assert_next_save_cleans_up(root, found[-1].best_step if found[-1] else 15)
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert len(found) >= 13, "the changes of one save were not all seen"
    before = states[0] if len(states) > 1 else None
    switch = found.index(states[-1])
    assert found == [before] * switch + [states[-1]] * (len(found) - switch)


@fault(
    3,
    "The disk is full at every change a save makes",
    "A sentence with the size; the old one stays, no half one",
)
@pytest.mark.parametrize("scene", SCENES)
def test_a_full_disk_at_any_change_is_a_sentence_and_costs_nothing(
    tmp_path: Path, scene: Scene
) -> None:
    template = tmp_path / "template"
    template.mkdir()
    states = scene(template)

    def work() -> None:
        try:
            save(root, states[-1])
        except RunError as error:
            assert error.what == "The disk is full: a checkpoint of 0.1 MB could not be written"
        assert not list(root.glob(".step-*")), "the temporary folder stayed"

    found, ends = [], []
    while ends[-1:] != [0]:
        root = tmp_path / str(len(ends) + 1)
        shutil.copytree(template, root)
        ends.append(run_until(len(ends) + 1, disk_full, work))
        assert ends[-1] in (OUTLIVED, 0)
        found.append(assert_whole(root, states))
        assert_next_save_cleans_up(root, found[-1].best_step if found[-1] else 15)
    assert found[-1] == states[-1]
    num_refused = len(found) - found.count(states[-1])
    assert num_refused >= 11, "the changes of one save were not all refused"


@contextmanager
def files_up_to(num_bytes: int) -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


@fault(3, "A limit on the size of files", "A sentence; the old checkpoint stays")
@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("too_large", ["learned", "optimizer"])
def test_a_file_that_may_not_grow_is_a_sentence_and_leaves_the_old_checkpoint(
    tmp_path: Path, too_large: str, ratio: float
) -> None:
    save(tmp_path, stand(3, 3))
    big, small = {"w": torch.zeros(500_000)}, {"w": torch.zeros(10)}
    both = (big, small) if too_large == "learned" else (small, big)
    with (
        files_up_to(int(2_000_000 * ratio)),
        pytest.raises(RunError, match=r"disk is full: a checkpoint of 2\.0 MB.*Free some space"),
    ):
        save_checkpoint(tmp_path, stand(6, 3), *both)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000003"]
    assert assert_whole(tmp_path, (stand(3, 3),)) is not None


@fault(3, "A real small disk fills up", "A sentence; the old checkpoint stays")
def test_a_disk_that_fills_up_anywhere_is_a_sentence_and_leaves_the_old_checkpoint(
    tmp_path: Path,
) -> None:
    alone = ["unshare", "--map-root-user", "--mount"]
    able = shutil.which("unshare") and subprocess.run([*alone, "true"], check=False).returncode == 0
    disk = tmp_path / "disk"
    disk.mkdir()
    command = [
        sys.executable,
        "-m",
        "tests.engine.fill_disk",
        str(disk),
        *(["own"] if able else []),
    ]
    done = subprocess.run(
        [*alone, *command] if able else command,
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "full at" in done.stdout or "refusal" in done.stdout


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base; `paused`: the checkpoints of steps 6 and 8; `digest`: how the run ends."""
    folder = tmp_path_factory.mktemp("tiny")
    base = save_tiny(folder / "base", "llama")
    whole = tiny_training(base, folder / "whole")
    list(train(whole))
    (folder / "digest").write_text(digest(whole))
    list(train(tiny_training(base, folder / "paused"), pause_at_step=8))
    return folder


def resumed(tiny: Path, root: Path) -> tuple[Started, bool]:
    """Go on to the end: how it started, and whether it ended like the run that was never cut."""
    task = tiny_training(tiny / "base", root)
    events = list(train(task))
    assert isinstance(events[0], Started) and isinstance(events[-1], Finished)
    return events[0], digest(task) == (tiny / "digest").read_text()


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0b1000
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@fault(
    5,
    "A flipped bit, a cut or a missing file in the newest checkpoint",
    "The older one is used, a notice says so, same bits",
)
@pytest.mark.parametrize("damage", [flip_a_bit, truncate, Path.unlink])
@pytest.mark.parametrize("file", FILES)
def test_a_run_goes_on_from_the_older_checkpoint_says_so_and_ends_alike(
    tmp_path: Path, tiny: Path, file: str, damage: Callable[[Path], None]
) -> None:
    root = tmp_path / "run"
    shutil.copytree(tiny / "paused", root)
    damage(root / "step-00000008" / file)
    started, is_alike = resumed(tiny, root)
    assert started.first_step == 7
    assert len(started.notices) == 1
    assert started.notices[0].startswith("A checkpoint is damaged (step-00000008/")
    assert started.notices[0].endswith("an older one is used.")
    assert file == "manifest.json" or file in started.notices[0]
    assert is_alike


def test_no_flipped_bit_of_a_manifest_passes(tmp_path: Path) -> None:
    save(tmp_path, stand(3, 3))
    path = tmp_path / "step-00000003" / "manifest.json"
    sound = path.read_bytes()
    for position in range(len(sound) * 8):
        content = bytearray(sound)
        content[position // 8] ^= 1 << position % 8
        path.write_bytes(content)
        with pytest.raises(RunError, match="damaged"):
            open_checkpoint(path.parent)


@fault(5, "Every checkpoint is damaged", "Training starts again, a notice says so")
def test_where_all_are_damaged_a_run_starts_again_says_so_and_ends_alike(
    tmp_path: Path, tiny: Path
) -> None:
    root = tmp_path / "run"
    shutil.copytree(tiny / "paused", root)
    folders = sorted(root.iterdir())
    for folder in folders:
        flip_a_bit(folder / "learned.safetensors")
    started, is_alike = resumed(tiny, root)
    assert started.first_step == 1 and len(started.notices) == len(folders) == 2
    assert all("starts again" in notice for notice in started.notices)
    assert is_alike
    assert newest_checkpoint(root)[1] == [], "the damaged ones are gone"


@fault(5, "The best checkpoint is damaged", "A sentence; never other weights")
def test_a_damaged_best_checkpoint_is_a_sentence_and_never_other_weights(tmp_path: Path) -> None:
    for state in (stand(3, 3), stand(6, 3), stand(9, 3)):
        save(tmp_path, state)
    flip_a_bit(tmp_path / "step-00000003" / "learned.safetensors")
    with pytest.raises(RunError, match=r"damaged \(step-00000003/learned.*train again"):
        best_checkpoint(tmp_path)
    shutil.rmtree(tmp_path / "step-00000003")
    with pytest.raises(RunError, match=r"damaged \(step-00000003/manifest.*train again"):
        best_checkpoint(tmp_path)
    save(tmp_path, stand(12, 12))
    flip_a_bit(tmp_path / "step-00000012" / "learned.safetensors")
    with pytest.raises(RunError, match=r"damaged \(step-00000012/learned"):
        best_checkpoint(tmp_path)


@pytest.mark.parametrize("file", FILES)
def test_a_damaged_newest_checkpoint_does_not_hide_an_older_best_one(
    tmp_path: Path, file: str
) -> None:
    for state in (stand(3, 3), stand(6, 3), stand(9, 3)):
        save(tmp_path, state)
    flip_a_bit(tmp_path / "step-00000009" / file)
    best = best_checkpoint(tmp_path)
    assert best.state.step == 3
    assert torch.equal(read_learned(best)["w"], tensors(best.state)["w"])


def rewrite(folder: Path, version: int, state: dict[str, object]) -> None:
    """Make a checkpoint what another version of the studio would have written."""
    (folder / "state.json").write_text(json.dumps(state))
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    size, sha256 = (folder / "state.json").stat().st_size, sha256_of_file(folder / "state.json")
    manifest["files"]["state.json"] = {"bytes": size, "sha256": sha256}
    path.write_text(json.dumps({**manifest, "version": version}))


@fault(25, "Checkpoints of the previous version", "Resumed to the same bits")
def test_a_run_saved_by_the_version_before_goes_on_and_ends_alike(
    tmp_path: Path, tiny: Path
) -> None:
    root = tmp_path / "run"
    shutil.copytree(tiny / "paused", root)
    for folder in root.iterdir():
        state = json.loads((folder / "state.json").read_text())
        assert state.pop("evaluation_due") is False
        rewrite(folder, 1, state)
    started, is_alike = resumed(tiny, root)
    assert started.first_step == 9 and not started.notices
    assert is_alike


@fault(25, "Checkpoints of a newer version", "Refused and kept")
def test_a_checkpoint_of_a_newer_studio_is_refused_and_kept(tmp_path: Path) -> None:
    save(tmp_path, stand(3, 3))
    save(tmp_path, stand(6, 3))
    rewrite(tmp_path / "step-00000006", 99, {"of": "the future"})
    for opened in (newest_checkpoint, best_checkpoint):
        with pytest.raises(RunError, match=r"made by a newer studio \(version 99\).*Update"):
            opened(tmp_path)
    assert (tmp_path / "step-00000006").is_dir()


@fault(
    2, "SIGKILL at file boundaries, judged by ckpt-chaos", "Resumed to the same bits; nothing lost"
)
@pytest.mark.slow
@pytest.mark.timeout(600)  # ten processes load torch: 290 s seen on a busy machine
def test_the_outside_judge_finds_no_fault(tmp_path: Path) -> None:
    """ckpt-chaos kills a whole run at its file events, and compares how the resumed ones end.

    A few events are enough for the judge, since the kills above meet every change of a save.
    """
    base = save_tiny(tmp_path / "base", "llama")
    report = tmp_path / "report.md"
    judged = subprocess.run(
        [
            sys.executable, "-m", "ckpt_chaos", "run",
            "--work", str(tmp_path / "work"), "--summary", str(report), "--jobs", "2",
            "--result-file", "{out}/result.txt", "--step-regex", r"goes on after step (\d+)",
            "--checkpoint-glob", "{out}/checkpoints/step-*",
            "--fail-on", "HARD_FAIL,SILENT_DIVERGENCE,LOST_WORK,CONTROL_FAIL",
            "--modes", "before,torn", "--max-points", "2",
            "--", sys.executable, "-m", "tests.engine.train_tiny", "{out}", str(base), "6",
        ],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert judged.returncode == 0, judged.stdout + judged.stderr
    assert "\nPASS: 3\n" in judged.stdout, judged.stdout
