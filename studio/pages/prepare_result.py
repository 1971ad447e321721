"""The last part of the prepare step: the job, and what it made."""

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import gradio as gr

from data_prep.exports import export_messages, export_prompt_completion
from data_prep.prepare import RECIPE
from studio.commands import prepare_command
from studio.jobs.progress import read_progress
from studio.journey import StepState, journey
from studio.pages.download import download_button
from studio.pages.page import Page, Shell, hidden_field, hidden_number, new_text, piece
from studio.pages.plan_settings import with_setting
from studio.pages.prepare_data import PreparedData, Reading
from studio.pages.prepare_desk import Desk, step_titles
from studio.pages.prepare_differences import differences
from studio.pages.prepare_lengths import length_view, tokens
from studio.pages.prepare_views import failure, report_table
from studio.projects import Project
from studio.web.html import callout, code, details, empty, join, section, tiles
from studio.web.job_view import AT_WORK, job_view
from studio.web.toasts import told
from studio.web.words import count
from templates.dataset import SPLITS, Dataset, Split, read_split
from templates.errors import DataError, RunError
from templates.example import Example
from templates.template import Template

_TITLE = "Preparing your examples"
_UNHAPPY = ("failed", "interrupted", "stopped")
PREPARED = "prepared"
GONE = "ts-gone"
_LOOK = f"() => document.getElementById('{PREPARED}')?.scrollIntoView()"
_PURPOSES = {"train": "To learn from", "validation": "To choose settings", "test": "To decide"}
_Export = Callable[[Iterable[Example], Template, Path], int]


def build_job(
    shell: Shell, desk: Desk, made: PreparedData, refill: gr.Textbox, result: gr.Column
) -> Page:
    """Build the button that prepares, and what is seen of the job.

    Args:
        shell: what the wizard gives.
        desk: knows the recipe.
        made: knows the project's data.
        refill: gets a new text when the whole step must be filled again.
        result: holds what was made; seen only while it is what the recipe says.

    Returns:
        The part.
    """
    with gr.Column(elem_classes="ts-stick"):  # seen without reading to the end
        news = piece()
        with gr.Row(elem_classes="ts-next"):
            back = gr.Button("Go back to what was prepared", visible=False, min_width=200)
            stop = gr.Button("Stop", visible=False, min_width=120)
            start = gr.Button("Prepare", variant="primary")
    arrived = hidden_field()  # a new text: look at what was made
    timer = gr.Timer(1.5, active=False)

    def show(project: Project) -> list[Any]:
        state = journey(shell.server.home, shell.server.queue, project).prepare
        job = made.job(project)
        progress = read_progress(shell.server.queue, job) if job is not None else None
        works = progress is not None and progress.state in AT_WORK
        # It ended while nobody looked: the next tick takes over what it made.
        is_waiting = progress is not None and progress.state == "finished" and _is_new(project)
        # What went wrong with another recipe is over.
        failed = progress is not None and progress.state in _UNHAPPY and made.is_of_now(project)
        parts: list[object] = []
        if job is not None and progress is not None and (works or failed):
            parts.append(job_view(job, progress, title=_TITLE))
        elif state is StepState.STALE:
            parts.append(_changed(desk, made, project))
        is_stale = state is StepState.STALE
        name = "Try again" if failed else "Prepare again" if is_stale else "Prepare"
        is_done = state is StepState.DONE and not failed
        return [
            str(join(parts)),
            gr.Button(visible=is_stale and not works and _can_go_back(made, project)),
            gr.Button(visible=works),
            gr.Button(name, visible=not works and not is_done and state is not StepState.LOCKED),
            gr.Timer(active=works or is_waiting),
            # By its class, so that it is in its place before it is scrolled to.
            gr.Column(elem_classes=[] if is_done and made.data(project) is not None else [GONE]),
        ]

    def _is_new(project: Project) -> bool:
        prepared = made.prepared(project)
        return prepared is not None and prepared.dataset_id != project.dataset

    part = Page([news, back, stop, start, timer, result], show)

    def begin(project: Project) -> list[Any]:
        return show(made.start(project))

    def end(project: Project) -> list[Any]:
        job = made.job(project)
        if job is not None:
            shell.server.queue.stop(job)
        return show(project)

    def tick(project: Project) -> list[Any]:
        job = made.job(project)
        state = shell.server.queue.state(job) if job is not None else "stopped"
        if state in AT_WORK:
            return [*show(project), gr.skip(), gr.skip()]
        is_new = state == "finished"
        if is_new:
            project = made.take(project)
            data = made.data(project)
            if data is not None:
                told(f"{count(data.splits['train'].rows, 'row')} to learn from", "Prepared")
        return [*show(project), new_text(), new_text() if is_new else gr.skip()]

    def go_back(project: Project) -> str:
        recipe = made.recipe_of_data(project)
        if recipe is None:
            raise DataError("The recipe of the data is gone", fix="Prepare again")
        desk.choose(project, lambda _: recipe)
        return new_text()

    shell.on(start.click, begin, outputs=part.outputs)
    shell.on(stop.click, end, outputs=part.outputs)
    shell.on(timer.tick, tick, outputs=[*part.outputs, refill, arrived])
    arrived.change(None, None, None, js=_LOOK, api_visibility="private")
    shell.on(back.click, go_back, outputs=[refill])
    return part


