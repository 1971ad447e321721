"""What leaves the house with a published folder: files, card, and what should perhaps stay. Light.

It finds e-mail addresses, phone numbers, payment card numbers and keys that open something. It
cannot find names of people: the card is there to be read.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from data_prep.cleaners.mask_personal_data import Options, mask
from engine.jobs import Job
from engine.publishing.publication import CARD, RECORD, Publication, PublishedFile
from engine.publishing.published_files import list_files
from studio.jobs.requests import PublishRequest
from studio.records import PUBLICATION
from templates.errors import RunError
from templates.files import sha256_of_bytes
from templates.values import Value, parse

OWN_FOLDER = "model"
_CONFIGS = ("adapter_config.json", "config.json")
_NOTHING = Options(emails=False, phones=False, cards=False)
_KINDS = {
    "e-mail address": _NOTHING.model_copy(update={"emails": True}),
    "phone number": _NOTHING.model_copy(update={"phones": True}),
    "payment card number": _NOTHING.model_copy(update={"cards": True}),
}
_KEY_KIND = "key or token"
_KEY = re.compile(
    r"\bhf_[A-Za-z0-9]{20,}"
    r"|\bsk-[\w-]{20,}"
    r"|\b(?:gh[pousr]_|github_pat_)\w{20,}"
    r"|\bglpat-[\w-]{20,}"
    r"|\bxox[abeoprs]-[\w-]{10,}"
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"
    r"|\bAIza[\w-]{35}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
_AROUND = 60


class Finding(Value):
    """Something in a text that is about to be published, and perhaps should not be."""

    id: str = Field(description="The same for the same text at the same place.")
    file: str
    where: str = Field(description='Such as "line 12" or "prompt.template.wording".')
    kind: str
    excerpt: str = Field(description="The text around it, masked.")


class Outgoing(Value):
    """What a person looks at before it goes out."""

    files: tuple[PublishedFile, ...]
    card: str = Field(description="The model card, Markdown with front matter.")
    findings: tuple[Finding, ...]

    @property
    def size_bytes(self) -> int:
        """All files together."""
        return sum(file.size_bytes for file in self.files)


def published_folder(job: Job) -> Path:
    """Say where a publish job writes the model.

    Args:
        job: a publish job.

    Returns:
        The folder; it is there once the job has finished.
    """
    request = parse(PublishRequest, job.request("publish"), where=job.id, error=RunError)
    if request.publication_id:
        return published_folder(Job(job.folder.with_name(request.publication_id)))
    return Path(request.to) if request.to else job.folder / OWN_FOLDER


def read_publication(job: Job) -> Publication | None:
    """Read what a publish job has written.

    Args:
        job: a publish job.

    Returns:
        Its record; None where the model is not written yet.
    """
    path = job.folder / PUBLICATION
    if not path.is_file():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    return parse(Publication, content, where=job.id, error=RunError)


def what_will_be_uploaded(folder: Path, files: tuple[PublishedFile, ...] | None = None) -> Outgoing:
    """Look through a published folder before it leaves.

    Args:
        folder: from a publish job.
        files: as they were listed when they were written; None: they are measured now.

    Returns:
        Its files, its card, and what was found in its texts.

    Raises:
        RunError: it is not a published folder.
    """
    card = folder / CARD
    if not card.is_file():
        raise RunError(
            "This is not a published folder", where=folder.name, fix="Publish a finished run"
        )
    findings = [
        finding for file, where, text in _texts(folder) for finding in _findings(file, where, text)
    ]
    return Outgoing(
        files=list_files(folder) if files is None else files,
        card=card.read_text(encoding="utf-8"),
        findings=tuple({finding.id: finding for finding in findings}.values()),
    )


def require_acknowledged(outgoing: Outgoing, acknowledged: Sequence[str]) -> None:
    """Refuse to publish what somebody has to look at first.

    Args:
        outgoing: what is about to leave.
        acknowledged: ids of findings that a person has accepted.

    Raises:
        RunError: there are others.
    """
    left = [finding for finding in outgoing.findings if finding.id not in acknowledged]
    if not left:
        return
    first, more = left[0], f" and {len(left) - 1} more" if left[1:] else ""
    raise RunError(
        f"There may be something private in it: {first.kind} in {first.file}{more}",
        where=first.where,
        fix="Look at each one; change the title or the template, or accept them",
    )


def confirm_public(repo_id: str, typed: str) -> None:
    """Let everybody see a model only where that is meant.

    Args:
        repo_id: where it goes.
        typed: the same, typed once more by the person.

    Raises:
        RunError: they differ.
    """
    if typed.strip() != repo_id:
        raise RunError(
            "Everybody will be able to see and copy a public model",
            where=repo_id,
            fix="Type its whole name once more to confirm that, or keep it private",
        )


def _texts(folder: Path) -> Iterator[tuple[str, str, str]]:
    """File, place in it, and one line of what a person or the data wrote."""
    lines = (folder / CARD).read_text(encoding="utf-8").splitlines()
    yield from ((CARD, f"line {number}", line) for number, line in enumerate(lines, 1))
    for name in (RECORD, *_CONFIGS):
        if (folder / name).is_file():
            content = json.loads((folder / name).read_text(encoding="utf-8"))
            yield from ((name, where, text) for where, text in _strings(content, ""))


def _strings(content: Any, where: str) -> Iterator[tuple[str, str]]:
    """Texts alone: numbers are measurements."""
    if isinstance(content, str):
        yield from ((where, line) for line in content.splitlines())
    elif isinstance(content, list):
        for number, item in enumerate(content, 1):
            yield from _strings(item, f"{where}.{number}")
    elif isinstance(content, dict):
        for key, item in content.items():
            yield where or "keys", key
            yield from _strings(item, f"{where}.{key}".removeprefix("."))


def _findings(file: str, where: str, text: str) -> Iterator[Finding]:
    found = [kind for kind, options in _KINDS.items() if mask(text, options, Counter()) != text]
    if _KEY.search(text):
        found.append(_KEY_KIND)
    for kind in found:
        named = sha256_of_bytes("\0".join((file, where, kind, text)).encode())[:16]
        yield Finding(id=named, file=file, where=_masked(where), kind=kind, excerpt=_excerpt(text))


def _masked(text: str) -> str:
    return mask(_KEY.sub("[KEY]", text), Options(), Counter())


def _excerpt(text: str) -> str:
    """The text around the first mark."""
    masked = _masked(text)
    mark = re.search(r"\[(EMAIL|PHONE|CARD|KEY)\]", masked)
    start = max(0, mark.start() - _AROUND) if mark else 0
    end = start + 2 * _AROUND
    return f"{'…' if start else ''}{masked[start:end]}{'…' if end < len(masked) else ''}"
