"""prepare: map columns, clean, check, split; and show what the model will read."""

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.text import Text

from studio.doing import do, fetched
from studio.home import Home
from studio.jobs.requests import PrepareRequest
from studio.records import Prepared, read_prepared
from studio.screen import out, say, say_json, say_table, visible
from studio.verbs.upload import Json
from templates.builtin import TEMPLATES
from templates.dataset import SPLITS, Dataset, read_dataset, read_split
from templates.errors import DataError
from templates.files import disk_errors
from templates.values import parse


def prepare(
    upload: Annotated[str, typer.Argument(help='Id of an upload, or "latest".')] = "latest",
    task: Annotated[
        str | None, typer.Option(help=f"One of: {', '.join(TEMPLATES)}. Guessed if not given.")
    ] = None,
    input: Annotated[
        list[str] | None,
        typer.Option(help="SLOT=COLUMN, or COLUMN for a template with one slot; repeatable."),
    ] = None,
    label: Annotated[str | None, typer.Option(help="Column of the class.")] = None,
    answer: Annotated[str | None, typer.Option(help="Column of the answer.")] = None,
    turns: Annotated[str | None, typer.Option(help="Column of the conversation.")] = None,
    split: Annotated[
        str | None, typer.Option(help="Column that says train, validation or test.")
    ] = None,
    skip: Annotated[list[str] | None, typer.Option(help="A cleaner to leave out.")] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", help="STEP.NAME=VALUE; repeatable.")
    ] = None,
    augment: Annotated[list[str] | None, typer.Option(help="An augmenter to use.")] = None,
    instruction: Annotated[
        str | None,
        typer.Option(help="Task description for the untuned model; {labels} lists labels."),
    ] = None,
    separator: Annotated[str | None, typer.Option(help="Ends every prompt; \\n is read.")] = None,
    stop: Annotated[str | None, typer.Option(help="Ends every answer; \\n is read.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Decides every random choice.")] = 0,
    recipe: Annotated[
        Path | None, typer.Option(help="Replay this recipe.json instead of the options.")
    ] = None,
    base: Annotated[str, typer.Option(help="Base whose tokenizer checks the data.")] = "starter",
    export: Annotated[
        Path | None, typer.Option(help="Also write prompt/completion and messages JSONL here.")
    ] = None,
    preview: Annotated[
        int, typer.Option(min=0, help="Examples to show as the model reads them.")
    ] = 2,
    json: Json = False,
) -> str:
    """Turn an upload into examples in three splits."""
    from data_prep.recipe import PrepRecipe, complete, propose_recipe  # noqa: PLC0415
    from data_prep.upload import load_upload  # noqa: PLC0415

    home = Home()
    folder = home.find("upload", upload)
    if recipe is not None:
        chosen = parse(PrepRecipe, _read(recipe), where=recipe.name, error=DataError)
    else:
        chosen = propose_recipe(load_upload(folder), seed=seed)
        content = chosen.model_dump(mode="json")
        _choose_template(content, task, instruction, separator, stop)
        _choose_columns(content, input or [], label, answer, turns, split)
        _choose_steps(content, skip or [], augment or [], option or [])
        chosen = complete(parse(PrepRecipe, content, where="options", error=DataError))
    request = PrepareRequest(
        upload_id=folder.name,
        recipe=chosen.model_dump(mode="json"),
        base=fetched(home, base),
        preview=preview,
    )
    job = do(home, request)
    prepared = read_prepared(job)
    dataset = read_dataset(home.place("dataset") / prepared.dataset_id)
    home.mark_latest("dataset", dataset.id)
    dataset_folder = home.place("dataset") / dataset.id
    if export is not None:
        _export(dataset, dataset_folder, export)
    if json:
        say_json(dataset.model_dump(mode="json"))
        return dataset.id
    _show(dataset)
    _show_preview(prepared)
    say(f"Kept as {dataset.id}. Next: python app.py plan {dataset.id} --base {base}")
    return dataset.id


