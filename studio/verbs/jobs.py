"""jobs: what waits, what runs, what became of it; stop, resume, try again, copy."""

import contextlib
import json as json_text
import sys
import time
from dataclasses import asdict
from typing import Annotated, Any

import typer
import yaml

from engine.comparing.comparison import read_comparison
from engine.events import Evaluated, Saved, Stamped, Stepped
from engine.job_status import SILENT_SECONDS, JobStatus
from engine.jobs import Job
from engine.liveness import Process
from studio.doing import watch
from studio.home import Home
from studio.jobs.follow import tail
from studio.jobs.launcher import LOG
from studio.jobs.queue import Queue, standing
from studio.jobs.requests import TABLE, TrainRequest, read_request
from studio.jobs.sweep import read_sweep
from studio.jobs.sweeping import stop_sweep
from studio.records import COMPARISON, finished_sentence, read_prepared
from studio.runs.about import read_about
from studio.runs.difference import flat
from studio.screen import say, say_json, say_table
from studio.verbs.compare import show_comparison
from studio.verbs.train import Detach
from studio.verbs.upload import Json
from templates.errors import RunError, StudioError
from templates.values import parse

JobArgument = Annotated[str, typer.Argument(help='Id of a job, its beginning, or "latest".')]


def list_jobs(
    kind: Annotated[str, typer.Option(help="Only this kind, such as train.")] = "",
    state: Annotated[str, typer.Option(help="Only these, such as running.")] = "",
    tag: Annotated[str, typer.Option(help="Only those with this tag.")] = "",
    all: Annotated[bool, typer.Option("--all", help="Not only the newest 30.")] = False,
    json: Json = False,
) -> None:
    """List jobs, the newest last."""
    home = Home()
    queue = Queue(home)
    _look_after(queue)
    waiting = queue.waiting()
    rows: list[dict[str, Any]] = []
    for job in home.jobs():
        if kind and job.id.partition("-")[0] != kind:
            continue
        try:
            status = job.status()
        except FileNotFoundError:  # deleted meanwhile
            continue
        except StudioError as error:
            rows.append({"job": job.id, "state": "unreadable", "what": error.what})
            continue
        about = read_about(job)
        shown = standing(job, status, waiting)
        if (state and shown != state) or (tag and tag not in about.tags):
            continue
        rows.append({"job": job.id, "state": shown, **_facts(status), **about.model_dump()})
    if not all:
        rows = rows[-30:]
    if json:
        say_json(rows)
    elif not rows and (kind or state or tag):
        say("No job fits.")
    elif not rows:
        say("There are no jobs yet. Begin with: python app.py upload TABLE")
    else:
        cells = [_row(row, waiting) for row in rows]
        say_table("Jobs", ("job", "state", "where it stands", "loss", "name"), cells)


def show(job: JobArgument = "latest", json: Json = False) -> None:
    """Show one job: what was asked for, where it stands, and what to do."""
    home = Home()
    queue = Queue(home)
    _look_after(queue)
    found = home.find_job(job)
    waiting = queue.waiting()
    status = found.status()
    state = standing(found, status, waiting)
    if json:
        say_json(
            {
                "job": found.id,
                "kind": found.kind,
                "state": state,
                **_facts(status),
                "request": found.request(found.kind),
                "about": read_about(found).model_dump(),
                "folder": str(found.folder),
            }
        )
        return
    facts = {"state": state, **_shown(status)}
    facts |= {name: str(value) for name, value in read_about(found).model_dump().items() if value}
    say_table(found.id, ("fact", "value"), list(facts.items()))
    settings = flat(found.request(found.kind)).items()
    say_table("Request", ("setting", "value"), [(name, str(value)) for name, value in settings])
    if status.is_silent:
        say(
            f"No sign of life for {status.silent_seconds / 60:.0f} minutes. If it hangs: "
            f"python app.py jobs stop {found.id} --force"
        )
    elif status.what:
        say(f"{status.what}. {status.fix}.")
    elif state == "finished":
        _show_result(found)
    say(f"Folder: {found.folder}")


