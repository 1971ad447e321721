"""inside: which layers a run moved, in how many directions, and what its soft prompt resembles."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from studio.engine_service import EngineService
from studio.home import Home
from studio.screen import err, say, say_json, say_table
from studio.verbs.upload import Json
from studio.web.inside_view import layers_view, prompt_view
from studio.web.picture_file import write_pictures

_MOST_LAYERS = 40


def inside(
    run: Annotated[str, typer.Argument(help='Id of a train run, or "latest".')] = "latest",
    to: Annotated[
        Path | None, typer.Option(help="Write all of it there: .html as pictures, else as JSON.")
    ] = None,
    json: Json = False,
) -> None:
    """Show what tuning changed in the model."""
    from studio.trying import run_arguments  # noqa: PLC0415

    home = Home()
    run_id = home.find("train", run).name
    request = run_arguments(home, run_id)
    with EngineService(log=home.root / "engine-try.log") as engine, err.status("Looking inside"):
        answer = engine.stream("inside", request)
        for _ in answer:
            pass
    found = {"run": run_id, **answer.result}
    if to is not None:
        pictures = [layers_view(found["layers"]), prompt_view(found["prompt"])]
        write_pictures(to, f"What tuning changed: {run_id}", pictures, found)
    if json:
        say_json(found)
        return
    if to is not None:
        say(f"Written to {to}")
    _show_layers(found["layers"])
    _show_prompt(found["prompt"])
    if not found["layers"] and not found["prompt"]:
        say("Nothing to show: what this method learned is no matrix and no vector that resembles")
        say("words. Prefixes are not looked at.")


def _show_layers(layers: Sequence[Mapping[str, Any]]) -> None:
    """Print the layers that moved most first."""
    ordered = sorted(layers, key=lambda layer: -layer["change_ratio"])
    rows = [
        (layer["path"], f"{layer['change_ratio']:.2%}", f"{layer['effective_rank']:.1f}")
        for layer in ordered[:_MOST_LAYERS]
    ]
    left_out = len(ordered) - len(rows)
    note = f"{left_out} more layers moved less; --to writes all of them." if left_out else ""
    if rows:
        say_table("What moved most", ("layer", "change", "effective rank"), rows, note=note)


def _show_prompt(prompt: Sequence[Mapping[str, Any]]) -> None:
    rows = [
        (
            str(vector["place"] + 1),
            " ".join(f"{near['token']!r} {near['cosine']:.2f}" for near in vector["nearest"]),
        )
        for vector in prompt
    ]
    if rows:
        say_table("The words that the prompt resembles", ("place", "nearest, by cosine"), rows)
