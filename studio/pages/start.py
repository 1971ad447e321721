"""The start screen: begin with a sample, a file or a Hub data set, or go on with a project."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from studio.pages.page import Page, Shell, piece
from studio.pages.start_hub import build_hub_card
from studio.pages.start_projects import ProjectList
from studio.pages.upload import FILE_TYPES, take_upload
from studio.projects import Project
from studio.web.html import badge, heading, join, section

_SAMPLES = Path(__file__).parents[2] / "data_prep" / "samples"
_NAME_CHARACTERS = 100


@dataclass(frozen=True)
class _Sample:
    """A table that ships with the studio."""

    file: str
    project: str
    title: str
    text: str
    example: tuple[str, str]
    facts: tuple[str, ...]
    button: str


_TICKETS = _Sample(
    file="tickets.csv",
    project="Support tickets",
    title="Which team should answer?",
    text="Sort the support tickets of a shop into seven teams. Begin here: the quickest way to see "
    "what tuning does.",
    example=("I was charged twice for the same kettle.", "billing"),
    facts=("710 tickets", "classification", "about 3 minutes on a laptop"),
    button="Start with support tickets",
)
_RESTAURANTS = _Sample(
    file="restaurants.jsonl",
    project="Restaurants",
    title="Facts become a sentence",
    text="Write one fluent sentence from a row of facts about a restaurant. For those who want a "
    "model that writes.",
    example=(
        "name: The Third Fig | price: cheap",
        "The Third Fig is a cheap restaurant.",
    ),
    facts=("400 rows", "table to text", "about 5 minutes on a laptop"),
    button="Start with restaurants",
)


def build(shell: Shell) -> Page:
    """Build the screen.

    Args:
        shell: what the wizard gives.

    Returns:
        The screen.
    """
    piece(heading(
        "Teach a small language model your own task",
        "Bring a table of examples. Six steps later you have a tuned model and an honest answer to "
        "the question whether it beats prompting.",
    ))  # fmt: skip
    projects = ProjectList(shell)
    piece(section("Try it with a sample", "Made up for the studio, and as messy as real tables."))
    with gr.Row(elem_classes="ts-cards"):
        for sample in (_TICKETS, _RESTAURANTS):
            _build_sample(shell, sample)
    piece(section("Bring your own table", "One example in each row. It stays on this machine."))
    with gr.Row(elem_classes="ts-cards"):
        with gr.Column(elem_classes="ts-card", min_width=300):
            piece(section("From a file", "CSV, TSV, Excel, JSON, JSON Lines, Parquet, text files."))
            file = gr.File(
                label="Drop a table here, or press to choose it", type="filepath",
                file_types=FILE_TYPES, elem_id="start-file", height=240,
            )  # fmt: skip
        with gr.Column(elem_classes="ts-card", min_width=300):
            build_hub_card(shell)

    def begin_file(path: str) -> list[Any]:
        project = shell.server.projects.new(Path(path).stem[:_NAME_CHARACTERS].strip() or "Table")
        take_upload(shell, project, path)
        return [project.id, "upload", None]

    file.upload(
        shell.toasts.guarded(begin_file), file, [shell.project, shell.step, file],
        api_visibility="private", show_progress="hidden",
    )  # fmt: skip

    def show(project: Project) -> list[Any]:
        return projects.show()

    return Page(projects.outputs, show)


def _build_sample(shell: Shell, sample: _Sample) -> None:
    given, wanted = sample.example
    facts = join((badge(fact) for fact in sample.facts), " ")
    with gr.Column(elem_classes="ts-card", min_width=300):
        piece(section(sample.title, sample.text) + Markup(
            '<p class="ts-becomes"><span>{}</span><span aria-label="becomes">→</span>'
            '<strong>{}</strong></p><p class="ts-start-facts">{}</p>'
        ).format(given, wanted, facts))  # fmt: skip
        button = gr.Button(sample.button, variant="primary" if sample is _TICKETS else "secondary")

    def begin() -> list[Any]:
        project = shell.server.projects.new(sample.project)
        path = _SAMPLES / sample.file
        shell.server.readings.take(project.id, path, name=sample.file, keep=True)
        return [project.id, "upload"]

    button.click(
        shell.toasts.guarded(begin), None, [shell.project, shell.step],
        api_visibility="private", show_progress="hidden",
    )  # fmt: skip
