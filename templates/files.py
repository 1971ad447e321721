"""Bytes on disk: hashes, canonical JSON, and writes that are whole or absent."""

import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from templates.errors import RunError


def sha256_of_bytes(content: bytes) -> str:
    """Hash bytes.

    Args:
        content: any bytes.

    Returns:
        The SHA-256 as 64 hexadecimal digits.
    """
    return hashlib.sha256(content).hexdigest()


def sha256_of_file(path: Path) -> str:
    """Hash a file without holding it in memory.

    Args:
        path: the file.

    Returns:
        The SHA-256 as 64 hexadecimal digits.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical_json(content: Any, *, indent: int | None = None) -> str:
    """Write JSON so that equal values give equal bytes.

    Args:
        content: JSON-ready values.
        indent: spaces per level, or None for one line.

    Returns:
        The text: sorted keys, real characters instead of escapes, no NaN.
    """
    return json.dumps(content, sort_keys=True, ensure_ascii=False, allow_nan=False, indent=indent)


@contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """Turn a full or read-only disk into a sentence.

    Args:
        what: what was being written, such as "the checkpoint".

    Yields:
        Nothing.

    Raises:
        RunError: the disk is full, a size limit is hit, or writing is not permitted.
    """
    try:
        yield
    except Exception as error:  # safetensors and tokenizers hide the system's error in words
        number = error.errno if isinstance(error, OSError) else None
        in_words = re.search(r"\(os error (\d+)\)", str(error))
        if in_words:
            number = int(in_words[1])
        if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise disk_full(what) from None
        if number in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST):
            raise RunError(
                f"There is no place to write {what}", fix="Name a file in a folder that exists"
            ) from None
        if number in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise RunError(
                f"Writing {what} is not permitted", fix="Choose a folder you may write to"
            ) from None
        raise


def disk_full(what: str) -> RunError:
    """Build the sentence for a full disk.

    Args:
        what: what was being written.

    Returns:
        The error to raise.
    """
    return RunError(
        f"The disk is full: {what} could not be written",
        fix="Free some space, or point STUDIO_HOME at a larger disk, and run the step again",
    )


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a whole file or none: temporary name, fsync, rename, fsync of the folder.

    Args:
        path: the final place; its folder exists.
        content: text (stored as UTF-8) or bytes.

    Raises:
        RunError: the disk is full or not writable.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.tmp")
    with disk_errors(path.name):
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut.

    Args:
        folder: an existing folder.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
