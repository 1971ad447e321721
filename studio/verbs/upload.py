"""upload: read a table strictly and show how it was understood."""

from pathlib import Path
from typing import Annotated

import typer

from studio.home import Home
from studio.screen import progress, say, say_json, say_table

Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def upload(
    file: Annotated[Path, typer.Argument(help="CSV, TSV, JSONL or JSON; .gz is fine too.")],
    name: Annotated[str | None, typer.Option(help="A label for the table.")] = None,
    delimiter: Annotated[
        str | None, typer.Option(help="Between cells; found out if not given.")
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(help="Of the text; found out if not given.")
    ] = None,
    json: Json = False,
) -> str:
    """Read a table of examples and keep it."""
    from data_prep.upload import read_upload  # noqa: PLC0415

    separator = "\t" if delimiter in ("\\t", "tab") else delimiter
    home = Home()
    home.remove_leftovers()
    folder = home.new("upload")
    with progress("Reading"):
        value = read_upload(file, folder, name=name, delimiter=separator, encoding=encoding)
    home.mark_latest("upload", value.id)
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
    title = f"{value.name}: {value.num_rows:,} rows, {value.format}, {value.encoding}{mark}"
    say_table(title, headings, rows)
    for note in value.notes:
        say(f"Note: {note}")
    say(f"Kept as {value.id}. Next: python app.py prepare {value.id}")
    return value.id
