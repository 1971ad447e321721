"""The verbs of app.py: one file each, loaded at once; the rooms behind them load when used."""

import typer

from studio.screen import verb
from studio.verbs.compare import compare
from studio.verbs.demo import demo
from studio.verbs.plan import plan
from studio.verbs.predict import predict
from studio.verbs.prepare import prepare
from studio.verbs.publish import publish
from studio.verbs.train import train
from studio.verbs.upload import upload

app = typer.Typer(
    name="app.py",
    help="Tune a language model on a table of examples, and learn whether it helped.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for command in (upload, prepare, plan, train, compare, publish, predict, demo):
    app.command()(verb(command))
