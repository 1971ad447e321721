"""The try box: base and tuned model answer one text, side by side, as they write."""

import functools
import time
from collections.abc import Iterator, Mapping
from typing import Any

import gradio as gr
from markupsafe import Markup

from studio.pages.compare_subject import read_subject, sample_examples
from studio.pages.page import Page, Shell, piece
from studio.projects import Project
from studio.trying import Tries, tried_dataset, tried_example, try_arguments
from studio.web.charts import Bar, bars
from studio.web.html import callout, details, join, section, visible
from studio.web.words import count, duration, percent
from templates.errors import RunError
from templates.example import Example
from templates.template import Template

_MOST_SLOTS, _MOST_EXAMPLES, _MOST_LABELS = 8, 3, 5
_MOST_CHARACTERS = 20_000
_REDRAW_SECONDS = 0.15
_ARMS: Mapping[str, tuple[str, str]] = {
    "base": ("Base", "with the task described"), "tuned": ("Tuned", "as it was trained"),
}  # fmt: skip


def build(shell: Shell) -> Page:
    """Build this part of the step.

    Args:
        shell: what the wizard gives.

    Returns:
        The part; hidden where there is no finished run.
    """
    tries = Tries(shell.server.engine)
    with gr.Column(visible=False) as everything:
        piece(section(
            "Try it",
            "Write a text, or take one of the test rows. The base and the tuned model answer it "
            "one after the other.",
        ))  # fmt: skip
        with gr.Row(elem_classes="ts-examples"):
            examples = [gr.Button("", size="sm", visible=False) for _ in range(_MOST_EXAMPLES)]
        boxes = [
            gr.Textbox(visible=False, lines=2, max_lines=12, max_length=_MOST_CHARACTERS)
            for _ in range(_MOST_SLOTS)
        ]
        with gr.Row(elem_classes="ts-downloads"):
            stop = gr.Button("Stop", visible=False, elem_classes="ts-small-button")
            ask = gr.Button("Answer", elem_classes="ts-small-button")
        status = piece()
        with gr.Row():
            answers = {arm: piece() for arm in _ARMS}
    shown = [ask, stop, status, *answers.values()]

    def answer(project: Project, *texts: str) -> Iterator[list[Any]]:
        template = tried_dataset(shell.server.home, project.run).template
        given = dict(zip(slots_of(template), texts, strict=False))
        example = tried_example(template, given)
        arguments = try_arguments(shell.server.home, project.run, example)
        said = dict.fromkeys(_ARMS, "")
        with tries.answer(project.id, arguments) as stream:
            try:
                yield [
                    gr.Button(interactive=False), gr.Button(visible=True, interactive=True),
                    str(callout(
                        "busy", "Loading the models", "The first time takes a few seconds."
                    )),
                    "", "",
                ]  # fmt: skip
                drawn_at = 0.0
                for part in stream:
                    said[part["arm"]] += part["text"]
                    if time.monotonic() - drawn_at > _REDRAW_SECONDS:
                        drawn_at = time.monotonic()
                        yield [gr.skip(), gr.skip(), "", *_written(said, part["arm"])]
                result = stream.result
                if result is None:
                    yield [*_at_rest(), str(callout("plain", "Stopped")), *_written(said, "")]
                else:
                    yield [*_at_rest(), "", *(str(_answered(arm, result[arm])) for arm in _ARMS)]
            except Exception:
                yield [*_at_rest(), "", "", ""]
                raise

    def stopped(project: Project) -> Any:
        tries.stop(project.id)
        return gr.Button(interactive=False)

    def fill(number: int, project: Project) -> list[str]:
        dataset = tried_dataset(shell.server.home, project.run)
        found = sample_examples(shell.server.home, dataset, _MOST_EXAMPLES)
        if number >= len(found):
            raise RunError("This example is gone", fix="Reload the page")
        texts = _texts(found[number], dataset.template)
        return [texts.get(slot, "") for slot in slots_of(dataset.template)] + [""] * (
            _MOST_SLOTS - len(slots_of(dataset.template))
        )

    shell.on(ask.click, answer, boxes, shown)
    shell.on(stop.click, stopped, outputs=[stop])
    for number, button in enumerate(examples):
        shell.on(button.click, functools.partial(fill, number), outputs=boxes)

    def show(project: Project) -> list[Any]:
        subject = read_subject(shell.server, project)
        if subject.dataset is None or subject.run is None:
            return [gr.Column(visible=False), *(gr.skip() for _ in outputs[1:])]
        template = subject.dataset.template
        found = sample_examples(shell.server.home, subject.dataset, _MOST_EXAMPLES)
        is_busy = tries.is_busy(project.id)
        return [
            gr.Column(visible=True),
            *(_example_button(found[number], template) if number < len(found)
              else gr.Button(visible=False) for number in range(_MOST_EXAMPLES)),
            *_boxes(template),
            gr.Button(interactive=not is_busy), gr.Button(visible=is_busy, interactive=True),
            "", "", "",
        ]  # fmt: skip

    outputs = [everything, *examples, *boxes, *shown]
    return Page(outputs, show)


