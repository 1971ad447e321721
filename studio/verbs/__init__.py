"""The verbs of app.py: one file each, loaded at once; the rooms behind them load when used."""

from collections.abc import Callable
from typing import cast

import typer

from studio.screen import verb
from studio.verbs.adapter import adapter
from studio.verbs.combine import combine
from studio.verbs.compare import compare
from studio.verbs.demo import demo
from studio.verbs.fetch import fetch
from studio.verbs.jobs import VERBS
from studio.verbs.open import open_page
from studio.verbs.plan import plan
from studio.verbs.predict import predict
from studio.verbs.prepare import prepare
from studio.verbs.publish import publish
from studio.verbs.quantised import quantised
from studio.verbs.runs import RUN_VERBS
from studio.verbs.serve import serve
from studio.verbs.sweep import sweep
from studio.verbs.train import train
from studio.verbs.try_prompt import try_prompt
from studio.verbs.upload import upload

app = typer.Typer(
    name="app.py",
    help="Tune a language model on a table of examples, and learn whether it helped.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (
    upload, prepare, plan, fetch, train, sweep, compare, publish, predict, adapter, combine,
    quantised, serve, demo,
):  # fmt: skip
    app.command()(verb(command))
app.command("try")(verb(try_prompt))
app.command("open")(verb(open_page))
jobs = typer.Typer(
    help="Everything that waits, runs or is done: watch, stop, go on, name, compare, delete.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
for name, function in (*VERBS, *RUN_VERBS):
    jobs.command(name)(verb(cast(Callable[..., None], function)))
app.add_typer(jobs, name="jobs")
