"""Deleted jobs: moved aside whole, restored the same way, gone only when the trash is emptied."""

import contextlib
import shutil
from pathlib import Path

from engine.jobs import Job
from studio.home import Home
from studio.runs.disk import size_bytes
from studio.runs.idle import idle
from templates.errors import RunError, StudioError
from templates.files import disk_errors, sync_folder

_GOING = ".deleting"  # ends the name of a folder that is half gone, so that none is restored


def delete_job(home: Home, job: Job) -> tuple[str, ...]:
    """Move a job into the trash.

    Args:
        home: where it is.
        job: one that neither runs nor waits.

    Returns:
        Ids of jobs and sweeps that name it and stay behind.

    Raises:
        RunError: it is not there, it runs or waits, or an older one of its id is in the trash.
    """
    if not job.folder.is_dir():  # an unreadable job can be deleted too
        raise RunError("There is no such job", where=job.id, fix="List the jobs first")
    trash = _trash(home)
    if (trash / job.id).exists():
        raise RunError(
            "Another job of this id is in the trash already",
            where=job.id,
            fix="Empty the trash first: python app.py jobs trash --empty",
        )
    with idle(home, job):
        left_behind = dependants(home, job)
        _move(job.folder, trash / job.id)
    return left_behind


def restore_job(home: Home, reference: str) -> Job:
    """Bring a job back from the trash.

    Args:
        home: where it was.
        reference: its id, or an unambiguous beginning.

    Returns:
        The job where it was before.

    Raises:
        RunError: the trash holds none or several of that name, or the id is in use again.
    """
    found = list_trash(home)
    matches = [job for job in found if job.id == reference] or [
        job for job in found if reference and job.id.startswith(reference)
    ]
    if len(matches) != 1:
        known = ", ".join(job.id for job in found[-5:])
        several = f"Several jobs in the trash begin with {reference!r}"
        raise RunError(
            several if matches else f"There is no job {reference!r} in the trash",
            fix=f"Give one of these ids: {known}" if found else "The trash is empty",
        )
    place = home.place("train") / matches[0].id
    if place.exists():
        raise RunError(
            "A job of this id is there already",
            where=place.name,
            fix=f"Delete that one first: python app.py jobs delete {place.name}",
        )
    _move(matches[0].folder, place)
    return Job(place)


def list_trash(home: Home) -> list[Job]:
    """List what can be restored.

    Args:
        home: where the trash is.

    Returns:
        The jobs, by id.
    """
    return [Job(path) for path in sorted(_trash(home).iterdir()) if not path.name.startswith(".")]


def empty_trash(home: Home) -> int:
    """Delete everything in the trash for good.

    Args:
        home: where the trash is.

    Returns:
        Bytes freed.
    """
    trash = _trash(home)
    freed_bytes = 0
    with disk_errors("the trash"):
        for path in sorted(trash.iterdir()):
            if path.is_symlink() or not path.is_dir():
                path.unlink()  # a link goes, never what it points to
                continue
            going = path
            if not path.name.endswith(_GOING):
                going = path.rename(trash / f".{path.name}{_GOING}")
            freed_bytes += size_bytes(going)
            shutil.rmtree(going)
        sync_folder(trash)
    return freed_bytes


def dependants(home: Home, job: Job) -> tuple[str, ...]:
    """Find what was made from a job.

    Args:
        home: where to look.
        job: any job.

    Returns:
        Ids of jobs and sweeps that name it.
    """
    found = []
    for other in home.jobs():
        with contextlib.suppress(StudioError):  # unreadable: it names nothing
            if other.request(other.kind).get("run_id") == job.id:
                found.append(other.id)
    for sweep in home.all("sweep"):
        if f'"{job.id}"' in sweep.read_text(encoding="utf-8", errors="replace"):
            found.append(sweep.stem)
    return tuple(found)


def _trash(home: Home) -> Path:
    trash = home.root / "trash"
    if trash.is_symlink():
        raise RunError(
            "The trash is a link to another place, where nothing may be deleted",
            where=str(trash),
            fix="Remove the link",
        )
    with disk_errors("the trash"):
        trash.mkdir(parents=True, exist_ok=True)
    return trash


def _move(source: Path, target: Path) -> None:
    with disk_errors("the job's folder"):
        source.rename(target)
        sync_folder(source.parent)
        sync_folder(target.parent)
