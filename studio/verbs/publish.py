"""publish: the tuned model as a folder others can load, with what was measured."""

import os
from pathlib import Path
from typing import Annotated

import typer

from engine.jobs import Job
from engine.publishing.publication import Form, Publication, parity_sentence
from studio.doing import do
from studio.home import Home
from studio.jobs.requests import PublishRequest
from studio.records import PUBLICATION, require_finished
from studio.screen import say, say_json, say_table
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
    home = Home()
    job = Job(home.find("train", run))
    require_finished(job)
    target = Path(os.path.abspath(to.expanduser()))
    request = PublishRequest(
        run_id=job.id, form=form, name=name or to.name, to=str(target), zipped=zip
    )
    written = do(home, request).folder / PUBLICATION
    publication = Publication.model_validate_json(written.read_text(encoding="utf-8"))
    if json:
        say_json(publication.model_dump(mode="json"))
        return
    rows = [(file.name, f"{file.size_bytes:,}", file.sha256[:12]) for file in publication.files]
    say_table(f"{to} ({publication.form})", ("file", "bytes", "sha256"), rows)
    say(parity_sentence(publication.parity, publication.effect))
    if publication.archive:
        say(f"Also as {publication.archive.name}, {publication.archive.size_bytes:,} bytes.")
