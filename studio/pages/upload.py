"""Step 1: the table as it was understood, and how to have it read differently."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from data_prep.table_file import FORMATS, Corrections
from data_prep.table_preview import Problem, TablePreview
from data_prep.upload import Upload, load_upload, read_rows
from studio.jobs.progress import read_progress
from studio.jobs.requests import DownloadRequest
from studio.pages import upload_correction as correction
from studio.pages import upload_profile as profile
from studio.pages.page import Page, Shell, piece
from studio.projects import Project
from studio.readings import Incoming
from studio.web.html import bar, callout, empty, heading, join, section, visible
from studio.web.job_view import AT_WORK, job_view
from studio.web.words import size
from templates.errors import DataError, RunError, StudioError
from templates.values import parse

FILE_TYPES = [*FORMATS, ".gz"]
_LOOK_SECONDS = 0.7
_PREVIEW_SECONDS = 20.0
_BUSY = "Reading your table"


def build(shell: Shell) -> Page:
    """Build the step.

    Args:
        shell: what the wizard gives.

    Returns:
        The step.
    """
    return _UploadPage(shell).page


class _UploadPage:
    """The components, and what fills them in each state: busy, in trouble, read, or nothing yet."""

    def __init__(self, shell: Shell) -> None:
        self._shell, self._server = shell, shell.server
        self._head, self._news = piece(), piece(elem_id="upload-news")
        with gr.Row(visible=False) as self._busy_row:
            self._cancel = gr.Button("Cancel", elem_classes="ts-small-button")
        with gr.Row(visible=False, elem_classes="ts-again") as self._again_row:
            self._token = gr.Textbox(
                label="Token, for a private data set", type="password", max_length=512, scale=3,
                info="From your account on the Hub. It is kept in memory only.",
            )  # fmt: skip
            self._again = gr.Button("Download again", variant="primary", scale=0)
        self._table, self._columns = piece(elem_id="upload-rows"), piece(elem_id="upload-columns")
        self._build_correction()
        with gr.Accordion("Use another file", open=False, visible=False) as self._replacing:
            self._about_file = piece()
            self._file = gr.File(
                label="Drop the new table here, or press to choose it", type="filepath",
                file_types=FILE_TYPES, elem_id="upload-file", height=150,
            )  # fmt: skip
            self._discard = gr.Button("Forget this file", visible=False, size="sm")
        with gr.Row(elem_classes="ts-next", visible=False) as self._next_row:
            onward = gr.Button("Next: prepare", variant="primary")
        self._looking = gr.Timer(_LOOK_SECONDS, active=False)
        self._first_look = gr.Timer(0.1, active=False)
        self.page = Page(
            [
                self._head, self._news, self._busy_row, self._again_row, self._table,
                self._columns, self._correcting, *self._fields, self._preview, self._read,
                self._replacing, self._about_file, self._file, self._discard, self._next_row,
                self._looking, self._first_look,
            ],
            self.show,
        )  # fmt: skip
        shell.on(onward.click, lambda project: "prepare", outputs=[shell.step])
        self._connect()

    def _build_correction(self) -> None:
        with gr.Accordion("Read it differently", open=False, visible=False) as self._correcting:
            piece(Markup('<p class="ts-lead">{}</p>').format(
                "Every change is tried on the beginning of the file at once. Nothing is replaced "
                "before you say so."
            ))  # fmt: skip
            with gr.Row():
                self._delimiter = gr.Dropdown(
                    correction.delimiter_choices(), label="Between the cells",
                    info="Choose, or type another character.",
                    allow_custom_value=True, min_width=200,
                )  # fmt: skip
                self._encoding = gr.Dropdown(
                    correction.encoding_choices(), label="Letters are stored as",
                    info="Change it where é or ü look wrong.",
                    allow_custom_value=True, min_width=200,
                )  # fmt: skip
                self._header = gr.Radio(
                    correction.HEADER_CHOICES, label="First row holds the column names",
                    info="No: columns are called column 1, column 2 …", min_width=200,
                )  # fmt: skip
                self._sheet = gr.Dropdown(
                    correction.sheet_choices(()), label="Sheet of the workbook",
                    info="Each sheet is a table of its own.",
                    allow_custom_value=True, min_width=200,
                )  # fmt: skip
            self._preview = piece(elem_id="upload-preview")
            with gr.Row(elem_classes="ts-next"):
                self._read = gr.Button("Read it like this")
        self._fields = (self._delimiter, self._encoding, self._header, self._sheet)

    def _connect(self) -> None:
        on, outputs = self._shell.on, list(self.page.outputs)
        previewed = [self._preview, self._sheet, self._read]
        for component in self._fields:
            on(component.input, self._try, self._fields, previewed, trigger_mode="always_last")
        on(self._correcting.expand, self._try, self._fields, previewed)
        on(
            self._first_look.tick, self._try_first, self._fields,
            [*previewed, self._first_look], trigger_mode="once",
        )  # fmt: skip
        on(self._read.click, self._read_again, self._fields, outputs)
        on(self._file.upload, self._replace, [self._file], outputs, busy=self._file)
        on(self._cancel.click, self._give_up, (), outputs)
        on(self._discard.click, self._give_up, (), outputs)
        on(self._again.click, self._download_again, [self._token], [*outputs, self._token])
        on(self._looking.tick, self.show, (), outputs)

    def show(self, project: Project) -> list[Any]:
        """Fill the step from files."""
        incoming = self._server.readings.find(project.id)
        reached = self._server.readings.reached(project.id)
        project = self._server.projects.read(project.id)  # a reading may have ended just now
        if reached is not None:
            words = f"{reached.words} · {visible(incoming.name, 80)}" if incoming else reached.words
            return self._busy(bar(reached.done_ratio, words, label=_BUSY))
        if incoming is not None and incoming.job:
            return self._downloading(incoming)
        if incoming is not None:
            return self._in_trouble(project, incoming)
        with suppress(StudioError):
            if project.upload:
                return self._as_read(project)
        return self._with_nothing(is_gone=bool(project.upload))

    def _busy(self, view: Markup) -> list[Any]:
        head = heading("Your table", "It is being read; you may leave this page meanwhile.")
        return self._state(head, view, busy=True)

    def _downloading(self, incoming: Incoming) -> list[Any]:
        job = self._server.home.job(incoming.job)
        title = f"Downloading {visible(incoming.name, 80)}"
        head = heading(title, "Only the table is fetched; nothing of the data set is run.")
        try:
            progress = read_progress(self._server.queue, job)
        except StudioError:
            gone = callout("bad", "The download is gone", fix="Choose the data set again")
            return self._state(head, gone, replacing=True, discard="Forget this download")
        view = job_view(job, progress, title=title)
        if progress.state in AT_WORK:
            return self._state(head, view, busy=True)
        return self._state(head, view, again=True, replacing=True, discard="Forget this download")

    def _in_trouble(self, project: Project, incoming: Incoming) -> list[Any]:
        name = visible(incoming.name, 80)
        head = heading("Your table", f"{name} is here, but it could not be read yet.")
        problem = incoming.problem
        view = correction.problem_view(problem) if problem else callout(
            "warn", "Reading was interrupted", fix="Press “Read it like this” to read the file"
        )  # fmt: skip
        if project.upload:
            view = join([view, Markup('<p class="ts-soft">{}</p>').format(
                "The table you had before is kept until a new one has been read."
            )])  # fmt: skip
        label = "Keep the table I had" if project.upload else "Forget this file"
        return self._state(
            head, view, correcting=(incoming.name, incoming.corrections, True),
            replacing=True, discard=label,
        )  # fmt: skip

    def _as_read(self, project: Project) -> list[Any]:
        folder = self._server.home.place("upload") / project.upload
        upload = load_upload(folder)
        rows = list(read_rows(folder, limit=profile.SHOWN_ROWS))
        found = Corrections(
            delimiter=upload.delimiter, encoding=upload.encoding or None,
            has_header=upload.has_header, sheet=upload.sheet,
        )  # fmt: skip
        return self._state(
            heading("Your table", "Check that rows and columns were read as you meant them."),
            profile.overview(upload) + profile.notes(upload.notes),
            table=profile.first_rows(upload, rows),
            columns=profile.columns(upload) + profile.command(upload),
            correcting=(_with_ending(upload), found, False),
            replacing=True,
            onward=True,
        )

    def _with_nothing(self, *, is_gone: bool) -> list[Any]:
        view = callout(
            "bad", "The table of this project is not there any more", fix="Choose the file again"
        ) if is_gone else empty(
            "No table yet", "Choose a file below: its rows and columns will be shown here."
        )  # fmt: skip
        head = heading("Your table", "A table with one example in each row.")
        return self._state(head, view, replacing=True, is_open=True)

    def _state(
        self,
        head: Markup,
        news: Markup,
        *,
        table: object = "",
        columns: object = "",
        busy: bool = False,
        again: bool = False,
        correcting: tuple[str, Corrections, bool] | None = None,
        replacing: bool = False,
        is_open: bool = False,
        discard: str = "",
        onward: bool = False,
    ) -> list[Any]:
        """Give one value for each output."""
        fields, accordion = [gr.skip()] * 4, gr.Accordion(visible=False)
        must_correct = False
        if correcting:
            name, found, must_correct = correcting
            shown = correction.fields_for(name)
            fields = _field_updates(shown, found)
            accordion = gr.Accordion(visible=bool(shown), open=must_correct)
        about = "The table you have stays until the new one has been read." if onward else (
            f"{', '.join(dict.fromkeys(FORMATS.values()))}; up to {size(500e6)}."
        )  # fmt: skip
        return [
            str(head), str(news), gr.Row(visible=busy), gr.Row(visible=again),
            str(table), str(columns), accordion, *fields,
            "", gr.Button(interactive=True, variant="primary" if must_correct else "secondary"),
            gr.Accordion(visible=replacing, open=is_open),
            str(Markup('<p class="ts-soft">{}</p>').format(about)),
            None, gr.Button(discard or "Forget this file", visible=bool(discard)),
            gr.Row(visible=onward), gr.Timer(active=busy), gr.Timer(active=must_correct),
        ]  # fmt: skip

    def _try(self, project: Project, *values: Any) -> list[Any]:
        """Preview the file as the fields say."""
        try:
            wanted = correction.corrections_of(*values)
            path, name = self._server.readings.source(project.id)
            found = self._server.data.call(
                "preview",
                {**wanted.model_dump(), "path": path, "name": name, "limit": profile.SHOWN_ROWS},
                timeout_seconds=_PREVIEW_SECONDS,
            )
            preview = parse(TablePreview, found, where="preview", error=RunError)
        except DataError as error:
            view = callout("bad", error.what, error.where, fix=error.fix)
            return [str(view), gr.skip(), gr.Button(interactive=False)]
        incoming = self._server.readings.find(project.id)
        known = incoming.problem if incoming else None
        is_good = preview.problem is None
        choices = correction.sheet_choices(preview.sheets)
        sheet = gr.Dropdown(choices=choices, visible=len(preview.sheets) > 1)
        return [str(_preview_view(preview, known)), sheet, gr.Button(interactive=is_good)]

    def _try_first(self, project: Project, *values: Any) -> list[Any]:
        return [*self._try(project, *values), gr.Timer(active=False)]

    def _read_again(self, project: Project, *values: Any) -> list[Any]:
        wanted = correction.corrections_of(*values)
        self._server.readings.read_again(project.id, wanted)
        return self._shown_soon(project)

    def _replace(self, project: Project, path: str) -> list[Any]:
        if self._server.readings.reached(project.id) is not None:
            raise RunError("A file is being read", fix="Wait until it is done, or cancel it")
        take_upload(self._shell, project, path)
        return self._shown_soon(project)

    def _shown_soon(self, project: Project) -> list[Any]:
        """Small files are read while one blinks."""
        self._server.readings.wait(project.id, 0.15)
        return self.show(project)

    def _give_up(self, project: Project) -> list[Any]:
        self._server.readings.cancel(project.id)
        return self._shown_soon(project)

    def _download_again(self, project: Project, token: str) -> list[Any]:
        incoming = self._server.readings.find(project.id)
        if incoming is None or not incoming.job:
            return [*self.show(project), ""]
        before = self._server.home.job(incoming.job)
        if self._server.queue.state(before) not in AT_WORK:
            request = parse(
                DownloadRequest, before.request("download"), where=before.id, error=RunError
            )
            key = f"{before.id} again"
            job = self._server.queue.submit(request, key=key, token=token.strip())
            self._server.readings.expect(project.id, job.id, name=incoming.name)
        return [*self.show(project), ""]


def take_upload(shell: Shell, project: Project, path: str) -> None:
    """Take a file that the browser sent, and leave nothing of it among the page's files.

    Args:
        shell: what the wizard gives.
        project: whose table it will be.
        path: where Gradio put it.
    """
    source = Path(path)
    shell.server.readings.take(project.id, source, name=source.name)
    with suppress(OSError):
        source.parent.rmdir()


def _with_ending(upload: Upload) -> str:
    """Name an upload so that its format can be told."""
    return upload.name if Path(upload.name).suffix else f"{upload.name}.{upload.format}"


def _field_updates(shown: frozenset[str], corrections: Corrections) -> list[Any]:
    delimiter, encoding, header, sheet = correction.field_values(corrections)
    sheets = correction.sheet_choices([sheet] if sheet else [])
    return [
        gr.Dropdown(value=delimiter, visible="delimiter" in shown),
        gr.Dropdown(
            choices=correction.encoding_choices(encoding), value=encoding,
            visible="encoding" in shown,
        ),
        gr.Radio(value=header, visible="has_header" in shown),
        gr.Dropdown(choices=sheets, value=sheet, visible="sheet" in shown),
    ]  # fmt: skip


def _preview_view(preview: TablePreview, known: Problem | None) -> Markup:
    """Show how the file would be read; a problem that is told already is not told again."""
    if preview.problem is not None:
        told = preview.problem == known
        view = Markup("") if told else correction.problem_view(preview.problem)
        return view + correction.lines_view(preview.lines)
    whole = "the whole file" if preview.is_complete else "the beginning of the file"
    rows = [(str(number), *row) for number, row in enumerate(preview.rows, 1)]
    head = section("How it would be read", f"{correction.summary(preview)} (from {whole})")
    notes = profile.notes(preview.notes)
    return head + notes + profile.rows_table(preview.columns, rows, caption="Preview")
