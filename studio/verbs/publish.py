"""publish: the tuned model as a folder others can load, with what was measured."""

from pathlib import Path
from typing import Annotated

import typer

from engine.comparing.comparison import Comparison, read_comparison
from engine.jobs import Job
from engine.publishing.publication import Form, parity_sentence
from studio.home import Home
from studio.screen import progress, say, say_json, say_table
from studio.verbs.compare import COMPARISON, finished_checkpoint
from studio.verbs.train import planned
from studio.verbs.upload import Json


def publish(
    run: Annotated[str, typer.Argument(help='Id of a train run, or "latest".')] = "latest",
    to: Annotated[Path, typer.Option(help="New folder to write.")] = Path("my-model"),
    form: Annotated[
        Form | None, typer.Option(help="The adapter, where the method has one, if not given.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Title on the model card.")] = None,
    zip: Annotated[bool, typer.Option(help="Also write a zip beside the folder.")] = False,
    json: Json = False,
) -> None:
    """Write adapter or merged model, model card and measurements into a folder."""
    from engine.publishing.publish import FinishedRun  # noqa: PLC0415
    from engine.publishing.publish import publish as run_publish  # noqa: PLC0415

    home = Home()
    job = Job(home.find("train", run))
    plan = planned(job)
    finished_checkpoint(job)
    with progress("Publishing"):
        finished = FinishedRun(
            plan,
            job.checkpoints,
            home.find("dataset", plan.dataset_id),
            newest_comparison(home, job.id),
        )
        publication = run_publish(finished, to, form=form, name=name or to.name, zipped=zip)
    if json:
        say_json(publication.model_dump(mode="json"))
        return
    rows = [(file.name, f"{file.size_bytes:,}", file.sha256[:12]) for file in publication.files]
    say_table(f"{to} ({publication.form})", ("file", "bytes", "sha256"), rows)
    say(parity_sentence(publication.parity, publication.effect))
    if publication.archive:
        say(f"Also as {publication.archive.name}, {publication.archive.size_bytes:,} bytes.")


def newest_comparison(home: Home, run_id: str) -> Comparison | None:
    """Find the newest finished comparison of a run.

    Args:
        home: where jobs are kept.
        run_id: the train job.

    Returns:
        The comparison, or None.
    """
    for folder in reversed(home.all("compare")):
        if not (folder / COMPARISON).is_file():
            continue  # never finished
        comparison = read_comparison(folder / COMPARISON)
        if comparison.run_id == run_id:
            return comparison
    return None
