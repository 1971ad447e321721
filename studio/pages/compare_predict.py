"""A whole table answered by the tuned model: drop it, wait, take the answers away."""

import functools
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from data_prep.table_file import FORMATS
from engine.jobs import Job
from studio.answer_files import as_csv, as_jsonl
from studio.jobs.progress import read_progress
from studio.jobs.requests import TABLE, PredictRequest
from studio.pages.compare_subject import predict_request, read_subject
from studio.pages.download import download_button
from studio.pages.page import LOOK_SECONDS, Page, Shell, piece
from studio.projects import Project
from studio.records import PREDICTED, Predicted, planned, require_finished
from studio.web.html import callout, join, section, table, visible
from studio.web.job_view import AT_WORK, job_view
from studio.web.toasts import told
from studio.web.words import count
from templates.dataset import Dataset, read_manifest
from templates.errors import DataError, RunError, StudioError

_PREVIEW_ROWS, _MOST_CHARACTERS = 10, 160
_TITLE = "Answering your rows"


def build(shell: Shell) -> Page:
    """Build this part of the step.

    Args:
        shell: what the wizard gives.

    Returns:
        The part; hidden where there is no finished run.
    """
    with gr.Column(visible=False) as everything:
        needed = piece()
        file = gr.File(
            label="Table without answers", file_count="single", type="filepath", height=150,
            file_types=[*FORMATS, ".gz"],
        )  # fmt: skip
        found = piece()
        status = piece()
        with gr.Row(elem_classes="ts-downloads"):
            stop = gr.Button("Stop", visible=False, elem_classes="ts-small-button")
            again = gr.Button("Try again", visible=False, elem_classes="ts-small-button")
            begin = gr.Button("Answer the rows", interactive=False, elem_classes="ts-small-button")
        result = piece()
        with gr.Row(visible=False, elem_classes="ts-downloads") as downloads:
            for form in ("csv", "jsonl"):
                make = functools.partial(_file, shell, form)
                download_button(shell, f"Download the answers ({form.upper()})", make)
    timer = gr.Timer(LOOK_SECONDS, active=False)
    state = [begin, status, stop, again, result, downloads, timer]
    outputs = [everything, needed, file, found, *state]

    def checked(project: Project, path: str | None) -> list[Any]:
        if not path:
            return ["", gr.Button(interactive=False)]
        dataset = _dataset(shell, project)
        preview = shell.server.data.call(
            "preview", {"path": Path(path), "name": Path(path).name, "limit": _PREVIEW_ROWS}
        )
        problem = preview["problem"]
        if problem:
            bad = callout("bad", problem["what"], problem["where"], fix=problem["fix"])
            return [str(bad), gr.Button(interactive=False)]
        missing = missing_columns(dataset, preview["columns"])
        if missing:
            bad = callout(
                "bad", f"The table has no column {' or '.join(map(repr, missing))}",
                f"Its columns are: {', '.join(visible(name, 60) for name in preview['columns'])}",
                fix="Give the columns the names they had in the table you trained with",
            )  # fmt: skip
            return [str(bad), gr.Button(interactive=False)]
        good = callout("good", f"{Path(path).name} has every column that is needed")
        return [str(good), gr.Button(interactive=True)]

    def answer_rows(project: Project, path: str | None) -> list[Any]:
        running = shell.server.home.existing_job(project.predict_job)
        if running is not None and shell.server.queue.state(running) in AT_WORK:
            return _state(shell, project)  # a second click
        if not path:
            raise DataError("There is no table to answer", fix="Drop a table first")
        run = shell.server.home.job(project.run)
        require_finished(run)
        request = PredictRequest(run_id=run.id, table_name=Path(path).name)
        shell.server.engine.release()
        job = shell.server.queue.submit(
            request, key=f"{project.id}/predict/{project.predict_job}", files={TABLE: Path(path)}
        )
        shell.server.queue.advance()
        return _state(shell, shell.server.projects.change(project.id, predict_job=job.id))

    def stopped(project: Project) -> list[Any]:
        job = shell.server.home.existing_job(project.predict_job)
        if job is not None:
            shell.server.queue.stop(job)
        return _state(shell, project)

    def tried_again(project: Project) -> list[Any]:
        job = shell.server.home.existing_job(project.predict_job)
        if job is None:
            raise RunError("The job is gone", fix="Drop the table again")
        if shell.server.queue.state(job) not in AT_WORK:
            shell.server.engine.release()
            shell.server.queue.resume(job)
            shell.server.queue.advance()
        return _state(shell, project)

    shell.on(file.change, checked, [file], [found, begin], busy=found)

    def looked(project: Project) -> list[Any]:
        job = shell.server.home.existing_job(project.predict_job)
        if job is not None and shell.server.queue.state(job) == "finished":
            told("The rows of your table are answered.")
        return _state(shell, project)

    shell.on(begin.click, answer_rows, [file], state, busy=begin)
    shell.on(stop.click, stopped, outputs=state)
    shell.on(again.click, tried_again, outputs=state)
    shell.on(timer.tick, looked, outputs=state)

    def show(project: Project) -> list[Any]:
        subject = read_subject(shell.server, project)
        if subject.dataset is None or subject.run is None:
            return [gr.Column(visible=False), *(gr.skip() for _ in outputs[1:])]
        names = ", ".join(f"“{visible(name, 60)}”" for name in needed_columns(subject.dataset))
        head = section(
            "Answer a whole table",
            f"Drop a table with new rows. It needs the column {names}; other columns are kept.",
        )
        _, *rest = _state(shell, project)
        return [
            gr.Column(visible=True), str(head), None, "", gr.Button(interactive=False), *rest
        ]  # fmt: skip

    return Page(outputs, show)


