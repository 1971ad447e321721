"""The first part of the plan step: which base model learns, and its download."""

from collections.abc import Sequence
from typing import Any

import gradio as gr
from markupsafe import Markup

from engine.bases import BaseCard
from studio.jobs.progress import read_progress
from studio.pages.page import Page, Shell, hidden_field, new_text, piece
from studio.pages.plan_desk import Desk
from studio.projects import Project
from studio.web.choices import Choice, choice_cards, sent
from studio.web.html import badge, callout, details, empty, join, section, visible
from studio.web.job_view import AT_WORK, job_view
from studio.web.toasts import told
from studio.web.words import count, size
from templates.errors import StudioError

_TARGET = "plan-base"
_MOST_CHARACTERS = 120
_LARGE = ((1e9, "billion"), (1e6, "million"), (1e3, "thousand"))
_HERE = ("ships with the studio", "on this machine", "local folder")


def build_bases(shell: Shell, desk: Desk, refresh: gr.Textbox) -> Page:
    """Build the part.

    Args:
        shell: what the wizard gives.
        desk: knows the bases.
        refresh: gets a new text when the parts behind must be filled again.

    Returns:
        The part.
    """
    piece(section(
        "Base model",
        "The model that learns from your examples. A larger one knows more, and takes more memory "
        "and time.",
    ))  # fmt: skip
    chosen = hidden_field(_TARGET)
    listed = piece()
    with gr.Row(elem_classes="ts-search"):
        query = gr.Textbox(
            label="Search the Hugging Face Hub", info="A part of the model's name, such as smollm.",
            max_lines=1, max_length=200,
        )  # fmt: skip
        search = gr.Button("Search the Hub", elem_classes="ts-small-button")
    searched = piece()
    with gr.Column(visible=False, elem_classes="ts-card") as missing:
        wanted = piece()
        token = gr.Textbox(
            label="Hub token", type="password", max_length=500, visible=False,
            info="Only for models that ask you to accept a licence first. It stays in memory until "
            "the download begins, and is never written down.",
        )  # fmt: skip
        with gr.Row():
            download = gr.Button("Download", variant="primary", elem_classes="ts-small-button")
            stop = gr.Button("Stop the download", visible=False, elem_classes="ts-small-button")
    timer = gr.Timer(1.5, active=False)
    state = [missing, wanted, token, download, stop, timer]

    def show_state(project: Project) -> list[Any]:
        card = desk.card(project)
        job = None if card.is_downloaded else desk.fetch_job(project)
        progress = read_progress(shell.server.queue, job) if job else None
        if progress is not None and progress.state == "finished":  # perhaps since the card was read
            desk.look_again()
            card = desk.card(project)
        works = progress is not None and progress.state in AT_WORK
        is_over = progress is not None and not works
        views = [] if works else [missing_base(card)]
        if job is not None and progress is not None:
            views.append(job_view(job, progress, title=f"Downloading {card.title}"))
        can_begin = not works and not card.problem
        return [
            gr.Column(visible=not card.is_downloaded),
            str(join(views)),
            gr.Textbox("", visible=can_begin and card.is_gated is not False),
            gr.Button("Try again" if is_over else "Download", visible=can_begin),
            gr.Button(visible=works),
            gr.Timer(active=works),
        ]

    def show_list(project: Project) -> str:
        return str(base_list(desk.cards(project), project.base))

    def choose(project: Project, text: str) -> list[Any]:
        return [*show_state(desk.choose(project, sent(text))), new_text()]

    def look(project: Project) -> list[Any]:
        state_now = show_state(project)
        card = desk.card(project)
        if not card.is_downloaded:
            return [gr.skip(), *state_now, gr.skip()]
        told(f"{card.title} is on this machine now.")
        project = desk.choose(project, card.reference)  # from now on the commit that came
        return [show_list(project), *show_state(project), new_text()]

    def begin(project: Project, secret: str) -> list[Any]:
        desk.fetch(project, secret)
        return show_state(project)

    def end(project: Project) -> list[Any]:
        job = desk.fetch_job(project)
        if job is not None:
            shell.server.queue.stop(job)
        return show_state(project)

    def find(project: Project, words: str) -> list[Any]:
        if not words.strip():
            return [gr.skip(), str(callout("plain", "Type a part of a model's name first."))]
        try:
            number = desk.search(words)
        except StudioError as error:
            return [gr.skip(), str(callout("warn", error.what, fix=error.fix))]
        if not number:
            nothing = empty("Nothing was found", "Try fewer letters of the name.")
            return [gr.skip(), str(nothing)]
        return [show_list(project), str(callout("good", f"{count(number, 'model')} found."))]

    shell.on(chosen.change, choose, [chosen], [*state, refresh], trigger_mode="always_last")
    shell.on(download.click, begin, [token], state)
    shell.on(stop.click, end, outputs=state)
    shell.on(timer.tick, look, outputs=[listed, *state, refresh])
    for trigger in (search.click, query.submit):
        shell.on(trigger, find, [query], [listed, searched], busy=listed)
    return Page([listed, *state], lambda project: [show_list(project), *show_state(project)])


