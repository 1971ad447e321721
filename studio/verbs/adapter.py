"""adapter: what an adapter folder from anywhere is, and what it answers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from engine.plan import Precision
from studio.doing import fetched
from studio.home import Home
from studio.screen import err, out, say, say_json, say_table, visible
from studio.verbs.upload import Json


def adapter(
    folder: Annotated[
        Path, typer.Argument(help="An adapter of the peft library, from here or elsewhere.")
    ],
    base: Annotated[
        str, typer.Option(help='The base it is for: "starter", a model folder, or a Hub id.')
    ] = "starter",
    revision: Annotated[str, typer.Option(help="Hub branch, tag or commit.")] = "",
    prompt: Annotated[
        str, typer.Option(help="A text to answer, by the base alone and with the adapter.")
    ] = "",
    precision: Annotated[
        Precision, typer.Option(help="How the base is held while it answers.")
    ] = "fp32",
    max_new_tokens: Annotated[int, typer.Option(min=1, max=4096, help="Longest answer.")] = 64,
    json: Json = False,
) -> None:
    """Say what an adapter folder is, and let it answer. Nothing in the folder is ever run."""
    from engine.adapter_import import (  # noqa: PLC0415
        answer_freely,
        attach_adapter,
        describe_adapter,
        read_adapter,
    )
    from engine.base_model import load_base, locate_base  # noqa: PLC0415

    base = fetched(Home(), base, revision)
    with err.status("Reading the adapter"):
        place = locate_base(base, revision)
        read = read_adapter(folder, place)
        found = {"base": base, **describe_adapter(folder, read).model_dump(mode="json")}
    if prompt:
        with err.status("Answering"):
            model = load_base(place, precision)
            answers = {"base": answer_freely(model, prompt, max_new_tokens)}
            tuned = attach_adapter(model, read)
            answers["adapter"] = answer_freely(tuned, prompt, max_new_tokens)
        found |= {"prompt": prompt, "answers": answers}
    if json:
        say_json(found)
        return
    _show(found)


def _show(found: Mapping[str, Any]) -> None:
    say(
        f"{found['title']}: {found['num_values']:,} learned values, "
        f"{found['file_bytes'] / 2**20:.2f} MiB, for {found['base']}"
    )
    options = [(name, _shown(value)) for name, value in found["options"].items()]
    say_table("Options", ("option", "value"), options)
    rows = [
        (
            part["layer"],
            str(part["num_layers"]),
            ", ".join(f"{name} {_size(shape)}" for name, shape in part["shapes"].items()),
            f"{part['num_values']:,}",
        )
        for part in found["learned"]
    ]
    say_table("What learned", ("layer", "layers", "tensors of each", "values"), rows)
    for arm, answer in found.get("answers", {}).items():
        say(f"{'Base alone' if arm == 'base' else 'With the adapter'}:")
        out.print(Text(visible(answer)))


def _shown(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 80 else text[:79] + "…"  # a path for every layer fills a screen


def _size(shape: list[int]) -> str:
    return " x ".join(map(str, shape))
