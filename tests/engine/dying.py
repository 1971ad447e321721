"""Work in a forked child that meets its fate at the k-th change it makes to the disk."""

import errno
import itertools
import os
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import engine.checkpoint_tensors

Fate = Callable[[Path], None]
OUTLIVED, BROKEN = 7, 1
_synced: set[int] = set()  # inodes, of the child
_CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def killed(path: Path) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed_half_written(path: Path) -> None:
    if path.is_file():
        os.truncate(path, path.stat().st_size // 2)
    os.kill(os.getpid(), signal.SIGKILL)


def without_power(root: Path) -> Fate:
    """The worst that a power cut may do: whatever was written and not synced is empty."""
    old = {path.stat().st_ino for path in root.rglob("*")}

    def fate(path: Path) -> None:
        for file in root.rglob("*"):
            if file.is_file() and file.stat().st_ino not in old | _synced:
                os.truncate(file, 0)
        os.kill(os.getpid(), signal.SIGKILL)

    return fate


def disk_full(path: Path) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def run_until(boundary: int, fate: Fate, work: Callable[[], None]) -> int:
    """Give the child's end: 0 where it made fewer changes, OUTLIVED where it survived its fate,
    BROKEN where it raised, and minus the signal where one killed it."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # torch has threads; the child uses none
        child = os.fork()
    if child == 0:
        try:
            changes = _arm(boundary, fate)
            work()
            os._exit(OUTLIVED if next(changes) > boundary else 0)
        except BaseException:
            traceback.print_exc()
            os._exit(BROKEN)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def _arm(boundary: int, fate: Fate) -> Iterator[int]:
    changes = itertools.count(1)
    sync, save_file = os.fsync, engine.checkpoint_tensors.save_file

    def change(path: Path) -> None:
        if next(changes) == boundary:
            fate(path)

    def audit(event: str, arguments: tuple[Any, ...]) -> None:
        opened = event == "open" and isinstance(arguments[0], str) and arguments[2] & _WRITING
        if opened or event in _CHANGES:
            change(Path(arguments[0]))

    def audited_sync(descriptor: int) -> None:
        change(Path(f"/proc/self/fd/{descriptor}").resolve())
        sync(descriptor)
        _synced.add(os.fstat(descriptor).st_ino)

    def audited_save(tensors: Any, path: Path) -> None:  # native code, which Python cannot see
        change(path)
        save_file(tensors, path)

    os.fsync, engine.checkpoint_tensors.save_file = audited_sync, audited_save
    sys.addaudithook(audit)
    return changes
