"""Files on their way out: listed with their hashes and packed."""

import os
import shutil
import zipfile
from pathlib import Path

from engine.publishing.publication import PublishedFile
from templates.files import sha256_of_file, sync_folder

_ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # equal folders give equal zips
_READABLE = 0o644 << 16
_INCOMPRESSIBLE = ".safetensors"


def list_files(folder: Path) -> tuple[PublishedFile, ...]:
    """List a folder, and make its files survive a power cut.

    Args:
        folder: what is to be published.

    Returns:
        Its files by their path in the folder.
    """
    files = tuple(describe(path, name) for name, path in _named(folder))
    sync_folder(folder)
    return files


def describe(path: Path, name: str) -> PublishedFile:
    """Measure one file.

    Args:
        path: the file.
        name: what receivers call it.

    Returns:
        Name, size and hash.
    """
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return PublishedFile(name=name, size_bytes=path.stat().st_size, sha256=sha256_of_file(path))


def write_zip(folder: Path, archive: Path, *, root: str) -> None:
    """Pack a folder so that equal folders give equal bytes.

    Args:
        folder: what is to be published.
        archive: the zip to write.
        root: name of the folder inside the zip.
    """
    with zipfile.ZipFile(archive, "w") as pack:
        for name, path in _named(folder):
            entry = zipfile.ZipInfo(f"{root}/{name}", _ZIP_TIME)
            entry.external_attr = _READABLE
            entry.file_size = path.stat().st_size  # says early whether zip64 is needed
            stored = path.suffix == _INCOMPRESSIBLE
            entry.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
            with path.open("rb") as source, pack.open(entry, "w") as place:
                shutil.copyfileobj(source, place, 1024 * 1024)


def _named(folder: Path) -> list[tuple[str, Path]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return sorted((path.relative_to(folder).as_posix(), path) for path in files)