def slots_of(template: Template) -> tuple[str, ...]:
    """Name the texts that the box asks for.

    Args:
        template: of the task.

    Returns:
        Slots; for chat, what the user says.
    """
    return ("user",) if template.task == "chat" else template.slots[:_MOST_SLOTS]


def _boxes(template: Template) -> list[gr.Textbox]:
    slots = slots_of(template)
    made = []
    for number in range(_MOST_SLOTS):
        if number >= len(slots):
            made.append(gr.Textbox(value="", visible=False))
            continue
        slot = slots[number]
        if template.task == "chat":
            label, info = "What the user says", "The conversation begins with this."
        else:
            label, info = slot.replace("_", " ").capitalize(), "As it would stand in your table."
            if slot in template.optional_slots:
                info = "May be left empty."
        made.append(gr.Textbox(value="", visible=True, label=label, info=info))
    return made


def _example_button(example: Example, template: Template) -> gr.Button:
    text = next((text for text in _texts(example, template).values() if text.strip()), "–")
    return gr.Button(visible(" ".join(text.split()), 60), visible=True)


def _texts(example: Example, template: Template) -> dict[str, str]:
    if template.task == "chat":
        said = [turn.content for turn in example.turns if turn.role == "user"]
        return {"user": said[-1]} if said else {}
    return dict(example.fields)


def _at_rest() -> list[gr.Button]:
    return [gr.Button(interactive=True), gr.Button(visible=False)]


def _written(said: Mapping[str, str], writing: str) -> list[str]:
    """Show how far both are."""
    return [
        str(_box(arm, _words(said[arm], is_writing=arm == writing), "")) for arm in _ARMS
    ]  # fmt: skip


def _answered(arm: str, answer: Mapping[str, Any]) -> Markup:
    facts = [
        duration(answer["seconds"]), f"{count(answer['prompt_tokens'], 'token')} read",
        f"{count(answer['answer_tokens'], 'token')} written",
    ]  # fmt: skip
    parts = [_words(answer["answer"], is_writing=False)]
    if answer["labels"]:
        found = answer["labels"][:_MOST_LABELS]
        parts.append(bars(
            [Bar(visible(label["label"], 40), label["probability"], percent(label["probability"]))
             for label in found],
            label=f"{_ARMS[arm][0]}: how likely each label is", most=1.0,
        ))  # fmt: skip
    if answer["was_cut"]:
        parts.append(callout("warn", "The text was cut at its start to fit the context"))
    if answer.get("prompt"):
        exact = Markup('<div class="ts-tokens">{}</div>').format(visible(answer["prompt"]))
        parts.append(details("The exact prompt", exact))
    return _box(arm, join(parts), " · ".join(facts))


def _words(text: str, *, is_writing: bool) -> Markup:
    if not text and not is_writing:
        return Markup('<p class="ts-soft">(nothing)</p>')
    cursor = Markup('<span class="ts-cursor" aria-hidden="true"></span>') if is_writing else ""
    return Markup('<div class="ts-pre ts-said" dir="auto">{}{}</div>').format(
        visible(text, _MOST_CHARACTERS), cursor
    )


def _box(arm: str, content: Markup, foot: str) -> Markup:
    name, more = _ARMS[arm]
    return Markup(
        '<section class="ts-card ts-tried-{}" aria-label="{}"><h4>{} <span class="ts-soft">{}'
        '</span></h4><div aria-live="polite">{}</div><p class="ts-soft">{}</p></section>'
    ).format(arm, name, name, more, content, foot)
