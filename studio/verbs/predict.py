"""predict: a tuned model answers the rows of a new table."""

from pathlib import Path
from typing import Annotated

import typer

from engine.jobs import Job
from studio.doing import do
from studio.home import Home
from studio.jobs.requests import TABLE, PredictRequest
from studio.records import PREDICTED, Predicted, require_finished
from studio.screen import say, say_json
from studio.verbs.upload import Json
from templates.errors import DataError
from templates.files import write_atomically


def predict(
    table: Annotated[Path, typer.Argument(help="CSV, TSV, JSONL or JSON without answers.")],
    run: Annotated[str, typer.Option(help='Id of a train run, or "latest".')] = "latest",
    to: Annotated[Path, typer.Option(help="Where to write; .jsonl or .csv.")] = Path(
        "predictions.jsonl"
    ),
    max_new_tokens: Annotated[
        int, typer.Option(min=0, help="Longest answer; 0: as it was measured.")
    ] = 0,
    temperature: Annotated[
        float,
        typer.Option(min=0, max=10, help="Draw free text; 0: the likeliest, as it was measured."),
    ] = 0.0,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Fixes the draws.")] = 0,
    beams: Annotated[
        int, typer.Option(min=1, max=64, help="Follow this many texts for each row, give the best.")
    ] = 1,
    json: Json = False,
) -> None:
    """Answer every row of a table with a tuned model."""
    from data_prep.table_file import read_table  # noqa: PLC0415

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
    if temperature and beams > 1:
        raise DataError(
            "Texts are drawn, or the best of several is looked for, not both",
            where="--temperature and --beams",
            fix="Give one of the two",
        )
    home = Home()
    job = Job(home.find("train", run))
    require_finished(job)
    if to.resolve() == table.resolve():
        raise DataError(
            "The answers would overwrite the table", where=to.name, fix="Name another file"
        )
    read_table(table)  # what is wrong with it is said here, before anything is made for it
    request = PredictRequest(
        run_id=job.id,
        table_name=table.name,
        form="csv" if to.suffix == ".csv" else "jsonl",
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
        beams=beams,
    )
    folder = do(home, request, files={TABLE: table}).folder
    predicted = Predicted.model_validate_json((folder / PREDICTED).read_text(encoding="utf-8"))
    write_atomically(to, (folder / predicted.file).read_bytes())
    rows, cut = predicted.rows, predicted.cut
    if json:
        say_json({"run": job.id, "rows": rows, "cut": cut, "file": str(to)})
    else:
        if cut:
            say(f"Note: {cut} rows were cut at their start to fit the context.")
        say(f"Answered {rows:,} rows with {job.id}: {to}")
