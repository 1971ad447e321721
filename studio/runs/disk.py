"""Who takes up how much of the disk, and the checkpoints that a run can do without."""

import os
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.jobs import Job
from studio.home import Home
from studio.runs.idle import idle
from studio.runs.saves import find_saves
from templates.files import disk_errors, sync_folder

_PLACES = ("jobs", "datasets", "uploads", "trash")


@dataclass(frozen=True)
class DiskUse:
    """Bytes of a home.

    Attributes:
        places_bytes: "jobs", "datasets", "uploads", "trash" and "other"; together all there is.
        jobs_bytes: job id -> its share of "jobs".
    """

    places_bytes: Mapping[str, int]
    jobs_bytes: Mapping[str, int]

    @property
    def total_bytes(self) -> int:
        """All of the home."""
        return sum(self.places_bytes.values())


def disk_use(home: Home) -> DiskUse:
    """Measure a home. A file with several names counts once, and links are not followed.

    Args:
        home: the folder behind all steps.

    Returns:
        Bytes by place and by job.
    """
    seen: set[tuple[int, int]] = set()
    jobs = {job.id: size_bytes(job.folder, seen) for job in home.jobs()}
    places = {name: size_bytes(home.root / name, seen) for name in _PLACES}
    places["jobs"] += sum(jobs.values())
    places["other"] = size_bytes(home.root.resolve(), seen)  # whatever was not seen yet
    return DiskUse(places, jobs)


def size_bytes(folder: Path, seen: set[tuple[int, int]] | None = None) -> int:
    """Add up the files below a folder.

    Args:
        folder: may be missing; a link counts nothing.
        seen: device and number of files counted before; grows.

    Returns:
        Bytes of those not seen before.
    """
    seen = set() if seen is None else seen
    total = 0
    if folder.is_symlink():
        return 0
    for place, _, names in os.walk(folder):  # does not follow links
        for name in names:
            try:
                found = os.lstat(os.path.join(place, name))
            except FileNotFoundError:  # a worker has just removed it
                continue
            if stat.S_ISREG(found.st_mode) and (found.st_dev, found.st_ino) not in seen:
                seen.add((found.st_dev, found.st_ino))
                total += found.st_size
    return total


def prune_checkpoints_of(home: Home, job: Job) -> int:
    """Delete the checkpoints that a run can do without, after verifying those that stay.

    A finished run keeps its best one; any other also the newest sound one, to go on from.

    Args:
        home: where the run is.
        job: a train job that neither runs nor waits.

    Returns:
        Bytes freed.

    Raises:
        RunError: it is no run, it runs or waits, or what should stay is damaged.
    """
    job.request("train")
    with idle(home, job):
        finished = job.status().state == "finished"
        saves = find_saves(job.checkpoints, finished=finished)
        if saves is None:
            return 0
        kept = (saves.best,) if finished else (saves.best, saves.newest)
        root = job.checkpoints
        needless = {path for path in root.glob("step-*") if path not in kept}
        freed_bytes = 0
        with disk_errors("the checkpoints"):
            for folder in sorted(needless):
                # A name that readers pass over and the next save clears, should we be killed here.
                folder.rename(root / f".{folder.name}.tmp")
            sync_folder(root)
            for leftover in sorted(root.glob(".step-*.tmp")):
                freed_bytes += size_bytes(leftover)
                shutil.rmtree(leftover)
    return freed_bytes
