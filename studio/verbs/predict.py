"""predict: a tuned model answers the rows of a new table."""

import csv
import io
import itertools
import re
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

import typer

from engine.jobs import Job
from studio.home import Home
from studio.screen import progress, say, say_json
from studio.verbs.compare import finished_checkpoint
from studio.verbs.train import planned
from studio.verbs.upload import Json
from templates.dataset import read_dataset, read_split
from templates.errors import DataError
from templates.files import canonical_json, write_atomically

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?")


def predict(
    table: Annotated[Path, typer.Argument(help="CSV, TSV, JSONL or JSON without answers.")],
    run: Annotated[str, typer.Option(help='Id of a train run, or "latest".')] = "latest",
    to: Annotated[Path, typer.Option(help="Where to write; .jsonl or .csv.")] = Path(
        "predictions.jsonl"
    ),
    max_new_tokens: Annotated[
        int, typer.Option(min=0, help="Longest answer; 0: as it was measured.")
    ] = 0,
    json: Json = False,
) -> None:
    """Answer every row of a table with a tuned model."""
    from data_prep.mapping import examples_for_prediction  # noqa: PLC0415
    from data_prep.prepare import rewrite_new_rows  # noqa: PLC0415
    from data_prep.table_file import read_table  # noqa: PLC0415
    from engine.comparing.prompting import (  # noqa: PLC0415
        Question,
        answers_to,
        build_prompts,
        longest_answer_tokens,
    )
    from engine.planning.hardware import prepare_process  # noqa: PLC0415
    from engine.runs import load_run  # noqa: PLC0415

    if to.suffix not in (".jsonl", ".csv"):
        raise DataError(
            f"Predictions cannot be written as {to.suffix or 'that'}",
            where=to.name,
            fix="Name a file that ends in .jsonl or .csv",
        )
    if not to.absolute().parent.is_dir():
        raise DataError(
            "There is no folder to write the answers to",
            where=str(to.parent),
            fix="Make the folder, or name another file",
        )
    prepare_process()
    home = Home()
    job = Job(home.find("train", run))
    plan = planned(job)
    dataset_folder = home.find("dataset", plan.dataset_id)
    dataset = read_dataset(dataset_folder)
    rows = list(read_table(table).rows())
    examples = rewrite_new_rows(
        dataset_folder, examples_for_prediction(rows, dataset.template, dataset.columns)
    )
    finished_checkpoint(job)
    model = load_run(plan, job.checkpoints)
    train_rows = read_split(dataset_folder, "train")
    question = Question(
        template=dataset.template,
        labels=dataset.labels if dataset.template.has_labels else (),
        max_new_tokens=max_new_tokens or longest_answer_tokens(model, train_rows, dataset.template),
    )
    with progress("Predicting") as tick:
        prompts = build_prompts(model, examples, question)
        answers = answers_to(
            model, prompts, question, progress=lambda done, total: tick(done / total, "")
        )
    number, prediction = (_free_name(name, rows[0].cells) for name in ("row", "prediction"))
    results = [
        {number: row.number, **row.cells, prediction: answer}
        for row, answer in zip(rows, answers, strict=True)
    ]
    write_atomically(to, _as_csv(results) if to.suffix == ".csv" else _as_jsonl(results))
    if json:
        say_json({"run": job.id, "rows": len(results), "cut": len(prompts.cut), "file": str(to)})
    else:
        if prompts.cut:
            say(f"Note: {len(prompts.cut)} rows were cut at their start to fit the context.")
        say(f"Answered {len(results):,} rows with {job.id}: {to}")


def _as_jsonl(results: list[dict[str, Any]]) -> str:
    return "".join(canonical_json(result) + "\n" for result in results)


def _as_csv(results: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([_no_formula(name) for name in results[0]])
    for result in results:
        writer.writerow([_no_formula(str(cell)) for cell in result.values()])
    return text.getvalue()


def _no_formula(cell: str) -> str:
    """Keep a spreadsheet from running what a cell says; a number stays a number."""
    if not cell.startswith(_FORMULA_STARTS) or _NUMBER.fullmatch(cell):
        return cell
    return f"'{cell}"


def _free_name(name: str, taken: Collection[str]) -> str:
    """Name a new column without covering one of the person's."""
    names = (name if number == 1 else f"{name} ({number})" for number in itertools.count(1))
    return next(found for found in names if found not in taken)