def needed_columns(dataset: Dataset) -> list[str]:
    """Name the columns that a new table must have.

    Args:
        dataset: what the run was trained on.

    Returns:
        Columns of the inputs; optional ones are left out.
    """
    template = dataset.template
    keys = ["turns"] if template.task == "chat" else [
        slot for slot in template.slots if slot not in template.optional_slots
    ]  # fmt: skip
    return [dataset.columns[key] for key in keys if key in dataset.columns]


def missing_columns(dataset: Dataset, columns: Sequence[str]) -> list[str]:
    """Find what a new table lacks.

    Args:
        dataset: what the run was trained on.
        columns: of the new table.

    Returns:
        Names of columns.
    """
    return [name for name in needed_columns(dataset) if name not in columns]


def _dataset(shell: Shell, project: Project) -> Dataset:
    run = shell.server.home.job(shell.server.home.find("train", project.run).name)
    return read_manifest(shell.server.home.find("dataset", planned(run).dataset_id))


def _state(shell: Shell, project: Project) -> list[Any]:
    """Give what begin, status, stop, again, result, downloads and timer hold."""
    job = shell.server.home.existing_job(project.predict_job)
    progress = None
    if job is not None:
        with suppress(StudioError):
            progress = read_progress(shell.server.queue, job)
    if job is None or progress is None:
        hidden = gr.Button(visible=False)
        return [
            gr.Button(interactive=True), "", hidden, hidden, "", gr.Row(visible=False),
            gr.Timer(active=False),
        ]  # fmt: skip
    at_work = progress.state in AT_WORK
    is_done = progress.state == "finished"
    return [
        gr.Button(interactive=not at_work),
        str(job_view(job, progress, title=_TITLE)),
        gr.Button(visible=at_work), gr.Button(visible=not at_work and not is_done),
        str(_result(job, project)) if is_done else "",
        gr.Row(visible=is_done), gr.Timer(active=at_work),
    ]  # fmt: skip


def _result(job: Job, project: Project) -> Markup:
    request = predict_request(job)
    try:
        predicted = _predicted(job)
        rows = list(_answers(job, predicted, _PREVIEW_ROWS))
    except StudioError as error:
        return callout("bad", error.what, error.where, fix=error.fix)
    if request is None or not rows:
        return Markup("")
    cut = f"{count(predicted.cut, 'row')} lost their start to fit. " if predicted.cut else ""
    earlier = "" if request.run_id == project.run else "An earlier run answered them. "
    words = f"{cut}{earlier}The first {count(len(rows), 'row')} are below."
    headings = [visible(name, 60) for name in rows[0]]
    cells = [[visible(str(cell), _MOST_CHARACTERS) for cell in row.values()] for row in rows]
    return join((
        callout(
            "good" if not earlier else "warn",
            f"{count(predicted.rows, 'row')} of {visible(request.table_name, 80)} answered", words,
        ),
        table(headings, cells, caption="The first answers"),
    ))  # fmt: skip


def _predicted(job: Job) -> Predicted:
    try:
        return Predicted.model_validate_json((job.folder / PREDICTED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise RunError(
            "The answers cannot be read", where=job.id, fix="Answer the table again"
        ) from None


def _answers(job: Job, predicted: Predicted, most: int | None = None) -> Iterator[dict[str, Any]]:
    try:
        with (job.folder / predicted.file).open(encoding="utf-8") as lines:
            for line in islice(lines, most):
                yield json.loads(line)
    except (OSError, ValueError):
        raise RunError(
            "The answers cannot be read", where=job.id, fix="Answer the table again"
        ) from None


def _file(shell: Shell, form: str, project: Project) -> tuple[str, str]:
    job = shell.server.home.existing_job(project.predict_job)
    if job is None:
        raise RunError("The answers are gone", fix="Answer the table again")
    rows = _answers(job, _predicted(job))
    return f"predictions.{form}", as_csv(rows) if form == "csv" else as_jsonl(rows)