def logs(
    job: JobArgument = "latest",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until it ends.")] = False,
    raw: Annotated[bool, typer.Option("--raw", help="What libraries printed instead.")] = False,
    json: Json = False,
) -> None:
    """Print what a job reports, event by event."""
    home = Home()
    queue = Queue(home)
    found = home.find_job(job)
    found.request(found.kind)
    if raw:
        log = found.folder / LOG
        say(log.read_text(encoding="utf-8", errors="replace") if log.is_file() else "")
        return

    advanced_at = 0.0

    def over() -> bool:
        if not follow:
            return True
        nonlocal advanced_at
        if time.monotonic() - advanced_at > 1.0:
            _look_after(queue)
            advanced_at = time.monotonic()
        return queue.state(found) not in ("queued", "running")

    for stamped in tail(found, until=over):
        if json:
            kind = type(stamped.event).__name__
            content = {"event": kind, "at": stamped.at, **asdict(stamped.event)}
            typer.echo(json_text.dumps(content, ensure_ascii=False))
        else:
            say(_line(stamped))
        sys.stdout.flush()


def stop(
    jobs: Annotated[list[str], typer.Argument(help='Ids of jobs, or "all".')],
    force: Annotated[
        bool, typer.Option("--force", help="End it at once, as where it hangs.")
    ] = False,
    json: Json = False,
) -> None:
    """Take jobs out of the line, or let running ones save and stop."""
    home = Home()
    queue = Queue(home)
    queue.advance()
    if jobs == ["all"]:
        found = [job for job in home.jobs() if queue.state(job) in ("queued", "running")]
        for sweep in queue.line().sweeps:  # else members that pause would go on
            stop_sweep(queue, home, read_sweep(home.find("sweep", sweep)))
    else:
        found = [home.find_job(job) for job in jobs]
    states = {}
    for job in reversed(found):  # the last in the line first, so that none takes its place
        queue.stop(job, force=force)
    deadline = time.monotonic() + 12.0
    for job in found:
        while queue.state(job) == "running" and time.monotonic() < deadline:
            time.sleep(0.05)
        states[job.id] = queue.state(job)
    queue.advance()
    if json:
        say_json(states)
        return
    for name, state in states.items():
        say(f"{name}: {'still stopping' if state == 'running' else state}")
    if not states:
        say("Nothing waits and nothing runs.")


def resume(job: JobArgument = "latest", detach: Detach = False, json: Json = False) -> None:
    """Go on with a job that was stopped or interrupted; training goes on where it was saved."""
    home = Home()
    queue = Queue(home)
    found = home.find_job(job)
    queue.resume(found)
    _go_on(queue, found, home, detach, json)


def retry(job: JobArgument = "latest", detach: Detach = False, json: Json = False) -> None:
    """Try a job again that failed or was interrupted."""
    home = Home()
    queue = Queue(home)
    found = home.find_job(job)
    queue.retry(found)
    _go_on(queue, found, home, detach, json)


def duplicate(
    job: JobArgument = "latest",
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-o", help="NAME=VALUE to change, such as rank=16; repeatable."),
    ] = None,
    detach: Detach = False,
    json: Json = False,
) -> None:
    """Ask for the same once more, with changes."""
    home = Home()
    queue = Queue(home)
    found = home.find_job(job)
    request = read_request(found)
    content = request.model_dump(mode="json")
    for item in option or []:
        _change(content, item)
    content.pop("sweep_id", None)
    copy = parse(type(request), content, where=found.id, error=RunError)
    if isinstance(copy, TrainRequest):
        from engine.runs import check_plan  # noqa: PLC0415

        check_plan(copy.plan, home.find("dataset", copy.plan.dataset_id))
    files = {TABLE: found.folder / TABLE} if found.kind == "predict" else None
    made = queue.submit(copy, files=files)
    _go_on(queue, made, home, detach, json)


def move(
    job: JobArgument,
    position: Annotated[int, typer.Argument(min=1, help="1: the next to start.")],
    json: Json = False,
) -> None:
    """Give a waiting job another place in the line."""
    home = Home()
    queue = Queue(home)
    queue.move(home.find_job(job), position)
    if json:
        say_json(queue.waiting())
    else:
        say("\n".join(f"{place}. {name}" for place, name in enumerate(queue.waiting(), 1)))


def _go_on(queue: Queue, job: Job, home: Home, detach: bool, json: bool) -> None:
    if detach:
        queue.advance()
    else:
        watch(queue, job, title=job.kind.capitalize(), quiet=json)
    state = queue.state(job)
    if state == "finished" or job.kind == "train":
        _mark_latest(home, job)
    if json:
        say_json({"job": job.id, "state": state})
    else:
        say(f"{job.id}: {state}")
        if state == "finished":
            _show_result(job)
    if not detach and state != "finished":
        raise typer.Exit(130)


def _mark_latest(home: Home, job: Job) -> None:
    """What a job made is now what "latest" stands for, as after its own verb."""
    if job.kind == "prepare":
        home.mark_latest("dataset", read_prepared(job).dataset_id)
    elif job.kind in ("train", "compare"):
        home.mark_latest(job.kind, job.id)


