"""combine: several LoRA adapters of one base, weighted and added up, as one."""

import math
from pathlib import Path
from typing import Annotated

import typer

from studio.doing import fetched
from studio.home import Home
from studio.screen import err, say, say_json
from studio.verbs.upload import Json
from templates.errors import PlanError


def combine(
    adapters: Annotated[
        list[str],
        typer.Argument(
            help="Adapter folders, each with its weight: billing=0.7 travel=0.3. A weight may be "
            "negative; without one it is 1."
        ),
    ],
    out: Annotated[Path, typer.Option(help="A new folder for the sum.")],
    base: Annotated[
        str, typer.Option(help='The base they are for: "starter", a model folder, or a Hub id.')
    ] = "starter",
    revision: Annotated[str, typer.Option(help="Hub branch, tag or commit.")] = "",
    json: Json = False,
) -> None:
    """Add up LoRA adapters of one base, each times a weight, and write the sum as one adapter."""
    weights = dict(map(_weighted, adapters))
    if len({folder.resolve() for folder in weights}) < len(adapters):
        raise PlanError(
            "An adapter is named twice", where="adapters", fix="Name each once, with one weight"
        )
    from engine.base_model import locate_base  # noqa: PLC0415
    from engine.publishing.combined import publish_combination  # noqa: PLC0415

    place = locate_base(fetched(Home(), base, revision), revision)
    with err.status("Adding up"):
        about = publish_combination(weights, place, out)
    if json:
        say_json(about.model_dump(mode="json"))
        return
    say(f"Written to {out}: {about.title} of rank {about.options['rank']}, {about.num_values:,}")
    say(f"values, {about.file_bytes / 2**20:.2f} MiB. It changes the base by the weighted sum.")


def _weighted(text: str) -> tuple[Path, float]:
    """Read a folder and its weight; a folder whose own name holds = is one without."""
    name, separator, number = text.rpartition("=")
    if not separator or Path(text).is_dir():
        return Path(text), 1.0
    try:
        weight = float(number)
    except ValueError:
        weight = math.nan
    if not math.isfinite(weight):
        raise PlanError(
            f"{number!r} is no weight", where=text, fix="Write folder=number, such as billing=0.7"
        )
    return Path(name), weight
