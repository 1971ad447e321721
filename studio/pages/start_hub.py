"""A new project from a data set on the Hub: look what it has, choose one table, fetch it."""

import json
from collections.abc import Sequence
from typing import Any

import gradio as gr
from markupsafe import Markup

from data_prep.hub_tables import MAX_BYTES, HubTable, check_name, list_tables
from studio.jobs.requests import DownloadRequest
from studio.pages.page import Shell, piece
from studio.web.html import callout, section
from studio.web.words import count, size
from templates.errors import DataError

_MOST_CHOICES = 200


def table_choices(tables: Sequence[HubTable]) -> list[tuple[str, str]]:
    """List the tables of a data set that can be fetched.

    Args:
        tables: of the data set.

    Returns:
        Words and value of each.
    """
    return [
        (
            f"{table.title} · {size(table.total_bytes)}, "
            f"{count(len(table.files), 'file')} ({table.ending[1:]})",
            json.dumps([table.configuration, table.split]),
        )
        for table in tables
        if table.total_bytes <= MAX_BYTES
    ][:_MOST_CHOICES]


def chosen_table(value: Any) -> tuple[str, str]:
    """Read a choice.

    Args:
        value: of one of the choices.

    Returns:
        Configuration and split.

    Raises:
        DataError: it is none of them.
    """
    try:
        configuration, split = json.loads(str(value))
        if isinstance(configuration, str) and isinstance(split, str):
            return configuration, split
    except (ValueError, TypeError, RecursionError):
        pass
    raise DataError("No table is chosen", where="Table", fix="Choose one from the list")


def build_hub_card(shell: Shell) -> None:
    """Place the card.

    Args:
        shell: what the wizard gives.
    """
    piece(section(
        "From the Hub", "Only the table is fetched. Nothing of the data set is ever run.",
    ))  # fmt: skip
    name = gr.Textbox(
        label="Data set", placeholder="owner/name", max_length=200, elem_id="hub-name",
        info="The last two parts of the address of its page.",
    )  # fmt: skip
    token = gr.Textbox(
        label="Token, only for private data sets", type="password", max_length=512,
        elem_id="hub-token", info="Kept in memory until the table is here, never written down.",
    )  # fmt: skip
    look = gr.Button("Look it up", elem_id="hub-look")
    news = piece(elem_id="hub-news")
    table = gr.Dropdown(
        [], label="Table", visible=False, allow_custom_value=True, elem_id="hub-table",
        info="Most people begin with “train”.",
    )  # fmt: skip
    fetch = gr.Button("Fetch this table", variant="primary", visible=False, elem_id="hub-fetch")

    def look_up(name: str, token: str) -> list[Any]:
        hidden = [gr.Dropdown(visible=False), gr.Button(visible=False)]
        try:
            tables = list_tables(name, token=token.strip())
        except DataError as error:
            view = callout("bad", error.what, error.where, fix=error.fix)
            return [str(view), *hidden]
        choices = table_choices(tables)
        too_large = len(tables) - len(choices)
        if not choices:
            view = callout(
                "warn", "Its tables are too large", f"At most {size(MAX_BYTES)} are fetched.",
                fix="Choose another data set, or upload a part of the rows as a file",
            )  # fmt: skip
            return [str(view), *hidden]
        words = f"{count(len(choices), 'table')} to choose from"
        words += f"; {count(too_large)} too large or too many to list" if too_large else ""
        return [
            str(Markup('<p class="ts-soft" role="status">{}</p>').format(words)),
            gr.Dropdown(choices=choices, value=choices[0][1], visible=True),
            gr.Button(visible=True),
        ]

    def begin(name: str, token: str, choice: Any) -> list[Any]:
        data_set = check_name(name)
        configuration, split = chosen_table(choice)
        request = DownloadRequest(data_set=data_set, configuration=configuration, split=split)
        project = shell.server.projects.new(data_set.partition("/")[2])
        job = shell.server.queue.submit(request, token=token.strip())
        shell.server.readings.expect(project.id, job.id, name=f"{data_set}, {split}")
        return [project.id, "upload", "", ""]

    quiet: dict[str, Any] = {"api_visibility": "private"}
    found = [news, table, fetch]
    for trigger in (look.click, name.submit):
        trigger(
            shell.toasts.guarded(look_up), [name, token], found,
            show_progress="full", show_progress_on=news, **quiet,
        )  # fmt: skip
    fetch.click(
        shell.toasts.guarded(begin), [name, token, table],
        [shell.project, shell.step, token, news], show_progress="hidden", **quiet,
    )  # fmt: skip
