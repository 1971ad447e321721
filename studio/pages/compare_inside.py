"""What tuning changed inside the model, looked at when somebody asks."""

from collections.abc import Iterator
from typing import Any

import gradio as gr

from studio.commands import inside_command
from studio.pages.compare_subject import read_subject
from studio.pages.page import Page, Shell, piece
from studio.projects import Project
from studio.trying import Tries, run_arguments
from studio.web.html import callout, code, empty, join, section
from studio.web.inside_view import layers_view, prompt_view
from studio.web.words import count

_REDRAW_LAYERS = 8


def build(shell: Shell) -> Page:
    """Build this part of the step.

    Args:
        shell: what the wizard gives.

    Returns:
        The part; hidden where there is no finished run.
    """
    looks = Tries(shell.server.engine, "inside", "Another look")
    with gr.Column(visible=False) as everything:
        piece(section(
            "See inside",
            "Which layers moved, in how many directions, and which words a soft prompt resembles.",
        ))  # fmt: skip
        with gr.Row(elem_classes="ts-downloads"):
            stop = gr.Button("Stop", visible=False, elem_classes="ts-small-button")
            look = gr.Button("Look inside", elem_classes="ts-small-button")
        found = piece()
    shown = [look, stop, found]

    def begin(project: Project) -> Iterator[list[Any]]:
        arguments = run_arguments(shell.server.home, project.run)
        with looks.answer(project.id, arguments) as answer:
            try:
                yield [
                    gr.Button(interactive=False), gr.Button(visible=True, interactive=True),
                    str(callout("busy", "Loading the models")),
                ]  # fmt: skip
                for number, _ in enumerate(answer, 1):
                    if number % _REDRAW_LAYERS == 0:
                        seen = callout("busy", "Looking inside", f"{count(number, 'layer')} seen")
                        yield [gr.skip(), gr.skip(), str(seen)]
                yield [*_at_rest(), str(_view(project.run, answer.result))]
            except Exception:
                yield [*_at_rest(), ""]
                raise

    def stopped(project: Project) -> Any:
        looks.stop(project.id)
        return gr.Button(interactive=False)

    shell.on(look.click, begin, outputs=shown)
    shell.on(stop.click, stopped, outputs=[stop])

    def show(project: Project) -> list[Any]:
        if read_subject(shell.server, project).run is None:
            return [gr.Column(visible=False), *(gr.skip() for _ in shown)]
        is_busy = looks.is_busy(project.id)
        return [
            gr.Column(visible=True),
            gr.Button(interactive=not is_busy), gr.Button(visible=is_busy, interactive=True), "",
        ]  # fmt: skip

    return Page([everything, *shown], show)


def _view(run_id: str, found: dict[str, Any] | None) -> object:
    if found is None:
        return callout("plain", "Stopped")
    if not found["layers"] and not found["prompt"]:
        return empty(
            "Nothing to show",
            "What this method learned is no matrix and no vector that resembles words. Prefixes "
            "are not looked at.",
        )
    command = code(inside_command(run_id), label="the same as a file, from a terminal")
    return join((layers_view(found["layers"]), prompt_view(found["prompt"]), command))


def _at_rest() -> list[gr.Button]:
    return [gr.Button(interactive=True), gr.Button(visible=False)]
