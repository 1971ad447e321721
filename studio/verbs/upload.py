"""upload: read a table strictly and show how it was understood."""

from pathlib import Path
from typing import Annotated

import typer

from studio.doing import do
from studio.home import Home
from studio.jobs.requests import TABLE, DownloadRequest
from studio.records import DOWNLOADED, Downloaded
from studio.screen import progress, say, say_json, say_table
from studio.settings import hub_token
from templates.errors import RunError

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def upload(
    file: Annotated[
        Path | None,
        typer.Argument(
            help="CSV, TSV, JSONL, JSON, Parquet, Excel (.xlsx), text (.txt) or a zip of .txt "
            "files; .gz is fine too."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="A label for the table.")] = None,
    delimiter: Annotated[
        str | None, typer.Option(help="Between cells; found out if not given.")
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(help="Of the text; found out if not given.")
    ] = None,
    header: Annotated[
        bool | None,
        typer.Option(help="Whether the first row holds the column names; found out if not given."),
    ] = None,
    sheet: Annotated[
        str | None, typer.Option(help="Of a workbook; the first with rows if not given.")
    ] = None,
    hub: Annotated[
        str,
        typer.Option(
            help="A data set of the Hub, owner/name, instead of a file; a token for private ones "
            "is taken from HF_TOKEN. Only the table is fetched; nothing is run."
        ),
    ] = "",
    configuration: Annotated[
        str, typer.Option(help="Of the data set; the first if not given.")
    ] = "",
    split: Annotated[str, typer.Option(help="Of the data set; train if not given.")] = "",
    revision: Annotated[str, typer.Option(help="Of the data set: branch, tag or commit.")] = "",
    json: Json = False,
) -> str:
    """Read a table of examples and keep it."""
    from data_prep.upload import read_upload  # noqa: PLC0415

    separator = "\t" if delimiter in ("\\t", "tab") else delimiter
    home = Home()
    home.remove_leftovers()
    if hub:
        if file is not None:
            raise RunError("Both a file and --hub are given", fix="Give one of them")
        wanted = DownloadRequest(
            data_set=hub, configuration=configuration, split=split, revision=revision
        )
        file, called = _download(home, wanted)
        # The ending tells the format.
        name = f"{name}{Path(called).suffix}" if name else called
    if file is None:
        raise RunError("There is no table to read", fix="Give a file, or --hub owner/name")
    folder = home.new("upload")
    with progress("Reading"):
        value = read_upload(
            file,
            folder,
            name=name,
            delimiter=separator,
            encoding=encoding,
            has_header=header,
            sheet=sheet,
        )
    home.mark_latest("upload", value.id)
    if hub:  # the upload keeps it
        file.unlink()
    if json:
        say_json(value.model_dump(mode="json"))
        return value.id
    rows = [
        (
            column.name,
            column.kind,
            str(column.num_empty),
            str(column.num_distinct),
            f"{column.mean_characters:.0f}",
            (column.samples[0] if column.samples else "")[:50].replace("\n", " "),
        )
        for column in value.columns
    ]
    headings = ("column", "kind", "empty", "distinct", "mean characters", "a sample")
    mark = f", delimiter {value.delimiter!r}" if value.delimiter else ""
    stored = (
        f", {value.encoding}" if value.encoding else f", sheet {value.sheet!r}" * bool(value.sheet)
    )
    title = f"{value.name}: {value.num_rows:,} rows, {value.format}{stored}{mark}"
    say_table(title, headings, rows)
    for note in value.notes:
        say(f"Note: {note}")
    say(f"Kept as {value.id}. Next: python app.py prepare {value.id}")
    return value.id


def _download(home: Home, request: DownloadRequest) -> tuple[Path, str]:
    """Bring a table of the Hub -> the file, and what to call it."""
    folder = do(home, request, token=hub_token()).folder
    downloaded = Downloaded.model_validate_json((folder / DOWNLOADED).read_text(encoding="utf-8"))
    return folder / TABLE, downloaded.name
