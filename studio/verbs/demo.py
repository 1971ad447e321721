"""demo: the whole journey on the support tickets that ship with the studio."""

from pathlib import Path
from typing import Annotated

import typer

from studio.home import Home
from studio.screen import say
from studio.verbs.compare import compare
from studio.verbs.plan import plan
from studio.verbs.predict import predict
from studio.verbs.prepare import prepare
from studio.verbs.publish import publish
from studio.verbs.train import train
from studio.verbs.upload import upload

_TICKETS = Path(__file__).parents[2] / "data_prep" / "samples" / "tickets.csv"
_SHORT_METHOD = "lora"


def demo(
    method: Annotated[str, typer.Option(help="Tuning method.")] = _SHORT_METHOD,
    seed: Annotated[int, typer.Option(help="Fixes every draw.")] = 0,
) -> str:
    """From a messy table of support tickets to a tuned model and a verdict."""
    say("1/7  upload: support tickets, as messy as real ones")
    uploaded = upload(_TICKETS)
    say("\n2/7  prepare: clean, check, split")
    prepared = prepare(uploaded, seed=seed, preview=1)
    say(f"\n3/7  plan: {method} on the starter model")
    planned = plan(prepared, method=method, seed=seed)
    say("\n4/7  train")
    run = train(planned)
    say("\n5/7  compare: is it better than prompting?")
    compared = compare(run, seed=seed)
    folder = Home().root / "demo" / run
    folder.parent.mkdir(parents=True, exist_ok=True)
    say("\n6/7  publish")
    publish(run, to=folder, name="Support tickets to teams")
    say("\n7/7  predict: the tuned model answers new rows")
    table = folder.parent / f"{run}-new-tickets.csv"
    table.write_text(
        "text\nI was charged twice for the same kettle\nThe box arrived empty\n"
        "Please erase everything you know about me\n",
        encoding="utf-8",
    )
    answers = table.with_suffix(".answers.csv")
    predict(table, run=run, to=answers)
    say(answers.read_text(encoding="utf-8"))
    return compared
