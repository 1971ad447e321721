"""Tables in data sets on the Hub: what there is, and one of them as a file. Runs no code of theirs.

A data set is a repository of files. A table is one split of one configuration, in one file or in
numbered parts: as its card says, or as the names of its files tell. Where no file can be read, the
Hub's own Parquet copy of the data set is taken.
"""

import hashlib
import json
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import httpx2
from huggingface_hub import constants, get_session, hf_hub_url, hf_raise_for_status
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils._headers import build_hf_headers
from pydantic import BaseModel, Field, ValidationError

from data_prep.database import DatabaseError, read_files
from templates.errors import DataError, RunError
from templates.files import disk_errors
from templates.hub_address import check_hub_address
from templates.values import Value

MAX_BYTES = 500_000_000
_ENDINGS = (".parquet", ".jsonl", ".ndjson", ".csv", ".tsv", ".json")
_CONVERTED = "refs/convert/parquet"
_NAME = re.compile(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}")
_TOKEN = re.compile(r"[\x21-\x7e]{0,512}")
_SPLITS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_PART = re.compile(r"[-_.]?\d+(-of-\d+)?$")
_ANSWER_SECONDS = 20.0
_LARGEST_ANSWER_BYTES = 32 << 20
_BLOCK_BYTES = 1 << 20
_MOST_FILES = 20_000
_MOST_COMPARED = 2_000_000_000  # characters of a path times those of a pattern: two seconds
_COMPARED_AT_LEAST = 20  # so many stand for the costs of short ones
_LONGEST_PATH = 500

Progress = Callable[[float, str], None]


class HubFile(Value):
    """One file of a data set."""

    path: str
    num_bytes: int = Field(ge=0)
    sha256: str = Field(default="", description="Where the Hub tells it.")


class HubTable(Value):
    """One split of one configuration."""

    configuration: str
    split: str
    files: tuple[HubFile, ...] = Field(min_length=1)
    revision: str = Field(description="The commit that holds the files.")

    @property
    def ending(self) -> str:
        """Of all its files, such as ".parquet"."""
        return _ending(self.files[0].path)

    @property
    def total_bytes(self) -> int:
        """Of all its files."""
        return sum(file.num_bytes for file in self.files)

    @property
    def title(self) -> str:
        """What a person calls it."""
        return self.split if self.configuration == "default" else (
            f"{self.configuration}, {self.split}"
        )  # fmt: skip


def check_name(name: str) -> str:
    """Refuse what is not the id of a data set, above all addresses.

    Args:
        name: as it was typed.

    Returns:
        The id.

    Raises:
        DataError: it does not have the form owner/name.
    """
    name = name.strip()
    if not _NAME.fullmatch(name) or ".." in name or "--" in name:
        raise DataError(
            "This is not the id of a data set",
            where=repr(name[:100]),
            fix="Give it as owner/name: the last two parts of its page's address",
        )
    return name


def list_tables(name: str, *, revision: str = "", token: str = "") -> tuple[HubTable, ...]:
    """Ask the Hub which tables a data set has.

    Args:
        name: its id, such as "owner/name".
        revision: branch, tag or commit; empty: the newest.
        token: for private ones; goes into one header and nowhere else.

    Returns:
        At least one, training splits first.

    Raises:
        DataError: there is no such data set, it may not be read, or it has no table.
    """
    name = check_name(name)
    with _in_words(name):
        found = _ask(name, revision or "main", token)
        tables = _tables(found, name)
        if not tables and not revision:
            try:
                tables = _tables(_ask(name, _CONVERTED, token), name)
            except (RevisionNotFoundError, RepositoryNotFoundError):
                tables = []
    if not tables:
        raise DataError(
            "The data set has no table that can be read without running its code",
            where=name,
            fix="Choose one with Parquet, CSV, JSON or JSON Lines files",
        )
    return tuple(tables)


