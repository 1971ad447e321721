"""train: run a plan, or go on with a run that was interrupted."""

from pathlib import Path
from typing import Annotated

import typer

from engine.plan import read_plan
from studio.doing import watch
from studio.home import Home
from studio.jobs.queue import Queue
from studio.jobs.requests import Tracker
from studio.jobs.training import request_to_train
from studio.records import finished_sentence, planned
from studio.screen import say, say_json
from studio.verbs.upload import Json

Detach = Annotated[
    bool, typer.Option("--detach", help="Put it into the line and return; see app.py jobs.")
]


def train(
    plan: Annotated[
        str, typer.Argument(help='Id of a plan, a YAML or JSON file, or "latest".')
    ] = "latest",
    resume: Annotated[
        str | None, typer.Option(help='Go on with this run: its id, or "latest".')
    ] = None,
    track: Annotated[
        list[Tracker] | None, typer.Option(help="Send metrics there too; repeatable.")
    ] = None,
    detach: Detach = False,
    json: Json = False,
) -> str:
    """Train a plan. Ctrl-C saves and stops; --resume goes on, to the same bits."""
    home = Home()
    queue = Queue(home)
    if resume is None:
        path = Path(plan) if Path(plan).is_file() else home.find("plan", plan)
        value = read_plan(path)
        job = queue.submit(request_to_train(home, value, trackers=track or ()))
    else:
        job = home.find_job(home.find("train", resume).name)
        planned(job)
        queue.resume(job)
    home.mark_latest("train", job.id)
    if detach:
        queue.advance()
        if json:
            say_json({"run": job.id, "state": queue.state(job)})
        else:
            say(f"Run {job.id} is {queue.state(job)}. See: python app.py jobs show {job.id}")
        return job.id
    if not json:
        say(f"Run {job.id}")
    status = watch(queue, job, title="Training", quiet=json)
    if json:
        last = next(reversed(job.events()), None)
        say_json({"run": job.id, "state": queue.state(job), "last": vars(last) if last else None})
    elif status.state == "finished":
        say(finished_sentence(job))
        say(f"Next: python app.py compare {job.id}")
    elif status.state == "new":
        say(f"Taken out of the line. Go on with: python app.py train --resume {job.id}")
    else:
        say(f"Stopped and saved. Go on with: python app.py train --resume {job.id}")
    if status.state != "finished":
        raise typer.Exit(130)
    return job.id
