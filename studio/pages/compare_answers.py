"""Below the verdict: which labels are taken for which, and every answer side by side."""

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import gradio as gr
from markupsafe import Markup

from data_prep.answers import Filter, confusion, count_answers, read_answers, score_pairs
from engine.comparing.comparison import ArmName, Comparison, read_predictions
from studio.answer_files import as_csv, as_jsonl
from studio.pages.compare_rows import (
    PAGE_ROWS,
    confusion_view,
    differences_view,
    filter_choices,
    rows_view,
)
from studio.pages.compare_subject import Subject, read_subject
from studio.pages.compare_verdict import NAMES, deciding_title
from studio.pages.download import download_button
from studio.pages.page import Page, Shell, hidden_number, piece
from studio.projects import Project
from studio.records import PREDICTIONS
from studio.web.html import callout, section
from studio.web.words import count
from templates.errors import RunError, StudioError

_FILTERS: tuple[Filter, ...] = get_args(Filter)
_BINARY = ("accuracy", "exact_match", "macro_f1")


def build(shell: Shell) -> Page:
    """Build this part of the step.

    Args:
        shell: what the wizard gives.

    Returns:
        The part; hidden where nothing was compared.
    """
    with gr.Column(visible=False) as everything:
        chart_title = piece()
        with gr.Row(visible=False) as arm_row:
            arm = gr.Dropdown(
                list(NAMES), label="Answers of", info="Whose answers the table below counts."
            )
        chart = piece()
        piece(section(
            "Row by row",
            "What the models answered to the test rows. Words that your table does not have there "
            "are marked.",
        ))  # fmt: skip
        with gr.Row():
            rival = gr.Dropdown(
                list(NAMES),
                value=None,
                label="Beside the tuned model",
                info="Whose answers stand next to it.",
                min_width=240,
            )
            search = gr.Textbox(
                label="Search", info="In texts and answers; upper and lower case alike.",
                max_length=500,
                min_width=240, placeholder="such as refund",
            )  # fmt: skip
        chosen = gr.Radio(
            [(name, name) for name in _FILTERS], value="all", label="Which rows",
            info="Right and wrong as the deciding metric counts it.",
        )  # fmt: skip
        rows = piece()
        page = hidden_number()
        with gr.Row(elem_classes="ts-turn"):
            back = gr.Button("← Earlier rows", size="sm", elem_classes="ts-small-button")
            place = piece()
            forth = gr.Button("Later rows →", size="sm", elem_classes="ts-small-button")
        with gr.Row(elem_classes="ts-downloads"):
            for form in ("csv", "jsonl"):
                make = functools.partial(_file, shell, form)
                download_button(shell, f"Download all answers ({form.upper()})", make)
    listing = [chosen, rows, place, back, forth, page]

    def listed(project: Project, rival: str, chosen: str, search: str, page: int) -> list[Any]:
        return _listing(_shown(shell, project), rival, chosen, search, page)

    def filtered(project: Project, rival: str | None, chosen: str, search: str) -> list[Any]:
        if rival is None:  # the page is not filled yet
            return [gr.skip() for _ in listing]
        return listed(project, rival, chosen, search, 0)

    def turned(step: int) -> Any:
        def turn(project: Project, rival: str, chosen: str, search: str, page: int) -> list[Any]:
            return listed(project, rival, chosen, search, max(0, int(page or 0) + step))

        return turn

    def counted(project: Project, arm: str) -> str:
        path, comparison = _shown(shell, project)
        return _chart(path, comparison, arm, "")

    def compared_with(project: Project, rival: str, chosen: str, search: str) -> list[Any]:
        path, comparison = _shown(shell, project)
        values = _listing((path, comparison), rival, chosen, search, 0)
        is_graded = not _has_matrix(comparison)
        return [*values, _chart(path, comparison, "", rival) if is_graded else gr.skip()]

    asked = [rival, chosen, search]
    shell.on(rival.input, compared_with, asked, [*listing, chart])
    shell.on(chosen.input, filtered, asked, listing)
    # Not `input`: that one missed text that was set at once instead of typed key by key.
    shell.on(search.change, filtered, asked, listing, trigger_mode="always_last")
    shell.on(back.click, turned(-1), [*asked, page], listing)
    shell.on(forth.click, turned(1), [*asked, page], listing)
    shell.on(arm.input, counted, [arm], [chart])
    outputs = [everything, chart_title, arm_row, arm, chart, rival, search, *listing]

    def show(project: Project) -> list[Any]:
        subject = read_subject(shell.server, project)
        hidden = [gr.Column(visible=False), *(gr.skip() for _ in outputs[1:])]
        if subject.shown is None or subject.comparison is None:
            return hidden
        comparison, path = subject.comparison, subject.shown.folder / PREDICTIONS
        known = [found.name for found in comparison.arms]
        beside = _usual_rival(comparison)
        others = [(NAMES[name], name) for name in known if name != "tuned"]
        try:
            values = _listing((path, comparison), beside, "all", "", 0)
            drawn = _chart(path, comparison, "tuned", beside)
        except StudioError as error:
            hidden[:2] = (
                gr.Column(visible=True),
                str(callout("bad", error.what, error.where, fix=error.fix)),
            )
            return hidden
        has_matrix = _has_matrix(comparison)
        return [
            gr.Column(visible=True), str(_chart_title(comparison)), gr.Row(visible=has_matrix),
            gr.Dropdown([(NAMES[name], name) for name in known], value="tuned"), drawn,
            gr.Dropdown(others, value=beside), "", *values,
        ]  # fmt: skip

    return Page(outputs, show)