def choose_table(
    tables: Sequence[HubTable], *, name: str, configuration: str = "", split: str = ""
) -> HubTable:
    """Choose one of the tables of a data set.

    Args:
        tables: from `list_tables`.
        name: of the data set, for sentences.
        configuration: empty: the first one.
        split: empty: the one to train with.

    Returns:
        The table.

    Raises:
        DataError: there is no such table, or it is too large.
    """
    matching = [
        table
        for table in tables
        if configuration in ("", table.configuration) and split in ("", table.split)
    ]
    if not matching:
        known = "; ".join(table.title for table in tables[:10])
        wanted = ", ".join(filter(None, (configuration, split)))
        raise DataError(
            f"The data set has no table {wanted!r}", where=name, fix=f"Choose one of these: {known}"
        )
    table = matching[0]
    if table.total_bytes > MAX_BYTES:
        raise DataError(
            f"The table has {table.total_bytes / 1e6:,.0f} MB; "
            f"at most {MAX_BYTES / 1e6:.0f} MB are downloaded",
            where=f"{name}, {table.title}",
            fix="Choose a smaller split, or upload a part of the rows as a file",
        )
    return table


def download_table(
    name: str, table: HubTable, target: Path, *, token: str = "", progress: Progress
) -> None:
    """Bring a table here, as one file.

    Args:
        name: the data set's id.
        table: one of its tables.
        target: the new file; its folder exists.
        token: for private ones.
        progress: is told the share done and what is being done.

    Raises:
        DataError: the Hub cannot be reached, or sends something else than it announced.
    """
    name = check_name(name)
    parts = [
        target.with_name(f".{target.name}.{number}.part") for number in range(len(table.files))
    ]
    done_bytes = 0
    try:
        for part, file in zip(parts, table.files, strict=True):

            def tell(num_bytes: int, before: int = done_bytes) -> None:
                words = f"{(before + num_bytes) / 1e6:.1f} of {table.total_bytes / 1e6:.1f} MB"
                progress((before + num_bytes) / max(1, table.total_bytes), words)

            with _in_words(name):
                _download(name, table.revision, file, part, token, tell)
            done_bytes += file.num_bytes
        with disk_errors("the table"):
            if len(parts) == 1:
                parts[0].rename(target)
            else:
                _JOIN[table.ending](parts, target, name)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)


class _Sibling(BaseModel):
    """One file, as the Hub lists it."""

    rfilename: str
    size: int | None = None
    lfs: Mapping[str, Any] | None = None


class _Answer(BaseModel):
    """What is used of the Hub's answer."""

    sha: str
    siblings: list[_Sibling] = []
    cardData: dict[str, Any] | None = None


def _ask(name: str, revision: str, token: str) -> _Answer:
    """Read an answer that is neither endless nor endlessly slow."""
    if not _TOKEN.fullmatch(token):
        raise DataError(
            "The token holds a space, a line break or an unusual letter",
            where=name,
            fix="Copy it once more, alone",
        )
    place = revision.replace("/", "%2F")
    address = f"{constants.ENDPOINT}/api/datasets/{name}/revision/{place}"
    headers = _headers(address, token)
    latest = time.monotonic() + _ANSWER_SECONDS
    content = b""
    with get_session().stream(
        "GET", address, params={"blobs": "true"}, headers=headers, timeout=_ANSWER_SECONDS
    ) as response:
        hf_raise_for_status(response)
        for block in response.iter_bytes():
            content += block
            if time.monotonic() > latest:
                raise TimeoutError
            if len(content) > _LARGEST_ANSWER_BYTES:
                raise ValueError
    return _Answer.model_validate(json.loads(content))


def _headers(address: str, token: str) -> dict[str, str]:
    if token:
        check_hub_address(address, DataError)
    return build_hf_headers(token=token or False)


def _tables(found: _Answer, name: str) -> list[HubTable]:
    files = [
        HubFile(path=each.rfilename, num_bytes=each.size, sha256=_sha256(each))
        for each in found.siblings
        if _ending(each.rfilename) in _ENDINGS and each.size is not None and each.size >= 0
        and len(each.rfilename) <= _LONGEST_PATH
    ]  # fmt: skip
    if len(files) > _MOST_FILES:
        raise _too_many("files of tables", name)
    groups = _as_the_card_says(found.cardData or {}, files, name) or _as_the_names_tell(files)
    tables = []
    for (configuration, split), group in groups.items():
        # Parts are of one kind; where there are several kinds, the first of our list is taken.
        ending = next(one for one in _ENDINGS if any(_ending(file.path) == one for file in group))
        chosen = tuple(
            sorted((f for f in group if _ending(f.path) == ending), key=lambda f: f.path)
        )
        chosen = chosen[:1] if ending == ".json" else chosen  # arrays cannot be put in a row
        tables.append(
            HubTable(
                configuration=configuration[:100],
                split=split[:100],
                files=chosen,
                revision=found.sha,
            )
        )
    order = list(_SPLITS)
    tables.sort(key=lambda t: (
        t.configuration != "default", t.configuration,
        order.index(t.split) if t.split in order else len(order), t.split,
    ))  # fmt: skip
    return tables


