"""jobs, what to do with those one has: label, compare settings, delete, free space, hand on."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.jobs import Job
from studio.home import Home
from studio.records import planned
from studio.runs.about import About, change_about, read_about
from studio.runs.difference import Row, difference
from studio.runs.disk import disk_use, prune_checkpoints_of, size_bytes
from studio.runs.exporting import export_run
from studio.runs.importing import import_run
from studio.runs.trash import delete_job, empty_trash, list_trash, restore_job
from studio.screen import progress, say, say_json, say_table
from studio.verbs.inside import inside
from studio.verbs.upload import Json
from templates.errors import RunError, StudioError

JobArgument = Annotated[str, typer.Argument(help='Id of a job, its beginning, or "latest".')]
_DIFFERENCES = {"settings": "Settings that differ", "results": "Results"}


def rename(
    job: JobArgument,
    name: Annotated[str, typer.Argument(help='A label; "" takes it away.')],
    json: Json = False,
) -> None:
    """Give a job a name."""
    found = Home().find_job(job)
    _show_about(found, change_about(found, name=name), json)


def tag(
    job: JobArgument,
    tags: Annotated[list[str], typer.Argument(help="Words to find it by.")],
    remove: Annotated[bool, typer.Option("--remove", help="Take these tags away.")] = False,
    json: Json = False,
) -> None:
    """Put tags on a job."""
    found = Home().find_job(job)
    added, removed = ((), tags) if remove else (tags, ())
    _show_about(found, change_about(found, add_tags=added, remove_tags=removed), json)


def note(
    job: JobArgument,
    text: Annotated[str, typer.Argument(help='What to remember; "" takes it away.')],
    json: Json = False,
) -> None:
    """Write a note on a job."""
    found = Home().find_job(job)
    _show_about(found, change_about(found, note=text), json)


def diff(
    left: Annotated[str, typer.Argument(help="Id of a job.")],
    right: Annotated[str, typer.Argument(help="Id of another job of its kind.")],
    json: Json = False,
) -> None:
    """Show where the settings of two jobs differ, and the results of two runs."""
    home = Home()
    found = difference(home.find_job(left), home.find_job(right))
    if json:
        rows = {name: [vars(row) for row in getattr(found, name)] for name in _DIFFERENCES}
        say_json({"kind": found.kind, "left": found.left, "right": found.right, **rows})
        return
    if not found.settings:
        say("Their settings are the same.")
    for name, heading in _DIFFERENCES.items():
        rows = getattr(found, name)
        if rows:
            say_table(heading, ("", found.left, found.right), [_cells(row) for row in rows])


def delete(
    jobs: Annotated[list[str], typer.Argument(help="Ids of jobs that neither run nor wait.")],
    json: Json = False,
) -> None:
    """Move jobs into the trash, from where they can be restored."""
    home = Home()
    found = {job.id: job for job in map(home.find_job, jobs)}
    left_behind = {}
    for name, job in found.items():
        left_behind[name] = list(delete_job(home, job))
        if json:
            continue
        say(f"Deleted {name}. Bring it back with: python app.py jobs restore {name}")
        if left_behind[name]:
            say(f"Made from it, and still here: {', '.join(left_behind[name])}")
    if json:
        say_json(left_behind)


def restore(
    job: Annotated[str, typer.Argument(help="Id of a deleted job, or its beginning.")],
    json: Json = False,
) -> None:
    """Bring a deleted job back."""
    found = restore_job(Home(), job)
    if json:
        say_json({"job": found.id})
    else:
        say(f"Restored {found.id}. See it with: python app.py jobs show {found.id}")


def trash(
    empty: Annotated[bool, typer.Option("--empty", help="Delete for good.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """List deleted jobs, or delete them for good."""
    home = Home()
    if empty:
        if json and not yes:
            raise RunError("Nobody can be asked with --json", fix="Add --yes to delete for good")
        if not (yes or _is_sure(f"Delete {_counted(len(list_trash(home)), 'job')} for good?")):
            say("Nothing was deleted.")
            raise typer.Exit(1)
        freed_bytes = empty_trash(home)
        if json:
            say_json({"freed_bytes": freed_bytes})
        else:
            say(f"Freed {_size(freed_bytes)}.")
        return
    rows = [(job.id, read_about(job).name, size_bytes(job.folder)) for job in list_trash(home)]
    if json:
        say_json([{"job": name, "name": label, "bytes": size} for name, label, size in rows])
    elif not rows:
        say("The trash is empty.")
    else:
        cells = [(name, label, _size(size)) for name, label, size in rows]
        say_table("Trash", ("job", "name", "size"), cells)
        say("Bring one back with: python app.py jobs restore JOB")


def disk(json: Json = False) -> None:
    """Show what takes up space."""
    home = Home()
    use = disk_use(home)
    if json:
        say_json({**vars(use), "total_bytes": use.total_bytes})
        return
    largest = sorted(use.jobs_bytes.items(), key=lambda item: -item[1])[:10]
    if largest:
        say_table("Largest jobs", ("job", "size"), [(name, _size(size)) for name, size in largest])
    places = [(name, _size(size)) for name, size in use.places_bytes.items()]
    say_table(str(home.root), ("place", "size"), [*places, ("all", _size(use.total_bytes))])
    say("Free some with: python app.py jobs prune, or: python app.py jobs trash --empty")


def prune(
    job: Annotated[str, typer.Argument(help="Id of a run; all finished ones if not given.")] = "",
    json: Json = False,
) -> None:
    """Delete checkpoints that are needed neither to use a run nor to go on with it."""
    home = Home()
    freed, notes = {}, {}
    if job:
        found = home.find_job(job)
        freed[found.id] = prune_checkpoints_of(home, found)
    else:
        for found in map(Job, home.all("train")):
            try:
                if found.status().state == "finished":
                    freed[found.id] = prune_checkpoints_of(home, found)
            except StudioError as error:  # one damaged run keeps no other from being pruned
                notes[found.id] = str(error)
    if json:
        say_json({"freed_bytes": freed, "left_alone": notes})
        return
    for text in notes.values():
        say(f"Left alone: {text}")
    say(f"Freed {_size(sum(freed.values()))} in {_counted(len(freed), 'run')}.")


def export(
    job: JobArgument,
    file: Annotated[Path, typer.Argument(help="New zip file.")],
    json: Json = False,
) -> None:
    """Pack a run with its data into one file, for another machine or for keeps."""
    home = Home()
    found = home.find_job(job)
    with progress("Exporting") as tick:
        manifest = export_run(home, found, file, progress=tick)
    size = file.stat().st_size
    if json:
        say_json({"job": found.id, "file": str(file), "bytes": size, "base": manifest.base_id})
        return
    say(f"Wrote {file}, {_size(size)}: {found.id} with its data {manifest.dataset_id}.")
    say(f"The base {manifest.base_id} is not inside; it must be there where the run is used.")


def import_(
    file: Annotated[Path, typer.Argument(help="A zip file that export wrote.")],
    json: Json = False,
) -> None:
    """Take in a run that was exported, here or on another machine."""
    home = Home()
    with progress("Importing") as tick:
        found = import_run(home, file, progress=tick)
    state, base = found.status().state, planned(found).base.id
    if json:
        say_json({"job": found.id, "state": state, "base": base})
        return
    say(f"Imported {found.id} ({state}). It needs the base {base}.")
    step = "compare" if state == "finished" else "train --resume"
    say(f"Next: python app.py {step} {found.id}")


RUN_VERBS: tuple[tuple[str, Callable[..., None]], ...] = (
    ("rename", rename),
    ("tag", tag),
    ("note", note),
    ("diff", diff),
    ("inside", inside),
    ("delete", delete),
    ("restore", restore),
    ("trash", trash),
    ("disk", disk),
    ("prune", prune),
    ("export", export),
    ("import", import_),
)


def _show_about(job: Job, about: About, json: bool) -> None:
    if json:
        say_json({"job": job.id, **about.model_dump(mode="json")})
        return
    shown = [(name, value) for name, value in about.model_dump(mode="json").items() if value]
    rows = [(name, ", ".join(value) if name == "tags" else value) for name, value in shown]
    say_table(job.id, ("label", ""), rows)


def _cells(row: Row) -> tuple[str, str, str]:
    return row.name, _cell(row.left), _cell(row.right)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _is_sure(question: str) -> bool:
    try:
        return typer.confirm(question, err=True)
    except typer.Abort:  # nobody is there to answer
        return False


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:,.2f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:,.2f} MB"
