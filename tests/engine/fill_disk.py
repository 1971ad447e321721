"""`python -m tests.engine.fill_disk ROOT own`: saves to disks of every size.

`own` says that it runs in a mount namespace of its own. Where it may not mount, a save that the
system refuses stands in for the disk.
"""

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

import engine.checkpoint_tensors
from engine.checkpoint_tensors import read_learned, save_checkpoint
from engine.checkpoints import TrainerState, newest_checkpoint
from templates.errors import RunError

_PAGE_BYTES = 4096
_OLD, _BIG = {"w": torch.ones(10)}, {"w": torch.zeros(10_000)}


def mount(root: Path, num_pages: int, *options: str) -> bool:
    option = ",".join([*options, f"size={num_pages * _PAGE_BYTES}"])
    command = ["mount", "-t", "tmpfs", "-o", option, "none", str(root)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def fits(root: Path) -> bool:
    """Save; where that fails, judge what it left."""
    try:
        save_checkpoint(root, TrainerState(step=2), _BIG, _BIG)
        return True
    except RunError as error:
        assert error.what == "The disk is full: a checkpoint of 0.1 MB could not be written", error
        assert "Free some space" in error.fix
    assert os.listdir(root) == ["step-00000001"]
    found, notices = newest_checkpoint(root)
    assert found is not None and found.state.step == 1 and not notices
    assert torch.equal(read_learned(found)["w"], _OLD["w"])
    return False


def main(root: Path, may_mount: bool) -> None:
    is_own_disk = may_mount and mount(root, 64)
    save_checkpoint(root, TrainerState(step=1), _OLD, _OLD)
    if not is_own_disk:

        def refused(tensors: Any, path: Path) -> None:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        engine.checkpoint_tensors.save_file = refused
        assert not fits(root)
        print("no disk of its own; 1 refusal")
        return
    usage = os.statvfs(root)
    used = usage.f_blocks - usage.f_bfree
    extra = 0
    while not (mount(root, used + extra, "remount") and fits(root)):
        extra += 1
        assert extra < 64
    print(f"a disk of its own; full at {extra} sizes")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] == ["own"])