def _sha256(file: _Sibling) -> str:
    told = (file.lfs or {}).get("sha256")
    return told if isinstance(told, str) else ""


_Groups = dict[tuple[str, str], list[HubFile]]


def _as_the_card_says(card: Mapping[str, Any], files: Sequence[HubFile], name: str) -> _Groups:
    """Read `configs` of the card: configuration, splits, patterns of file names."""
    groups: _Groups = defaultdict(list)
    path_characters = sum(len(file.path) + _COMPARED_AT_LEAST for file in files)
    num_compared = 0
    configurations = card.get("configs")
    for one in configurations if isinstance(configurations, list) else []:
        if not isinstance(one, dict):
            continue
        entries = one.get("data_files")
        for entry in entries if isinstance(entries, list) else [entries]:
            if isinstance(entry, dict):
                split, patterns = str(entry.get("split", "train")), entry.get("path")
            else:
                split, patterns = "train", entry
            for pattern in patterns if isinstance(patterns, list) else [patterns]:
                if not isinstance(pattern, str) or len(pattern) > _LONGEST_PATH:
                    continue
                num_compared += path_characters * (len(pattern) + _COMPARED_AT_LEAST)
                if num_compared > _MOST_COMPARED:
                    raise _too_many("tables on its card", name)
                matching = [file for file in files if _fits(file.path, pattern)]
                groups[str(one.get("config_name", "default")), split] += matching
    return {key: list(dict.fromkeys(group)) for key, group in groups.items() if group}


def _fits(path: str, pattern: str) -> bool:
    pattern = pattern.removeprefix("./").replace("**/", "*")
    return fnmatchcase(path, pattern)


def _too_many(what: str, name: str) -> DataError:
    return DataError(
        f"The data set has too many {what}",
        where=name,
        fix="Choose a smaller one, or download the table yourself and upload it",
    )


def _as_the_names_tell(files: Sequence[HubFile]) -> _Groups:
    """Find splits in names of files and folders: data/train-00000-of-00002.parquet, en/test.csv."""
    groups: _Groups = defaultdict(list)
    for file in files:
        *folders, last = PurePosixPath(file.path).parts
        stem = _PART.sub("", PurePosixPath(last).stem)
        folders = [folder.removeprefix("partial-") for folder in folders]  # of the Hub's copies
        words = [*re.split(r"[\W_]+", stem.lower()), *(folder.lower() for folder in folders)]
        known = {name: split for split, names in _SPLITS.items() for name in names}
        split = next((known[word] for word in words if word in known), "")
        if not split and stem.startswith("dataset_info"):
            continue
        rest = [folder for folder in folders if folder.lower() not in {"data", *known}]
        groups["/".join(rest) or "default", split or stem or "train"].append(file)
    return dict(groups)


def _ending(path: str) -> str:
    return PurePosixPath(path).suffix.lower()


def _download(
    name: str, revision: str, file: HubFile, target: Path, token: str, tell: Callable[[int], None]
) -> None:
    address = hf_hub_url(name, file.path, repo_type="dataset", revision=revision)
    headers = _headers(address, token)
    digest, num_bytes = hashlib.sha256(), 0
    with (
        get_session().stream(
            "GET", address, headers=headers, timeout=_ANSWER_SECONDS, follow_redirects=True
        ) as response,
        disk_errors("the table"),
        target.open("wb") as out,
    ):
        hf_raise_for_status(response)
        for block in response.iter_bytes(_BLOCK_BYTES):
            num_bytes += len(block)
            if num_bytes > file.num_bytes:
                break
            out.write(block)
            digest.update(block)
            tell(num_bytes)
    is_it = file.sha256 in ("", digest.hexdigest())
    if num_bytes != file.num_bytes or not is_it:
        raise DataError(
            "The Hub sent something else than it had announced",
            where=f"{name}, {file.path}",
            fix="Download it again",
        )