def base_list(cards: Sequence[BaseCard], chosen: str) -> Markup:
    """Show the bases to choose from.

    Args:
        cards: all of them.
        chosen: the reference of the one that is taken.

    Returns:
        What is on this machine; the others where they are asked for, or one of them is taken.
    """
    groups = (
        ("On this machine", [card for card in cards if card.source in _HERE], True),
        ("Found on the Hub", [card for card in cards if card.source == "found on the Hub"], True),
        ("Recommended to download", [c for c in cards if c.source == "recommended"], False),
    )
    parts = []
    for title, members, is_open in groups:
        if not members:
            continue
        usable = {card.reference for card in members if not card.problem}
        shown = [card for card in members if not card.problem or card.reference not in usable]
        listed = choice_cards(
            map(_choice, shown), chosen, target=_TARGET, label=title, in_rows=True
        )
        is_open = is_open or any(card.reference == chosen for card in shown)
        parts.append(details(f"{title} ({len(shown)})", listed, is_open=is_open))
    return join(parts)


def missing_base(card: BaseCard) -> Markup:
    """Say that a base has to be downloaded, and what that means.

    Args:
        card: of the base.

    Returns:
        A message.
    """
    if card.problem:
        return callout("bad", f"{card.title} cannot be used", card.problem)
    much = f" ({size(card.download_bytes)})" if card.download_bytes else ""
    text = "After that it is on this machine, and training needs no network."
    if card.is_gated:
        text = (
            "Its owner asks you to accept a licence on its page at huggingface.co first, and "
            f"to show a token of your account here. {text}"
        )
    return callout("plain", f"{card.title} has to be downloaded first{much}", text)


def _choice(card: BaseCard) -> Choice:
    facts = []
    if card.num_parameters:
        facts.append(("parameters", large(card.num_parameters)))
    if card.download_bytes:
        facts.append(("on disk" if card.is_downloaded else "download", size(card.download_bytes)))
    if card.context_tokens:
        facts.append(("tokens at once", count(card.context_tokens)))
    facts.append(("licence", _plain(card.licence) or "unknown"))
    badges = [badge("licence to accept", "warn")] if card.is_gated else []
    return Choice(
        card.reference, _plain(card.title), card.note, badges, facts, _plain(card.problem)
    )


def large(number: float) -> str:
    """Write a large number of things in words.

    Args:
        number: such as of parameters.

    Returns:
        Such as "4.3 million".
    """
    unit, name = next((found for found in _LARGE if number >= found[0]), (1.0, ""))
    text = f"{number / unit:.1f}".removesuffix(".0") if name else f"{number:.0f}"
    return f"{text} {name}".strip()


def _plain(text: str) -> str:
    return visible(text, _MOST_CHARACTERS)
