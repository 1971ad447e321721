"""Step 2: from rows to examples: columns, wording, cleaning, three parts, and the result."""

from collections.abc import Iterator
from typing import Any

import gradio as gr

from studio.pages.page import Page, Shell, hidden_field, new_text, piece
from studio.pages.prepare_columns import build_columns
from studio.pages.prepare_data import PreparedData
from studio.pages.prepare_desk import Desk
from studio.pages.prepare_replay import build_replay
from studio.pages.prepare_result import GONE, PREPARED, build_job, build_result
from studio.pages.prepare_splits import build_checks, build_splits
from studio.pages.prepare_steps import build_steps
from studio.pages.prepare_wording import build_preview, build_wording, build_words
from studio.projects import Project
from studio.web.html import heading


def build(shell: Shell) -> Page:
    """Build the step.

    Args:
        shell: what the wizard gives.

    Returns:
        The step.
    """
    desk = Desk(shell.server)
    made = PreparedData(shell.server, desk)
    changed = hidden_field()  # a new text: the recipe is to be tried
    refill = hidden_field()  # a new text: everything is to be filled again
    with gr.Row(elem_classes="ts-heading-row"):
        piece(heading(
            "Prepare your examples",
            "Say what the columns mean. Everything else has a good default; look through it, and "
            "press Prepare.",
        ))  # fmt: skip
        build_replay(shell, desk, refill)
    columns = build_columns(shell, desk, changed, refill)
    wording = build_wording(shell, desk, changed, refill)
    preview = build_preview(shell, desk)
    words = build_words(shell, desk, changed)
    steps, options = build_steps(shell, desk, changed, refill)
    splits = build_splits(shell, desk, changed)
    checks = build_checks(shell, desk)
    checked = checks.outputs[-1]
    assert isinstance(checked, gr.HTML)
    # Made first and drawn last: the job says whether it is seen.
    with gr.Column(elem_id=PREPARED, elem_classes=[GONE], render=False) as result_view:
        result = build_result(shell, made)
    job = build_job(shell, desk, made, refill, result_view)
    result_view.render()
    forms = (columns, wording, preview, words, steps, options, splits, checks, job, result)
    outputs = [output for part in forms for output in part.outputs]

    def show(project: Project) -> list[Any]:
        shown = [value for part in forms for value in part.show(project)]
        needs_trial = desk.upload(project) is not None and desk.tried(project) is None
        return [new_text() if needs_trial else gr.skip(), *shown]

    def try_out(project: Project) -> Iterator[list[Any]]:
        """Show first what is quick; the counts follow."""
        waiting = [gr.skip() for part in later for _ in part.outputs]
        yield [*columns.show(project), *job.show(project), *waiting]
        desk.try_out(project)
        yield [
            *(gr.skip() for part in (columns, job) for _ in part.outputs),
            *(value for part in later for value in part.show(project)),
        ]

    later = (preview, words, steps, checks)
    tried = (columns, job, *later)
    shell.on(
        changed.change, try_out,
        outputs=[output for part in tried for output in part.outputs],
        busy=checked, trigger_mode="always_last",
    )  # fmt: skip
    shell.on(refill.change, show, outputs=[changed, *outputs])
    return Page([changed, *outputs], show)