def _join_lines(parts: Sequence[Path], target: Path, name: str) -> None:
    """Put JSON Lines one after the other."""
    with target.open("wb") as out:
        for part in parts:
            with part.open("rb") as file:
                _append(file, out)


def _append(file: BinaryIO, out: BinaryIO, written: bytes = b"\n") -> None:
    """Write the rest of a part, and a line break where it does not end in one."""
    while block := file.read(_BLOCK_BYTES):
        out.write(block)
        written = block
    if not written.endswith(b"\n"):
        out.write(b"\n")


def _join_delimited(parts: Sequence[Path], target: Path, name: str) -> None:
    """Put tables below each other, under one header."""
    header = b""
    with target.open("wb") as out:
        for number, part in enumerate(parts):
            with part.open("rb") as file:
                first = file.readline(_BLOCK_BYTES)
                header = header or first.strip()
                if first.strip() != header:
                    raise DataError(
                        "The parts of the table have different columns",
                        where=name,
                        fix="Download one of its files yourself and upload that",
                    )
                if not number:
                    out.write(first)
                _append(file, out, written=first)


def _join_parquet(parts: Sequence[Path], target: Path, name: str) -> None:
    try:
        with read_files("the Parquet files") as connection:
            paths = [str(part) for part in parts]
            connection.read_parquet(paths, union_by_name=True).write_parquet(str(target))
    except (DatabaseError, RunError):
        target.unlink(missing_ok=True)
        raise DataError(
            "The parts of the table are damaged or do not fit together",
            where=name,
            fix="Choose another split, or upload a part of the rows as a file",
        ) from None


_JOIN: dict[str, Callable[[Sequence[Path], Path, str], None]] = {
    ".parquet": _join_parquet,
    ".jsonl": _join_lines,
    ".ndjson": _join_lines,
    ".csv": _join_delimited,
    ".tsv": _join_delimited,
}


@contextmanager
def _in_words(name: str) -> Iterator[None]:
    """Turn what the Hub or the way to it says into sentences."""
    try:
        yield
    except GatedRepoError:
        raise DataError(
            "The data set asks for its terms to be accepted first",
            where=name,
            fix="Accept them on its page on the Hub, and give a token of the same account",
        ) from None
    except RevisionNotFoundError:
        raise DataError(
            "The data set has no such revision", where=name, fix="Leave the revision out"
        ) from None
    except RepositoryNotFoundError:
        raise DataError(
            "The Hub has no public data set of this name",
            where=name,
            fix="Check the spelling; for a private one, give a token that may read it",
        ) from None
    except HfHubHTTPError as error:
        raise _refused(
            name, error.response.status_code if error.response is not None else 0
        ) from None
    except OfflineModeIsEnabled:
        raise DataError(
            "The studio was told to stay offline (HF_HUB_OFFLINE)",
            where=name,
            fix="Start it without that, or upload a file",
        ) from None
    except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError, ConnectionError):
        raise DataError(
            "The Hub cannot be reached",
            where=name,
            fix="Connect to the network, or upload a file instead",
        ) from None
    except (ValidationError, ValueError, RecursionError):
        raise DataError(
            "The Hub's answer cannot be read", where=name, fix="Try again later, or upload a file"
        ) from None


def _refused(name: str, status: int) -> DataError:
    if status == 401:
        what, fix = "The Hub does not accept the token", "Check it, or leave the field empty"
    elif status == 403:
        what, fix = "The token may not read this data set", "Give a token with the right to read it"
    elif status == 404:
        what, fix = "The data set or a file of it is not there", "Check the spelling of owner/name"
    elif status == 429:
        what, fix = "The Hub has been asked too often", "Wait some minutes and try again"
    else:
        what, fix = f"The Hub refused to answer (status {status})", "Try again later"
    return DataError(what, where=name, fix=fix)
