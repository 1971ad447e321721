"""quantised: what fewer bits would do to each layer of a base."""

from pathlib import Path
from typing import Annotated

import typer

from studio.doing import fetched
from studio.home import Home
from studio.screen import err, say, say_json, say_table
from studio.verbs.upload import Json
from studio.web.inside_view import errors_view
from studio.web.picture_file import write_pictures

_MOST_LAYERS = 40
_TEXT = (
    "The kettle that arrived on Monday leaks. I would like my money back, or a new one, and an "
    "answer before the weekend. Last time it took three weeks and four letters."
)


def quantised(
    base: Annotated[
        str, typer.Argument(help='"starter", a model folder, or a Hub id such as org/name.')
    ] = "starter",
    revision: Annotated[str, typer.Option(help="Hub branch, tag or commit.")] = "",
    text: Annotated[str, typer.Option(help="What the base reads meanwhile.")] = _TEXT,
    to: Annotated[
        Path | None, typer.Option(help="Write all of it there: .html as a picture, else as JSON.")
    ] = None,
    json: Json = False,
) -> None:
    """Show what 8 and 4 bits would do to each layer of a base."""
    from engine.base_model import load_base, locate_base  # noqa: PLC0415
    from engine.reference_quantisers import layer_errors  # noqa: PLC0415

    base = fetched(Home(), base, revision)
    with err.status("Quantising one layer after the other"):
        model = load_base(locate_base(base, revision), "fp32")
        layers = [layer.model_dump(mode="json") for layer in layer_errors(model, text)]
    found = {"base": base, "text": text, "layers": layers}
    if to is not None:
        write_pictures(to, f"Fewer bits: {base}", [errors_view(layers)], found)
    if json:
        say_json(found)
        return
    if to is not None:
        say(f"Written to {to}")
    ways = list(layers[0]["errors"])
    rows = [
        (layer["path"], *(f"{100 * layer['errors'][way]:.2f}" for way in ways))
        for layer in layers[:_MOST_LAYERS]
    ]
    left_out = len(layers) - len(rows)
    note = f"{left_out} more layers; --to writes all of them." if left_out else ""
    say_table("Error of each layer's output, in per cent", ("layer", *ways), rows, note=note)