def build_result(shell: Shell, made: PreparedData) -> Page:
    """Build what is seen of the prepared data.

    Args:
        shell: what the wizard gives.
        made: knows the project's data.

    Returns:
        The part.
    """
    overview = piece()
    piece(section("What the model reads", "Training examples, token by token."))
    look = hidden_field()
    number = hidden_number()
    example = piece()
    with gr.Row(elem_classes="ts-train-buttons"):
        earlier = gr.Button("Previous example", elem_classes="ts-small-button")
        later = gr.Button("Next example", elem_classes="ts-small-button")
        borders = gr.Checkbox(label="Show where tokens begin", value=True, container=False)
    piece(section("Length", "A longer limit takes more memory and time in training."))
    lengths = piece()
    with gr.Row(elem_classes=["ts-fields", "ts-wide-fields"]):
        limit = gr.Slider(
            1, 2, 2, step=1, label="Longest example (tokens)", interactive=True, visible=False,
            info="Longer ones do not take part in training. The plan step has this setting too.",
            buttons=[],
        )  # fmt: skip
    reports = piece()
    piece(section("Take it with you", "The same rows for other tools, and the recipe."))
    split = gr.Radio(
        [(name.capitalize(), name) for name in SPLITS], value="train", label="Rows",
        info="Which part the two files of rows hold.",
    )  # fmt: skip
    with gr.Row(elem_classes="ts-train-buttons"):
        for label, name, export in (
            ("Prompts and answers (JSONL)", "prompt_completion", export_prompt_completion),
            ("Chat messages (JSONL)", "messages", export_messages),
        ):
            download_button(shell, label, _exporter(shell, made, name, export), [split])
        download_button(shell, "Recipe (JSON)", lambda project: _recipe_file(made, project))
    command = piece()
    with gr.Row(elem_classes="ts-next"):
        onward = gr.Button("Next: plan", variant="primary")

    def show(project: Project) -> list[Any]:
        data = made.data(project)
        if data is None:
            return [gr.skip() for _ in outputs]
        reading = made.reading(project)
        return [
            str(_overview(data)),
            gr.skip() if reading is not None else new_text(),
            0,
            *view(reading, 0, with_borders=True),
            True,
            *length_views(project, reading),
            str(_reports(data)),
            str(_command(project)),
        ]

    def view(reading: Reading | None, at: int, *, with_borders: bool) -> list[Any]:
        shown = _example(reading, at, with_borders=with_borders)
        last = len(reading.items) - 1 if reading else 0
        return [shown, gr.Button(interactive=at > 0), gr.Button(interactive=at < last)]

    def length_views(project: Project, reading: Reading | None) -> list[Any]:
        found = reading.lengths if reading else None
        if found is None:
            return ["", gr.Slider(visible=False)]
        wished = int(project.choices.limits.get("max_length_tokens") or 0)
        most = max(found.max_tokens, found.min_tokens + 1)
        value = min(max(wished or found.context_tokens, found.min_tokens), most)
        return [
            str(length_view(found, value)),
            gr.Slider(visible=True, minimum=found.min_tokens, maximum=most, value=value),
        ]

    seen = [example, earlier, later]
    outputs = [overview, look, number, *seen, borders, lengths, limit, reports, command]

    def turn(project: Project, at: int, with_borders: bool, *, by: int) -> list[Any]:
        reading = made.reading(project)
        last = len(reading.items) - 1 if reading else 0
        at = min(max(0, int(at or 0) + by), max(0, last))
        return [at, *view(reading, at, with_borders=with_borders)]

    def ask(project: Project) -> list[Any]:
        reading = made.read(project)
        return [0, *view(reading, 0, with_borders=True), *length_views(project, reading)]

    def set_limit(project: Project, most: float) -> str:
        reading = made.reading(project)
        if reading is None or reading.lengths is None:
            raise RunError("The lengths are not known yet", fix="Wait a moment")
        value = None if most >= reading.lengths.max_tokens else max(1, int(most))
        shell.server.projects.edit(project.id, lambda now: {
            "choices": with_setting(now.choices, "limits", "max_length_tokens", value)
        })  # fmt: skip
        return str(length_view(reading.lengths, int(most)))

    inputs = [number, borders]
    turned = [number, *seen]
    for trigger, by in ((earlier.click, -1), (later.click, 1), (borders.input, 0)):
        shell.on(trigger, _with(turn, by), inputs, turned)
    shell.on(look.change, ask, outputs=[number, *seen, lengths, limit], busy=example)
    shell.on(limit.input, set_limit, [limit], [lengths], trigger_mode="always_last")
    shell.on(onward.click, lambda project: "plan", outputs=[shell.step])
    return Page(outputs, show)


