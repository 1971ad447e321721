"""A run, out of a zip file into this home.

The file may come from a stranger: no name, size or number in it is believed before it is checked,
and nothing appears in the home before all of it was.
"""

import fcntl
import hashlib
import json
import math
import os
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import get_args

from pydantic import TypeAdapter, ValidationError

from engine.events import Event, Stamped, from_json
from engine.jobs import REQUEST, Job
from studio.home import Home
from studio.jobs.requests import TrainRequest, read_request
from studio.records import planned
from studio.runs.archive import (
    CARRIED,
    CHUNK_BYTES,
    DATASET_ID,
    JOB_ID,
    MANIFEST,
    VERSION,
    ArchivedFile,
    ArchiveManifest,
    Tick,
    no_tick,
)
from studio.runs.saves import find_saves
from templates.dataset import read_dataset
from templates.errors import RunError, StudioError
from templates.files import canonical_json, disk_errors, sync_folder, write_atomically
from templates.values import parse

LIMIT_BYTES = 100 * 10**9
_MANIFEST_LIMIT_BYTES = 4 << 20
# Weights and examples may be as large as there is room. Everything else is read into memory, now or
# later, and JSON grows there to a multiple of its size.
_ANY_SIZE = re.compile(r"job/.*\.safetensors|dataset/.*\.jsonl")
_JSON_LIMIT_BYTES, _FILE_LIMIT_BYTES = 64 << 20, 256 << 20
_EVENT_LIMIT_BYTES = 1 << 20
_MOST_TORN_LINES = 10_000  # a kill or a full disk leaves one or two
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1
_YEAR_3000_SECONDS = 32_503_680_000
_EVENTS = {kind: TypeAdapter(kind) for kind in get_args(Event)}
_UNREADABLE = (
    zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError,
)  # fmt: skip


def import_run(
    home: Home, path: Path, *, limit_bytes: int = LIMIT_BYTES, progress: Tick = no_tick
) -> Job:
    """Take in a run that was exported, here or elsewhere.

    Args:
        home: where it goes, with its data.
        path: the zip file.
        limit_bytes: the most it may take up unpacked; never more than the disk has free.
        progress: called with the share done and a few words.

    Returns:
        The run, as it was when it was exported, but for the sweep it may have belonged to.

    Raises:
        RunError: the file is no whole and harmless export, a newer studio wrote it, there is no
            room for it, or the run is here already.
    """
    with _opened(path) as pack:
        manifest = _read_manifest(pack, path)
        _check_names(pack, manifest, path)
        _check_sizes(pack, manifest, path, _room_bytes(home, limit_bytes))
        with _workplace(home) as folder:
            final = home.place("train") / manifest.job_id
            if final.exists():
                raise _already(final.name)
            _unpack(pack, manifest, folder, path, progress)
            staged = Job((folder / "job").rename(folder / manifest.job_id))
            _check_content(staged, folder / "dataset", manifest, path)
            _place_dataset(home, folder / "dataset", manifest)
            staged.folder.rename(final)
            sync_folder(final.parent)
    return Job(final)


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        pack = zipfile.ZipFile(path)
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        raise RunError(
            "There is no such file, or it may not be read",
            where=str(path),
            fix="Name a file that the export verb wrote",
        ) from None
    except _UNREADABLE:
        raise _refused(path, "This is no export of a run, or only a part of one") from None
    with pack:
        yield pack


def _read_manifest(pack: zipfile.ZipFile, path: Path) -> ArchiveManifest:
    entries = pack.infolist()
    if not entries or entries[0].filename != MANIFEST:
        raise _refused(path, f"This is no export of a run: it does not begin with {MANIFEST}")
    if entries[0].file_size > _MANIFEST_LIMIT_BYTES:
        raise _refused(path, "The archive's manifest is far too long")
    try:
        with pack.open(entries[0]) as file:
            content = json.loads(file.read(_MANIFEST_LIMIT_BYTES))
        version = content["version"]
    except (*_UNREADABLE, KeyError, TypeError):
        raise _refused(path, "The archive's manifest cannot be read") from None
    if isinstance(version, int) and version > VERSION:
        raise RunError(
            f"The archive was made by a newer studio (version {version} of its layout)",
            where=path.name,
            fix="Update the studio, and import it then",
        )
    return parse(ArchiveManifest, content, where=f"{path.name}/{MANIFEST}", error=RunError)


