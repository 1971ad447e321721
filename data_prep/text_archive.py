"""A zip of text files as a table: each file is a row; folders may say which class it has."""

import zipfile
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path, PurePosixPath

from data_prep.encoding import decode
from data_prep.table import (
    MAX_CELL_CHARACTERS,
    Batch,
    Facts,
    in_batches,
    refuse_long_cells,
    strip_edges,
)
from data_prep.zip_safety import open_zip
from templates.errors import DataError

_LISTED = 5
_LABEL_CHARACTERS = 120


def read_text_archive(
    path: Path, *, name: str, encoding: str | None = None, max_rows: int | None = None
) -> Generator[Batch, None, Facts]:
    """Read the .txt files of a zip.

    Args:
        path: the zip file.
        name: what to call it in sentences.
        encoding: of the texts; None finds out for each.
        max_rows: leave out what follows; None reads all.

    Returns:
        The rows, a batch at a time; and in the end how the file was understood. The line of a
        row is its number.

    Raises:
        DataError: the zip is damaged, protected, too large, or holds no text file.
    """
    with open_zip(path, name) as archive:
        files = [
            member
            for member in archive.infolist()
            if not member.is_dir() and not _is_litter(member.filename)
        ]
        texts = [member for member in files if _is_text(member.filename)]
        others = [member.filename for member in files if not _is_text(member.filename)]
        if not texts:
            held = f"; it holds {_listed(others)}" if others else ""
            raise DataError(
                f"There is no .txt file in the zip{held}",
                where=name,
                fix="Pack one .txt file for each text, or upload the table inside by itself",
            )
        folders = _folders([member.filename for member in texts])
        reader = _Texts(archive, name, encoding)
        yield from in_batches(reader.read(texts[:max_rows], folders))
    encodings = sorted(reader.encodings)
    notes = [f"{len(texts):,} text file(s), one row each"]
    if others:
        notes.append(f"{len(others):,} other file(s) left out: {_listed(others)}")
    notes += [f"{count:,} file(s): {note}" for note, count in sorted(reader.notes.items()) if count]
    return Facts(
        format="zip",
        encoding=encodings[0] if len(encodings) == 1 else "several",
        delimiter=None,
        columns=("file", *(("folder",) if folders else ()), "text"),
        notes=tuple(notes),
    )


class _Texts:
    """The texts, and how they were decoded."""

    def __init__(self, archive: zipfile.ZipFile, name: str, encoding: str | None) -> None:
        self.encodings: set[str] = set()
        self.notes: Counter[str] = Counter()
        self._archive, self._name, self._encoding = archive, name, encoding

    def read(
        self, members: Sequence[zipfile.ZipInfo], folders: dict[str, str]
    ) -> Iterator[tuple[int, list[str]]]:
        """Give one row for each."""
        for number, member in enumerate(members, 1):
            label = _label(PurePosixPath(_forward(member.filename)).name)
            where = f"{self._name}, {label}"
            if member.file_size > 4 * MAX_CELL_CHARACTERS:  # bytes of a character
                raise DataError("A text is too long", where=where, fix="Cut it into several files")
            decoded = decode(self._archive.read(member), name=where, encoding=self._encoding)
            self.encodings.add(decoded.encoding)
            self.notes.update(note.partition(" (line")[0] for note in decoded.notes)
            text = strip_edges(decoded.text)
            refuse_long_cells([text], where)
            folder = [folders[member.filename]] if folders else []
            yield number, [label, *folder, text]


def _folders(names: Sequence[str]) -> dict[str, str]:
    """Give the folder of each file below the one that holds all; nothing where there is only one.

    They are labels and never places: what leads out of the zip is dropped.
    """
    parts = [
        [part for part in _forward(name).split("/")[:-1] if part not in ("", ".", "..")]
        for name in names
    ]
    while all(parts) and len({path[0] for path in parts}) == 1:
        parts = [path[1:] for path in parts]
    if not any(parts):
        return {}
    return {name: _label("/".join(path)) for name, path in zip(names, parts, strict=True)}


def _forward(name: str) -> str:
    return name.replace("\\", "/")


def _is_text(name: str) -> bool:
    return name.lower().endswith(".txt")


def _is_litter(name: str) -> bool:
    """Whether a program that packs files put it there, and nobody else."""
    parts = _forward(name).split("/")
    return parts[0] == "__MACOSX" or parts[-1].startswith("._") or parts[-1] == ".DS_Store"


def _label(text: str) -> str:
    return "".join(char for char in text if char.isprintable())[-_LABEL_CHARACTERS:]


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(_label(name) for name in names[:_LISTED])
    return shown + (" …" if len(names) > _LISTED else "")