def _shown(shell: Shell, project: Project) -> tuple[Path, Comparison]:
    subject: Subject = read_subject(shell.server, project)
    if subject.shown is None or subject.comparison is None:
        raise RunError("Nothing has been compared yet", fix="Compare first")
    return subject.shown.folder / PREDICTIONS, subject.comparison


def _usual_rival(comparison: Comparison) -> ArmName:
    known = [arm.name for arm in comparison.arms]
    return "few_shot" if "few_shot" in known else comparison.primary.reference


def _has_matrix(comparison: Comparison) -> bool:
    return comparison.task in ("classification", "pair_classification")


def _chart_title(comparison: Comparison) -> Markup:
    if _has_matrix(comparison):
        return section(
            "Where it is right, and what it takes for what",
            "Each line is what your table says, each column what was answered; outlined cells are "
            "right. A dark cell beside them is a pair of labels that gets mixed up.",
        )
    return section(
        "How single rows differ",
        f"{deciding_title(comparison)} of the tuned model minus that of the other, row by row.",
    )


def _chart(path: Path, comparison: Comparison, arm: str, rival: str) -> str:
    if _has_matrix(comparison):
        name = _arm(comparison, arm)
        return str(confusion_view(confusion(path, name), NAMES[name]))
    other = _arm(comparison, rival)
    pairs = score_pairs(path, ("tuned", other))
    return str(differences_view(pairs, NAMES[other], deciding_title(comparison)))


def _arm(comparison: Comparison, name: str) -> ArmName:
    for arm in comparison.arms:
        if arm.name == name:
            return arm.name
    raise RunError(
        "This comparison has no such answers", where=name[:40], fix="Choose one of the list"
    )


def _listing(
    shown: tuple[Path, Comparison], rival: str, chosen: str, search: str, page: int
) -> list[Any]:
    path, comparison = shown
    arms = ("tuned", _arm(comparison, rival))
    name: Filter = next((known for known in _FILTERS if known == chosen), "all")
    search = search.strip()
    counts = count_answers(path, arms)
    found = read_answers(
        path, filter=name, search=search, arms=arms, offset=page * PAGE_ROWS, limit=PAGE_ROWS
    )
    last = page * PAGE_ROWS + len(found.rows)
    words = f"{page * PAGE_ROWS + 1:,}–{last:,} of {count(found.total, 'row')}"
    choices = filter_choices(counts, NAMES[arms[1]], is_graded=comparison.metric not in _BINARY)
    return [
        gr.Radio(choices, value=name), str(rows_view(found.rows, arms[1])),
        str(Markup('<p class="ts-soft" role="status">{}</p>').format(words)) if found.rows else "",
        gr.Button(interactive=page > 0), gr.Button(interactive=last < found.total), page,
    ]  # fmt: skip


def _file(shell: Shell, form: str, project: Project) -> tuple[str, str]:
    path, _ = _shown(shell, project)
    records = _records(path)
    return f"answers.{form}", as_csv(records) if form == "csv" else as_jsonl(records)


def _records(path: Path) -> Iterator[dict[str, Any]]:
    """Give every row flat; all have the same columns, for a table needs that."""
    predictions = list(read_predictions(path))
    slots = list(dict.fromkeys(slot for found in predictions for slot in found.fields))
    for found in predictions:
        yield {
            "row": ", ".join(map(str, found.source_rows)),
            **{f"input: {slot}": found.fields.get(slot, "") for slot in slots},
            "expected": " | ".join(found.expected),
            **{f"answer: {arm}": text for arm, text in found.outputs.items()},
            **{f"score: {arm}": "" if score is None else round(score, 4)
               for arm, score in found.scores.items()},
        }  # fmt: skip
