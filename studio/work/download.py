"""A table of a Hub data set onto this machine; it is read like any other file afterwards."""

from data_prep.hub_tables import check_name, choose_table, download_table, list_tables
from studio.jobs.context import Context
from studio.jobs.requests import TABLE, DownloadRequest
from studio.records import DOWNLOADED, Downloaded
from templates.files import canonical_json, write_atomically


def run(request: DownloadRequest, context: Context) -> tuple[str, ...]:
    """Look what there is, and bring the table that is asked for.

    Args:
        request: which table.
        context: where to tell.

    Returns:
        The table, and the file that says what it is called.
    """
    name = check_name(request.data_set)
    context.progress(0.0, "asking the Hub")
    tables = list_tables(name, revision=request.revision, token=context.token)
    table = choose_table(
        tables, name=name, configuration=request.configuration, split=request.split
    )
    folder = context.job.folder
    download_table(name, table, folder / TABLE, token=context.token, progress=context.progress)
    label = f"{name.partition('/')[2]} {table.title}".replace("/", " ") + table.ending
    downloaded = Downloaded(
        name=label,
        data_set=name,
        configuration=table.configuration,
        split=table.split,
        revision=table.revision,
    )
    content = canonical_json(downloaded.model_dump(mode="json"), indent=2)
    write_atomically(folder / DOWNLOADED, content)
    return (TABLE, DOWNLOADED)
