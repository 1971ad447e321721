"""The second part of the plan step: which method, and all of them side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr
from markupsafe import Markup

from engine.planning.advice import MethodRow
from studio.pages.page import Page, hidden_field, piece
from studio.pages.plan_desk import Desk, Rows
from studio.projects import Project
from studio.web.choices import Choice, choice_cards, send_button
from studio.web.html import badge, callout, empty, join, section, table
from studio.web.words import percent, size, span
from templates.errors import StudioError

METHOD = "plan-method"
REMEDY = "plan-remedy"
ASK_AGAIN = "plan-ask-again"
_SECONDS = "The first time this takes about ten seconds."


def build_methods(desk: Desk) -> tuple[Page, gr.Textbox, gr.Textbox]:
    """Build the part.

    Args:
        desk: knows what each method would take.

    Returns:
        The part, the hidden field that hears of a method, and the one that hears of a remedy.
    """
    piece(section(
        "Method",
        "How the base learns. The figures are estimated on this machine, for your data and each "
        "method's usual settings.",
    ))  # fmt: skip
    chosen = hidden_field(METHOD)
    remedy = hidden_field(REMEDY)
    cards, compared = piece(), piece()

    def show(project: Project) -> list[Any]:
        methods = desk.described.get("methods", {})
        rows = desk.rows(project)
        is_ready = desk.is_ready(project)
        return [
            str(method_cards(
                methods, rows, project.choices.method, is_ready=is_ready, trouble=desk.trouble
            )),
            str(method_table(methods, rows.rows) if rows else ""),
        ]  # fmt: skip

    return Page([cards, compared], show), chosen, remedy


def method_cards(
    methods: Mapping[str, Any],
    rows: Rows | None,
    chosen: str,
    *,
    is_ready: bool,
    trouble: StudioError | None = None,
) -> Markup:
    """Show the methods to choose from.

    Args:
        methods: by name, as the engine describes them; empty while it has not.
        rows: what each would take; None while that is not known.
        chosen: the name of the one that is taken.
        is_ready: whether figures will come.
        trouble: why the engine could not be asked.

    Returns:
        One card a method, the recommended one first.
    """
    notes = []
    if trouble is not None:
        bad = callout("bad", trouble.what, trouble.where, fix=trouble.fix)
        notes.append(bad + send_button("Try again", "again", target=ASK_AGAIN))
    if not methods and notes:
        return join(notes)
    if not methods:
        return empty("Looking at your data and this machine …", _SECONDS)
    if rows is not None and rows.error is not None:
        notes.append(callout("bad", rows.error.what, rows.error.where, fix=rows.error.fix))
    elif not is_ready:
        notes.append(callout("plain", "Figures come when the base model is on this machine"))
    elif rows is None and trouble is None:
        notes.append(callout("busy", "Working out what each method would take …", _SECONDS))
    known = {row.name: row for row in rows.rows} if rows else {}
    names = [*known, *(name for name in methods if name not in known)]
    choices = [_choice(name, methods[name], known.get(name)) for name in names if name in methods]
    cards = choice_cards(choices, chosen, target=METHOD, label="Tuning method")
    reason = next(
        (row.recommended_because for row in known.values() if row.recommended_because), ""
    )
    if reason:
        title = next(row.title for row in known.values() if row.recommended_because)
        notes.append(callout("good", f"{title} is recommended", reason))
    return join((*notes, cards))


def method_table(methods: Mapping[str, Any], rows: Sequence[MethodRow]) -> Markup:
    """Show all methods side by side.

    Args:
        methods: by name, as the engine describes them.
        rows: what each would take.

    Returns:
        A table; where a method does not fit, with what would make it fit.
    """
    if not rows:
        return Markup("")
    headings = (
        "method", "learns", "peak memory", "time", "result", "more work for an answer", "here",
        "runs with",
    )  # fmt: skip
    cells = [
        (
            row.title,
            *(_figures(row) if row.peak_memory_bytes else ("–", "–", "–", "–")),
            row.overhead_words or "–",
            _fit(row),
            ", ".join(methods.get(row.name, {}).get("servable_by", ())),
        )
        for row in rows
    ]
    marked = [place for place, row in enumerate(rows) if row.recommended_because]
    return table(
        headings, cells, caption="All methods side by side", numeric=(1, 2, 3, 4), marked=marked,
        show_caption=True,
    )  # fmt: skip


def _choice(name: str, method: Mapping[str, Any], row: MethodRow | None) -> Choice:
    badges, facts = [], []
    if row is not None:
        if row.recommended_because:
            badges.append(badge("recommended", "good"))
        if row.fits:
            badges.append(badge("fits", "plain"))
        else:
            badges.append(badge("does not fit", "bad"))
        if row.peak_memory_bytes:
            learns, memory, seconds, _ = _figures(row)
            facts = [("of it learns", learns), ("memory", memory), ("", seconds)]
    return Choice(name, method["title"], method["when_to_choose"], badges, facts)


def _figures(row: MethodRow) -> tuple[str, str, str, str]:
    return (
        percent(row.trainable_ratio),
        size(row.peak_memory_bytes),
        span(row.low_seconds, row.high_seconds),
        size(row.adapter_bytes),
    )


def _fit(row: MethodRow) -> Markup:
    if row.fits:
        return badge("fits", "good")
    parts = [badge("does not fit", "bad"), *(Markup("<p>{}</p>").format(b) for b in row.blockers)]
    parts += [
        Markup("<p>{} {}</p>").format(
            remedy.words,
            send_button(
                "Apply", f"{row.name} {place}", target=REMEDY,
                label=f"Choose {row.title} and apply: {remedy.words}",
            ),
        )
        for place, remedy in enumerate(row.remedies)
    ]  # fmt: skip
    return join(parts)
