"""try: the base and a tuned model answer one text, side by side."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.text import Text

from studio.child_service import Answer
from studio.engine_service import EngineService
from studio.home import Home
from studio.screen import err, out, say, say_json, say_table, visible
from studio.verbs.upload import Json
from templates.errors import DataError
from templates.template import Template

_TITLES = {"base": "Base, task described", "tuned": "Tuned"}
_MOST_LABELS = 5


def try_prompt(
    text: Annotated[str, typer.Argument(help="What to answer; for chat, what the user says.")],
    run: Annotated[str, typer.Option(help='Id of a train run, or "latest".')] = "latest",
    field: Annotated[
        list[str] | None, typer.Option(help="Text of a further field: NAME=TEXT.")
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option(min=0, help="Longest answer; 0: a little more than in training.")
    ] = 0,
    json: Json = False,
) -> None:
    """Let the base and a tuned model answer one text."""
    from studio.trying import tried_dataset, tried_example, try_arguments  # noqa: PLC0415

    home = Home()
    run_id = home.find("train", run).name
    template = tried_dataset(home, run_id).template
    example = tried_example(template, _texts(template, text, field or []))
    request = try_arguments(home, run_id, example, max_new_tokens=max_new_tokens)
    with EngineService(log=home.root / "engine-try.log") as engine:
        answer = engine.stream("try", request)
        if json:
            for _ in answer:
                pass
        else:
            _show_parts(answer)
    if json:
        say_json({"run": run_id, **answer.result})
        return
    _show_result(answer.result)


def _texts(template: Template, text: str, further: Sequence[str]) -> dict[str, str]:
    """Name the texts by the task's fields; the bare one goes to the first without its own."""
    if template.task == "chat":
        return {"user": text}
    fields = {}
    for given in further:
        name, sign, value = given.partition("=")
        if not sign:
            raise DataError(
                "A field is missing its value", where=given, fix="Write --field NAME=TEXT"
            )
        fields[name] = value
    free = [slot for slot in template.slots if slot not in fields]
    needed = [slot for slot in free if slot not in template.optional_slots]
    if not free:
        raise DataError(
            "There is no field left for the text",
            where=text[:40],
            fix="Leave out one --field, or give it as the text",
        )
    return {(needed or free)[0]: text, **fields}


def _show_parts(answer: Answer) -> None:
    """Print each piece as it comes, below the name of its arm."""
    with err.status("Loading the models"):
        first = next(answer)
    parts = itertools.chain([first], answer)
    for arm, pieces in itertools.groupby(parts, key=lambda part: part["arm"]):
        say(f"{_TITLES[arm]}:")
        for piece in pieces:
            out.print(Text(visible(piece["text"])), end="")
        say("")


def _show_result(result: Mapping[str, Any]) -> None:
    base, tuned = result["base"], result["tuned"]
    if tuned["labels"]:
        base_ratios = {found["label"]: found["probability"] for found in base["labels"]}
        rows = [
            (found["label"], f"{base_ratios[found['label']]:.1%}", f"{found['probability']:.1%}")
            for found in tuned["labels"][:_MOST_LABELS]
        ]
        say_table("How likely each label is", ("label", *_TITLES.values()), rows)
    if base["was_cut"] or tuned["was_cut"]:
        say("Note: the text was cut at its start to fit the context.")
    say(f"Seconds: base {base['seconds']:.2f}, tuned {tuned['seconds']:.2f}.")