def _check_names(pack: zipfile.ZipFile, manifest: ArchiveManifest, path: Path) -> None:
    if not (JOB_ID.fullmatch(manifest.job_id) and DATASET_ID.fullmatch(manifest.dataset_id)):
        raise _refused(path, "The archive's ids are not those of a run and its data")
    entries = pack.infolist()[1:]
    for entry in entries:
        if not CARRIED.fullmatch(entry.filename):
            raise _refused(path, f"An export holds no such file: {entry.filename[:100]!r}")
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise _refused(path, f"{entry.filename} is a link or another special file")
        if entry.flag_bits & _ENCRYPTED or entry.compress_type not in _METHODS:
            raise _refused(path, f"{entry.filename} is packed or locked in an unknown way")
    packed = [entry.filename for entry in entries]
    named = [file.name for file in manifest.files]
    for names in (packed, named):  # some disks take both spellings for one file
        if len({name.casefold() for name in names}) != len(names):
            raise _refused(path, "The archive holds a file twice")
    if missing := sorted(set(named) - set(packed)):
        raise _refused(path, f"The archive lacks {missing[0]}")
    if additional := sorted(set(packed) - set(named)):
        raise _refused(path, f"The archive holds {additional[0]}, which its manifest does not name")


def _check_sizes(
    pack: zipfile.ZipFile, manifest: ArchiveManifest, path: Path, room_bytes: int
) -> None:
    for file in manifest.files:
        if pack.getinfo(file.name).file_size != file.size_bytes:
            raise _refused(path, f"{file.name} has another size than the manifest says")
        if file.size_bytes > _most_bytes(file.name):
            raise _refused(path, f"{file.name} is far too long")
    if manifest.size_bytes > room_bytes:
        raise RunError(
            f"Unpacked it would take {manifest.size_bytes / 1e9:,.3f} GB, and there is room for "
            f"{room_bytes / 1e9:,.3f} GB",
            where=path.name,
            fix="Free some space, or point STUDIO_HOME at a larger disk",
        )


def _most_bytes(name: str) -> float:
    if _ANY_SIZE.fullmatch(name):
        return math.inf
    return _JSON_LIMIT_BYTES if name.casefold().endswith(".json") else _FILE_LIMIT_BYTES


def _room_bytes(home: Home, limit_bytes: int) -> int:
    return min(limit_bytes, shutil.disk_usage(home.place("train")).free)


@contextmanager
def _workplace(home: Home) -> Iterator[Path]:
    """A folder beside the final places, so that a rename brings things there."""
    folder = home.root / ".import.tmp"
    with home.lock("import").open("w") as file, disk_errors("the imported run"):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(
                "Another import is under way", where=str(home.root), fix="Wait until it ends"
            ) from None
        shutil.rmtree(folder, ignore_errors=True)  # of an import that was killed
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _unpack(
    pack: zipfile.ZipFile, manifest: ArchiveManifest, folder: Path, path: Path, progress: Tick
) -> None:
    done = 0
    for file in manifest.files:
        progress(done / max(1, manifest.size_bytes), "unpacking")
        _unpack_one(pack, file, folder / file.name, path)
        done += file.size_bytes
    for place in (folder, *(found for found in folder.rglob("*") if found.is_dir())):
        sync_folder(place)


