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
from templates.errors import RunError

LEARNED = {"layer.lora_A": torch.arange(6.0).reshape(2, 3)}
MOMENTS = {"layer.lora_A/exp_avg": torch.ones(2, 3), "layer.lora_A/step": torch.tensor(4.0)}


def save(root: Path, step: int, best: int = 0, scale: float = 1.0) -> Path:
    learned = {name: tensor * scale for name, tensor in LEARNED.items()}
    state = TrainerState(step=step, best_step=best, best_loss=0.5)
    return save_checkpoint(root, state, learned, MOMENTS).folder


def test_what_was_saved_is_what_is_read(tmp_path: Path) -> None:
    save(tmp_path, 3, best=3)
    found, notices = newest_checkpoint(tmp_path)
    assert found is not None and not notices
    assert found.state == TrainerState(step=3, best_step=3, best_loss=0.5)
    assert torch.equal(read_learned(found)["layer.lora_A"], LEARNED["layer.lora_A"])
    assert torch.equal(read_optimizer(found)["layer.lora_A/step"], torch.tensor(4.0))


FILES = ["learned.safetensors", "optimizer.safetensors", "state.json", "manifest.json"]


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", ["bit flip", "truncated", "missing"])
def test_a_damaged_newest_checkpoint_gives_way_to_the_older(
    tmp_path: Path, file: str, damage: str
) -> None:
    save(tmp_path, 1)
    victim = save(tmp_path, 2, scale=2.0) / file
    content = bytearray(victim.read_bytes())
    if damage == "missing":
        victim.unlink()
    elif damage == "truncated":
        victim.write_bytes(content[:-3])
    else:
        content[-2] ^= 0b100
        victim.write_bytes(content)
    with pytest.raises(RunError, match=r"damaged \(step-00000002/.*Resume from an older"):
        open_checkpoint(victim.parent)
    found, notices = newest_checkpoint(tmp_path)
    assert found is not None and found.state.step == 1
    assert len(notices) == 1 and "step-00000002" in notices[0]


def test_a_killed_save_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
    save(tmp_path, 1)
    leftover = tmp_path / ".step-00000002.abcd.tmp"
    leftover.mkdir()
    (leftover / "learned.safetensors").write_bytes(b"half")
    found, _ = newest_checkpoint(tmp_path)
    assert found is not None and found.state.step == 1
    save(tmp_path, 2)
    assert not leftover.exists()


def test_pruning_keeps_the_newest_and_the_best(tmp_path: Path) -> None:
    for step in range(1, 7):
        save(tmp_path, step, best=2)
    prune_checkpoints(tmp_path, TrainerState(step=6, best_step=2), keep_newest=2)
    assert sorted(path.name[-1] for path in tmp_path.glob("step-*")) == ["2", "5", "6"]
    assert best_checkpoint(tmp_path).folder.name == "step-00000002"


def test_saved_again_the_later_save_counts_and_the_older_goes(tmp_path: Path) -> None:
    save(tmp_path, 3)
    for number in range(1, 12):
        name = save(tmp_path, 3, best=3, scale=float(number)).name
        assert name == f"step-00000003.{number:02d}"
        found, _ = newest_checkpoint(tmp_path)
        assert found is not None and found.folder.name == name
        prune_checkpoints(tmp_path, found.state, keep_newest=2)
        assert [path.name for path in tmp_path.iterdir()] == [name]
        assert best_checkpoint(tmp_path).folder.name == name


def test_pruning_never_takes_what_was_just_saved(tmp_path: Path) -> None:
    """Two later ones were damaged, so the run stands before them; they must not count."""
    for step in (3, 12, 15):
        save(tmp_path, step, best=3)
    for step in (12, 15):
        (tmp_path / f"step-{step:08d}" / "state.json").unlink()
    save(tmp_path, 4, best=3)
    prune_checkpoints(tmp_path, TrainerState(step=4, best_step=3), keep_newest=2)
    found, notices = newest_checkpoint(tmp_path)
    assert found is not None and found.state.step == 4 and not notices


def test_no_checkpoint_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no checkpoint yet.*Train it first"):
        best_checkpoint(tmp_path / "checkpoints")
