"""What people call a job: name, tags and note. Labels only; no path is ever made of them."""

import json
import os
import unicodedata
from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from engine.jobs import Job
from templates.errors import RunError
from templates.files import canonical_json, write_atomically
from templates.values import Value

ABOUT = "about.json"
_INVISIBLE = ("Cc", "Cf", "Cs")  # control, direction and half characters


def _text(value: object) -> object:
    """Drop what cannot be seen; line breaks and tabs stay."""
    if not isinstance(value, str):
        return value
    return "".join(
        char for char in value if char in "\n\t" or unicodedata.category(char) not in _INVISIBLE
    ).strip()


def _line(value: object) -> object:
    return _text(" ".join(value.split())) if isinstance(value, str) else value


def _once(tags: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(tags))


Tag = Annotated[str, BeforeValidator(_line), Field(min_length=1, max_length=30)]


class About(Value):
    """Labels of a job."""

    name: Annotated[str, BeforeValidator(_line), Field(max_length=100)] = ""
    tags: Annotated[tuple[Tag, ...], AfterValidator(_once), Field(max_length=20)] = ()
    note: Annotated[str, BeforeValidator(_text), Field(max_length=10_000)] = ""


def read_about(job: Job) -> About:
    """Read a job's labels.

    Args:
        job: any job.

    Returns:
        Its labels; none where nobody gave any, or where the file is damaged.
    """
    try:
        content = json.loads((job.folder / ABOUT).read_text(encoding="utf-8"))
        return About.model_validate(content)
    except (OSError, ValueError, RecursionError):
        return About()


def change_about(
    job: Job,
    *,
    name: str | None = None,
    note: str | None = None,
    add_tags: Sequence[str] = (),
    remove_tags: Sequence[str] = (),
) -> About:
    """Change some of a job's labels, also while it runs.

    Args:
        job: any job.
        name: the new name; None leaves it.
        note: the new note; None leaves it.
        add_tags: put behind those it has.
        remove_tags: taken away, where it has them.

    Returns:
        All labels as they are now.

    Raises:
        RunError: there is no such job, a label is too long, or there are too many tags.
    """
    job.request(job.kind)
    before = read_about(job)
    removed = {_line(tag) for tag in remove_tags}
    kept = tuple(tag for tag in before.tags if tag not in removed)
    try:
        about = About(
            name=before.name if name is None else name,
            tags=(*kept, *add_tags),
            note=before.note if note is None else note,
        )
    except ValidationError as error:
        complaint = _complaint(error)
    else:
        times = job.folder.stat()
        write_atomically(job.folder / ABOUT, canonical_json(about.model_dump(mode="json")))
        # What is latest is told by the folder's time, and a label makes nothing newer.
        os.utime(job.folder, ns=(times.st_atime_ns, times.st_mtime_ns))
        return about
    raise RunError(complaint, where=job.id, fix="Shorten it, or leave it out")


def _complaint(error: ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    most = problem.get("ctx", {}).get("max_length")
    if most is None:
        return "A tag is empty"
    if problem["loc"] == ("tags",):
        return f"A job has at most {most} tags"
    place = "A tag" if "tags" in problem["loc"] else f"The {problem['loc'][0]}"
    return f"{place} has at most {most:,} characters; this one is longer"