def _with(turn: Callable[..., list[Any]], by: int) -> Callable[..., list[Any]]:
    return lambda project, at, with_borders: turn(project, at, with_borders, by=by)


def _exporter(
    shell: Shell, made: PreparedData, name: str, export: _Export
) -> Callable[[Project, Split], tuple[str, str]]:
    def make(project: Project, split: Split) -> tuple[str, str]:
        data = made.data(project)
        if data is None or split not in SPLITS:
            raise DataError("Nothing is prepared", fix="Prepare first")
        examples = read_split(shell.server.home.place("dataset") / data.id, split)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "rows.jsonl"
            export(examples, data.template, path)
            return f"{split}.{name}.jsonl", path.read_text(encoding="utf-8")

    return make


def _recipe_file(made: PreparedData, project: Project) -> tuple[str, str]:
    recipe = made.recipe_of_data(project)
    if recipe is None:
        raise DataError("The recipe of the data is gone", fix="Prepare again")
    return RECIPE, recipe.to_json()


def _changed(desk: Desk, made: PreparedData, project: Project) -> object:
    data, before = made.data(project), made.recipe_of_data(project)
    if data is not None and data.upload_id != project.upload:
        what = "Another table was uploaded."
    elif before is not None:
        found = differences(before, desk.recipe(project), step_titles())
        words = "; ".join(found) or "small things"
        what = f"{words[0].upper()}{words[1:]}."
    else:
        what = "The data are gone."
    return callout(
        "warn", "Changed since you prepared", what,
        fix="Prepare again, and the later steps will follow. Nothing that was made is lost.",
    )  # fmt: skip


def _can_go_back(made: PreparedData, project: Project) -> bool:
    data = made.data(project)
    is_same_table = data is not None and data.upload_id == project.upload
    return is_same_table and made.recipe_of_data(project) is not None


def _overview(data: Dataset) -> object:
    sizes = [(name, data.splits[name].rows) for name in SPLITS if name in data.splits]
    facts = [("Rows", count(sum(rows for _, rows in sizes)))]
    facts += [(_PURPOSES[name], count(rows)) for name, rows in sizes]
    if data.labels:
        facts.append(("Labels", count(len(data.labels))))
    good = callout("good", "Your examples are ready", "Look at them below, or go on.")
    return good + tiles(facts)


def _example(reading: Reading | None, at: int, *, with_borders: bool) -> str:
    if reading is None:
        return str(empty("Reading your examples…", "The base model's own reader is being opened."))
    if reading.error is not None:
        return str(failure(reading.error))
    if not reading.items:
        return str(empty("No example to show"))
    return str(tokens(reading.items[at], with_borders=with_borders))


def _reports(data: Dataset) -> object:
    notes = join(callout("warn", warning) for warning in data.warnings)
    told = report_table(data, step_titles())
    name = f"Warnings ({len(data.warnings)})"
    return join((
        details("What each step did", told), details(name, notes) if data.warnings else "",
    ))  # fmt: skip


def _command(project: Project) -> object:
    line = prepare_command(project.upload, Path(RECIPE), project.base)
    return details(
        "The same on the command line", code(line, label="the command that prepares the same")
    )