def _unpack_one(pack: zipfile.ZipFile, file: ArchivedFile, target: Path, path: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    hashed, left_bytes = hashlib.sha256(), file.size_bytes
    with target.open("xb") as place:
        for chunk in _chunks(pack, file.name, path):
            left_bytes -= len(chunk)
            if left_bytes < 0:
                break
            hashed.update(chunk)
            place.write(chunk)
        place.flush()
        os.fsync(place.fileno())
    if left_bytes or hashed.hexdigest() != file.sha256:
        raise _refused(path, f"{file.name} is not what was exported")


def _chunks(pack: zipfile.ZipFile, name: str, path: Path) -> Iterator[bytes]:
    try:
        with pack.open(name) as packed:
            while chunk := packed.read(CHUNK_BYTES):
                yield chunk
    except _UNREADABLE:
        raise _refused(path, f"{name} is damaged") from None


def _check_content(job: Job, dataset_folder: Path, manifest: ArchiveManifest, path: Path) -> None:
    """Read everything once as its later readers will."""
    try:
        request = read_request(job)
        plan = planned(job)
        if isinstance(request, TrainRequest) and request.sweep_id:
            _leave_sweep(job)
        dataset = read_dataset(dataset_folder)
        state = _checked_state(job, path)
        saves = find_saves(job.checkpoints, finished=state == "finished")
    except (RecursionError, ValueError, TypeError):
        raise _refused(path, "The archive's files cannot be read") from None
    same = dataset.id == plan.dataset_id == manifest.dataset_id
    if not same or dataset.sha256 != plan.dataset_sha256:
        raise _refused(path, "The data in the archive is not what the run learned from")
    if state == "finished" and saves is None:
        raise _refused(path, "The archive holds no weights of its finished run")


def _leave_sweep(job: Job) -> None:
    """A run that came alone belongs to no sweep here, even where one is called the same."""
    content = json.loads((job.folder / REQUEST).read_bytes())
    content["request"]["sweep_id"] = ""
    write_atomically(job.folder / REQUEST, canonical_json(content, indent=2))


def _checked_state(job: Job, path: Path) -> str:
    for events in job.attempt_events().values():
        if not _are_plausible(events):
            raise _refused(path, "The run's events are not what a run reports")
    state = job.status().state
    if state == "running":  # it would be watched, and stopped, as if it were that process
        raise _refused(path, "The archive names a process of this machine as its worker")
    return state


def _are_plausible(events: Path) -> bool:
    num_torn = 0
    with events.open("rb") as file:
        while line := file.readline(_EVENT_LIMIT_BYTES):  # split where its readers do
            if len(line) == _EVENT_LIMIT_BYTES:
                return False
            try:
                stamped = from_json(line)
            except ValueError:  # torn, as a kill leaves it
                num_torn += 1
                if num_torn > _MOST_TORN_LINES:
                    return False
                continue
            if not _is_plausible(stamped):
                return False
    return True


def _is_plausible(stamped: Stamped) -> bool:
    """Whether its values are of their kinds: a JSON line may say anything."""
    values = vars(stamped.event)
    try:
        _EVENTS[type(stamped.event)].validate_json(json.dumps(values, default=vars), strict=True)
    except ValidationError:
        return False
    numbers = [stamped.monotonic_seconds, *values.values()]
    is_date = 0 <= stamped.at < _YEAR_3000_SECONDS
    return is_date and all(math.isfinite(n) for n in numbers if isinstance(n, float))


def _place_dataset(home: Home, staged: Path, manifest: ArchiveManifest) -> None:
    final = home.place("dataset") / manifest.dataset_id
    if not final.exists():
        staged.rename(final)
        sync_folder(final.parent)
        return
    try:
        same = read_dataset(final).sha256 == read_dataset(staged).sha256
    except StudioError:
        same = False
    if not same:
        raise RunError(
            "Other data of the same name is here already",
            where=final.name,
            fix="Import it with another STUDIO_HOME",
        )


def _already(name: str) -> RunError:
    return RunError(
        "This run is here already",
        where=name,
        fix=f"Delete it first (python app.py jobs delete {name}), or import it with another "
        "STUDIO_HOME",
    )


def _refused(path: Path, what: str) -> RunError:
    return RunError(what, where=path.name, fix="Export the run again, and copy the file whole")
