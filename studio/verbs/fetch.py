"""fetch: bring a base model from the Hub onto this machine."""

import json as json_text
from typing import Annotated

import typer

from studio.doing import do
from studio.home import Home
from studio.jobs.requests import FetchRequest
from studio.records import FETCHED
from studio.screen import say, say_json
from studio.settings import hub_token
from studio.verbs.upload import Json


def fetch(
    base: Annotated[str, typer.Argument(help="Hub id such as org/name.")],
    revision: Annotated[str, typer.Option(help="Branch, tag or commit.")] = "",
    json: Json = False,
) -> None:
    """Download a base model; a token for private ones is taken from HF_TOKEN."""
    job = do(Home(), FetchRequest(base=base, revision=revision), token=hub_token())
    fetched = json_text.loads((job.folder / FETCHED).read_text(encoding="utf-8"))
    if json:
        say_json(fetched)
    else:
        say(f"{base} is on this machine, at commit {fetched['revision'] or 'unknown'}.")
        say(f"Next: python app.py plan --base {base}")
