"""A run, out of this home into one zip file."""

import hashlib
import os
import tomllib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

from engine.jobs import Job
from engine.plan import TrainPlan
from studio.home import Home
from studio.records import planned
from studio.runs.archive import (
    CARRIED,
    CHUNK_BYTES,
    MANIFEST,
    VERSION,
    ArchivedFile,
    ArchiveManifest,
    Tick,
    no_tick,
)
from studio.runs.idle import idle
from studio.runs.saves import find_saves
from templates.dataset import read_dataset
from templates.errors import RunError
from templates.files import canonical_json, disk_errors, sha256_of_file, sync_folder

_PROJECT = Path(__file__).parents[2] / "pyproject.toml"
_ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # equal runs give equal bytes
_READABLE = 0o100644 << 16
_INCOMPRESSIBLE = ".safetensors"


def export_run(home: Home, job: Job, target: Path, *, progress: Tick = no_tick) -> ArchiveManifest:
    """Pack a run with its data, whole or not at all.

    Args:
        home: where the run and its data are.
        job: a train job that neither runs nor waits.
        target: the new zip file.
        progress: called with the share done and a few words.

    Returns:
        What the archive holds.

    Raises:
        RunError: it is no run, it runs or waits, its weights or data are damaged or gone, or the
            file exists or cannot be written.
    """
    if job.kind != "train":
        raise RunError(
            f"Only runs can be exported, and this is a {job.kind} job",
            where=job.id,
            fix="Give the id of a train job",
        )
    if target.exists():
        raise RunError("There is such a file already", where=str(target), fix="Name a new file")
    plan = planned(job)
    dataset_folder = _dataset_folder(home, job, plan)
    temporary = target.with_name(f".{target.name}.{uuid4().hex[:8]}.tmp")
    with idle(home, job), disk_errors(target.name):
        sources = _sources(job, dataset_folder)
        manifest = _described(job, plan, sources, progress)
        try:
            _write(temporary, manifest, sources, progress)
            temporary.rename(target)
            sync_folder(target.parent)
        finally:
            temporary.unlink(missing_ok=True)
    return manifest


def _dataset_folder(home: Home, job: Job, plan: TrainPlan) -> Path:
    folder = home.place("dataset") / plan.dataset_id
    if read_dataset(folder).sha256 != plan.dataset_sha256:
        raise RunError(
            "The data is not what the run learned from any more",
            where=f"{job.id}, {plan.dataset_id}",
            fix="Prepare the upload again with the recipe of that time",
        )
    return folder


def _sources(job: Job, dataset_folder: Path) -> dict[str, Path]:
    """Name in the archive -> file, in the order in which they are written."""
    finished = job.status().state == "finished"
    saves = find_saves(job.checkpoints, finished=finished)
    kept = () if saves is None else (saves.newest, saves.best)
    found = {}
    for root, folder in (("job", job.folder), ("dataset", dataset_folder)):
        for path in sorted(folder.rglob("*")):
            name = f"{root}/{path.relative_to(folder).as_posix()}"
            if path.is_symlink() or not path.is_file() or not CARRIED.fullmatch(name):
                continue
            if job.checkpoints in path.parents and path.parent not in kept:
                continue
            found[name] = path
    return found


def _described(
    job: Job, plan: TrainPlan, sources: Mapping[str, Path], progress: Tick
) -> ArchiveManifest:
    files = []
    for number, (name, path) in enumerate(sources.items()):
        progress(0.3 * number / len(sources), "reading")
        size = path.stat().st_size
        files.append(ArchivedFile(name=name, size_bytes=size, sha256=sha256_of_file(path)))
    return ArchiveManifest(
        version=VERSION,
        studio_version=tomllib.loads(_PROJECT.read_text(encoding="utf-8"))["project"]["version"],
        job_id=job.id,
        dataset_id=plan.dataset_id,
        base_id=plan.base.id,
        files=tuple(files),
    )


def _write(
    archive: Path, manifest: ArchiveManifest, sources: Mapping[str, Path], progress: Tick
) -> None:
    done = 0
    with archive.open("xb") as file:
        with zipfile.ZipFile(file, "w") as pack:
            content = canonical_json(manifest.model_dump(mode="json"), indent=1)
            pack.writestr(_entry(MANIFEST), content)
            for described in manifest.files:
                progress(0.3 + 0.7 * done / max(1, manifest.size_bytes), "packing")
                _add(pack, described, sources[described.name])
                done += described.size_bytes
        file.flush()
        os.fsync(file.fileno())


def _add(pack: zipfile.ZipFile, described: ArchivedFile, path: Path) -> None:
    entry = _entry(described.name)
    entry.file_size = described.size_bytes  # says early whether zip64 is needed
    hashed = hashlib.sha256()
    with path.open("rb") as source, pack.open(entry, "w") as place:
        while chunk := source.read(CHUNK_BYTES):
            hashed.update(chunk)
            place.write(chunk)
    if hashed.hexdigest() != described.sha256:  # a label may be changed at any time
        raise RunError(
            "A file changed while it was exported", where=described.name, fix="Export it again"
        )


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _ZIP_TIME)
    entry.external_attr = _READABLE
    stored = name.endswith(_INCOMPRESSIBLE)
    entry.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
    return entry