def _show_result(job: Job) -> None:
    """Say what a finished job came to."""
    if job.kind == "prepare":
        dataset_id = read_prepared(job).dataset_id
        say(f"The dataset is {dataset_id}. Next: python app.py plan {dataset_id}")
    elif job.kind == "train":
        say(finished_sentence(job))
        say(f"Next: python app.py compare {job.id}")
    elif job.kind == "compare":
        show_comparison(read_comparison(job.folder / COMPARISON))
    else:
        say(f"What it made is in {job.folder}")


def _look_after(queue: Queue) -> None:
    """Move the line on where that is possible; a folder that may only be read is still shown."""
    with contextlib.suppress(RunError):
        queue.advance()


def _change(content: dict[str, Any], item: str) -> None:
    """Set the one setting of that name, however deep it lies."""
    name, equals, value = item.partition("=")
    places = [
        (path, holder, key)
        for path, holder, key in _places(content)
        if path == name or path.endswith(f".{name}")
    ]
    if not equals or len(places) != 1:
        known = ", ".join(path for path, _, _ in _places(content))
        raise RunError(
            f"The change {item!r} names no single setting",
            where="--option",
            fix=f"Write NAME=VALUE with one of: {known}",
        )
    _, holder, key = places[0]
    try:
        holder[key] = yaml.safe_load(value)
    except yaml.YAMLError:
        holder[key] = value
    if isinstance(holder[key], str) and _is_number(holder[key]):  # YAML reads 1e-3 as text
        holder[key] = float(holder[key])


def _places(content: dict[str, Any], prefix: str = "") -> list[tuple[str, dict[str, Any], str]]:
    found: list[tuple[str, dict[str, Any], str]] = []
    for name, value in content.items():
        if isinstance(value, dict):
            found += _places(value, f"{prefix}{name}.")
        else:
            found.append((prefix + name, content, name))
    return found


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _facts(status: JobStatus) -> dict[str, Any]:
    facts = {name: value for name, value in vars(status).items() if name != "state"}
    process = facts.pop("process")
    facts["process"] = process.pid if isinstance(process, Process) else None
    return facts


def _shown(status: JobStatus) -> dict[str, str]:
    """Facts as people read them; what is not known is left out."""
    facts = {"where it stands": status.words}
    if status.loss is not None:
        facts["loss of the last step"] = f"{status.loss:.4f}"
    if status.best_loss is not None:
        facts["best validation loss"] = f"{status.best_loss:.4f}"
    if status.started_at:
        facts["attempt"] = str(status.attempt)
        facts["started"] = _date(status.started_at)
        facts["last event"] = _date(status.updated_at)
    if status.process:
        facts["process"] = str(status.process.pid)
    return {name: value for name, value in facts.items() if value}


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _row(row: dict[str, Any], waiting: list[str]) -> tuple[str, ...]:
    words = "" if row["state"] == "finished" and not row["total_steps"] else row.get("words", "")
    if row["state"] == "queued":
        words = f"place {waiting.index(row['job']) + 1} in the line"
    elif row.get("silent_seconds", 0.0) > SILENT_SECONDS:
        words = f"no sign of life for {row['silent_seconds'] / 60:.0f} minutes"
    elif row.get("what"):
        words = row["what"]
    loss = row.get("best_loss") if row.get("best_loss") is not None else row.get("loss")
    return (
        row["job"],
        row["state"],
        words,
        "" if loss is None else f"{loss:.4f}",
        ", ".join(filter(None, (row.get("name", ""), *row.get("tags", ())))),
    )


def _line(stamped: Stamped) -> str:
    event = stamped.event
    clock = time.strftime("%H:%M:%S", time.localtime(stamped.at))
    name = type(event).__name__.lower()
    if isinstance(event, Stepped):
        return f"{clock} step {event.step}  loss {event.loss:.4f}  rate {event.learning_rate:.2e}"
    if isinstance(event, Evaluated):
        best = "  the best so far" if event.is_best else ""
        return f"{clock} validation at step {event.step}  loss {event.loss:.4f}{best}"
    if isinstance(event, Saved):
        return f"{clock} saved step {event.step}"
    facts = ", ".join(f"{key} {value}" for key, value in vars(event).items() if value != "")
    return f"{clock} {name}: {facts}"


VERBS = (
    ("list", list_jobs),
    ("show", show),
    ("logs", logs),
    ("stop", stop),
    ("resume", resume),
    ("retry", retry),
    ("duplicate", duplicate),
    ("move", move),
)