def _read(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        raise DataError(
            "The recipe cannot be read", where=path.name, fix="Give a recipe.json from a dataset"
        ) from None


def _choose_template(
    content: dict[str, Any],
    task: str | None,
    instruction: str | None,
    separator: str | None,
    stop: str | None,
) -> None:
    if task is not None:
        if task not in TEMPLATES:
            raise DataError(
                f"There is no task {task!r}", where="--task", fix=f"Choose {', '.join(TEMPLATES)}"
            )
        if task != content["template"]["task"]:
            content["mapping"] = {}
        content["template"] = TEMPLATES[task].model_dump(mode="json")
    changes = {"instruction": instruction, "separator": separator, "stop": stop}
    for name, text in changes.items():
        if text is not None:
            content["template"][name] = text.replace("\\n", "\n").replace("\\t", "\t")


def _choose_columns(
    content: dict[str, Any],
    inputs: list[str],
    label: str | None,
    answer: str | None,
    turns: str | None,
    split: str | None,
) -> None:
    template = parse(
        type(TEMPLATES["chat"]), content["template"], where="template", error=DataError
    )
    mapping = content["mapping"]
    fields: dict[str, str] = {}
    for item in inputs:
        slot, equals, column = item.partition("=")
        if not equals:
            slots = template.slots
            slot, column = (slots[-1] if slots else "input"), item
        fields[slot] = column
    if fields:
        mapping["fields"] = fields
    targets = {"label": label, "references": answer, "turns": turns, "split": split}
    mapping.update({name: chosen for name, chosen in targets.items() if chosen is not None})


def _choose_steps(
    content: dict[str, Any], skip: list[str], augment: list[str], options: list[str]
) -> None:
    names = [step["name"] for step in content["steps"]]
    unknown = [name for name in skip if name not in names]
    if unknown:
        raise DataError(
            f"There is no cleaner {unknown[0]!r} to leave out",
            where="--skip",
            fix=f"Choose from {', '.join(names)}",
        )
    content["steps"] = [step for step in content["steps"] if step["name"] not in skip]
    content["augmenters"] = [{"name": name, "options": {}} for name in augment]
    steps = {step["name"]: step for step in (*content["steps"], *content["augmenters"])}
    for item in options:
        place, equals, value = item.partition("=")
        name, dot, field = place.partition(".")
        if not (equals and dot) or name not in steps:
            raise DataError(
                f"The option {item!r} cannot be used",
                where="--option",
                fix=f"Write STEP.NAME=VALUE with a step of this recipe: {', '.join(steps)}",
            )
        try:
            steps[name]["options"][field] = yaml.safe_load(value)
        except yaml.YAMLError:
            steps[name]["options"][field] = value  # the step will say what is wrong with it


def _show(dataset: Dataset) -> None:
    rows = []
    for report in dataset.reports:
        counts = ", ".join(f"{name} {count}" for name, count in report.counts.items())
        sample = ""
        if report.samples:
            change = report.samples[0]
            after = "dropped" if change.after is None else change.after[:40]
            sample = f"row {change.row}: {change.before[:40]!r} → {after}"
        figures = (str(report.rows_in), str(report.rows_out), str(report.rows_changed))
        rows.append((report.step, *figures, counts, sample.replace("\n", " ")))
    headings = ("step", "rows in", "rows out", "changed", "counts", "for example")
    say_table(f"{dataset.name} → {dataset.template.name}", headings, rows)
    sizes = ", ".join(
        f"{split} {dataset.splits[split].rows}" for split in SPLITS if split in dataset.splits
    )
    say(f"Splits: {sizes}" + (f"; labels: {', '.join(dataset.labels)}" if dataset.labels else ""))
    for warning in dataset.warnings:
        say(f"Warning: {warning}")


def _show_preview(prepared: Prepared) -> None:
    lengths = prepared.lengths
    say(
        f"Training examples have {lengths.min_tokens} to {lengths.max_tokens} tokens, half of "
        f"them at most {lengths.median_tokens:.0f}; the base reads {lengths.context_tokens}, "
        f"{lengths.num_over_context} are longer. The loss sees "
        f"{100 * lengths.supervised_ratio:.0f} % of the tokens.\n"
    )
    for item in prepared.preview:
        text = Text()
        for piece in item.pieces:
            style = "black on green" if piece.supervised else "dim"
            text.append(visible(piece.text).replace("\n", "⏎\n"), style=style)
        out.print(text)
        say(f"({item.num_tokens} tokens; the loss sees the {item.num_supervised} coloured ones)\n")


def _export(dataset: Dataset, folder: Path, target: Path) -> None:
    from data_prep.exports import export_messages, export_prompt_completion  # noqa: PLC0415

    with disk_errors("the exports"):
        target.mkdir(parents=True, exist_ok=True)
    for split in dataset.splits:
        examples = read_split(folder, split)
        export_prompt_completion(
            examples, dataset.template, target / f"{split}.prompt_completion.jsonl"
        )
        export_messages(examples, dataset.template, target / f"{split}.messages.jsonl")
    say(f"Exported to {target}")
