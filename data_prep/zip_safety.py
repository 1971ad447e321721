"""Zip files, judged before anything in them is unpacked."""

import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from templates.errors import DataError

MAX_MEMBERS = 100_000
MAX_UNPACKED_BYTES = 1 << 30
_PLAIN_BYTES = 64 << 20  # so much may come out of however few bytes
_MAX_RATIO = 200
_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError)
_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_IS_ENCRYPTED = 1  # bit of a member's flags


@contextmanager
def open_zip(path: Path, name: str) -> Iterator[zipfile.ZipFile]:
    """Open a zip file whose directory promises what may be unpacked.

    Reading a member afterwards gives no more bytes than the directory says.

    Args:
        path: the file.
        name: what to call it in sentences.

    Yields:
        The file.

    Raises:
        DataError: it is damaged, encrypted, or would unpack to too much.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _refuse_bomb(archive.infolist(), name)
            yield archive
    except _DAMAGE:
        raise DataError(
            "The file is damaged: it cannot be unpacked",
            where=name,
            fix="Save or pack it again, and upload that",
        ) from None
    except NotImplementedError:  # a newer zip than this one
        raise _unknown_packing(name) from None


def _refuse_bomb(members: Sequence[zipfile.ZipInfo], name: str) -> None:
    unpacked = sum(member.file_size for member in members)
    packed = sum(member.compress_size for member in members)
    too_dense = unpacked > _PLAIN_BYTES and unpacked > _MAX_RATIO * max(1, packed)
    if unpacked > MAX_UNPACKED_BYTES or too_dense or len(members) > MAX_MEMBERS:
        raise DataError(
            f"Unpacked, this would be {len(members):,} file(s) of {unpacked / 1e6:,.0f} MB",
            where=name,
            fix="Upload a part of the rows; a few thousand good ones are enough",
        )
    if any(member.flag_bits & _IS_ENCRYPTED for member in members):
        raise DataError(
            "The file is protected with a password",
            where=name,
            fix="Save or pack it again without a password",
        )
    if any(member.compress_type not in _PACKINGS for member in members):
        raise _unknown_packing(name)


def _unknown_packing(name: str) -> DataError:
    return DataError(
        "The file is packed in a way that is not read",
        where=name,
        fix="Pack it again as an ordinary zip",
    )
