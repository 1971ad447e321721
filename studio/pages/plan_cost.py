"""The last part of the plan step: what the chosen plan takes, and how it leaves the page."""

from typing import Any

import gradio as gr
from markupsafe import Markup

from engine.plan import TrainPlan
from engine.planning.advice import Remedy
from engine.planning.estimate import CostEstimate, MemoryParts
from studio.commands import plan_command
from studio.home import Home
from studio.journey import plan_of
from studio.pages.page import Page, piece
from studio.pages.plan_bases import large
from studio.pages.plan_desk import Answer, Desk
from studio.pages.plan_methods import REMEDY
from studio.planning import plan_request
from studio.projects import Project
from studio.web.charts import Bar, stacked_bar
from studio.web.choices import send_button
from studio.web.html import callout, code, empty, join, section, tiles
from studio.web.words import count, figure, percent, size, span

_HOUR_SECONDS = 3600


def build_cost(home: Home, desk: Desk) -> tuple[Page, gr.UploadButton, gr.HTML]:
    """Build the part.

    Args:
        home: the folder behind all steps.
        desk: knows the answers.

    Returns:
        The part, the button that takes a plan file, and where the estimate stands.
    """
    piece(section(
        "What it takes", "Estimated before anything is loaded; training tells the truth later."
    ))  # fmt: skip
    shown = piece()
    piece(section("Plan file", "To keep, to share, and to run without this page."))
    command = piece()
    with gr.Row():
        download = gr.DownloadButton(
            "Download the plan", interactive=False, elem_classes="ts-small-button"
        )
        upload = gr.UploadButton(
            "Use a plan file", file_types=[".yaml", ".yml", ".json"], elem_classes="ts-small-button"
        )

    def show(project: Project) -> list[Any]:
        answer = desk.answer(project)
        line = plan_command(plan_request(home, project), desk.described)
        will_come = desk.is_ready(project) and desk.trouble is None
        view = cost_view(answer, project.choices.hourly_price, is_ready=will_come)
        path = desk.file(project)
        return [
            str(join((view, _kept_words(plan_of(home, project), answer, project)))),
            str(code(line, label="the same plan from a terminal")),
            gr.DownloadButton(value=path, interactive=path is not None),
        ]

    return Page([shown, command, download], show), upload, shown


def cost_view(answer: Answer | None, hourly_price: float, *, is_ready: bool) -> Markup:
    """Show what a plan takes, or why there is none.

    Args:
        answer: of the engine; None where it was not asked.
        hourly_price: of the machine; 0: unknown.
        is_ready: whether an answer will come.

    Returns:
        Tiles, the memory bar, and what to know before starting.
    """
    if answer is None and is_ready:
        return empty("Working out what it takes …", "This takes a few seconds.")
    if answer is None:
        return empty("No estimate yet", "It comes when the base model is on this machine.")
    if answer.error is not None:
        error = answer.error
        return callout("bad", error.what, error.where, fix=error.fix)
    assert answer.plan is not None and answer.estimate is not None
    cost = answer.estimate
    parts = [
        _blocked(cost, answer.remedies),
        *(callout("warn", sentence) for sentence in cost.warnings),
        tiles(_facts(answer.plan, cost, hourly_price)),
        memory_bar(cost.memory, cost.memory_available_bytes),
    ]
    return join(parts)


def memory_bar(memory: MemoryParts, available_bytes: int) -> Markup:
    """Draw where the memory goes, against what is free.

    Args:
        memory: of a training step.
        available_bytes: what the machine has free.

    Returns:
        A bar.
    """
    parts = (
        ("The base's frozen weights", memory.weights_bytes),
        ("What learns, and its gradients", memory.learned_bytes + memory.gradients_bytes),
        ("The optimizer's notes", memory.optimizer_bytes),
        ("Working memory of a step", memory.activations_bytes),
        ("Scores over the vocabulary", memory.logits_bytes),
        *([("Kept from frozen blocks", memory.stem_bytes)] if memory.stem_bytes else []),
        ("Program and libraries", memory.runtime_bytes),
    )
    needed = size(memory.total_bytes)
    return stacked_bar(
        [Bar(name, part, size(part)) for name, part in parts],
        whole=available_bytes,
        whole_words=f"Needs {needed} of {size(available_bytes)} that are free now",
        label=f"Memory: {needed} needed, {size(available_bytes)} free",
    )


def _blocked(cost: CostEstimate, remedies: tuple[Remedy, ...]) -> Markup:
    if cost.fits:
        return Markup("")
    fix = "What would make it fit:" if remedies else "Choose another method or a smaller base."
    message = callout("bad", "This plan does not fit", " ".join(cost.blockers), fix=fix)
    buttons = [
        Markup("<li>{} <span>{}</span></li>").format(
            send_button("Apply", f"- {place}", target=REMEDY, label=f"Apply: {remedy.words}"),
            remedy.words,
        )
        for place, remedy in enumerate(remedies)
    ]
    listed = Markup('<ul class="ts-remedies">{}</ul>').format(join(buttons)) if buttons else ""
    return join((message, listed))


def _facts(
    plan: TrainPlan, cost: CostEstimate, hourly_price: float
) -> list[tuple[str, object, str]]:
    epochs = count(plan.schedule.epochs, "pass", "passes") if (
        plan.schedule.epochs == int(plan.schedule.epochs)
    ) else f"{figure(plan.schedule.epochs)} passes"  # fmt: skip
    facts: list[tuple[str, object, str]] = [
        ("Peak memory", size(cost.peak_memory_bytes), f"{size(cost.memory_available_bytes)} free"),
        ("Time", span(cost.low_seconds, cost.high_seconds), "idle to busy machine"),
        ("Learns", percent(cost.trainable_ratio),
         f"{large(cost.num_trainable)} of {large(cost.num_parameters)}"),
        ("Result", size(cost.adapter_bytes), _served(cost)),
        ("Steps", count(cost.num_steps), f"{epochs} over {count(cost.num_examples, 'example')}"),
    ]  # fmt: skip
    if cost.stem_saved_flops:
        kept = size(cost.memory.stem_bytes or cost.stem_disk_bytes)
        place = "in memory" if cost.memory.stem_bytes else "on disk"
        saved = cost.stem_saved_flops / (cost.stem_saved_flops + cost.flops)
        facts.append(("Work saved", percent(saved), f"{kept} kept {place} from frozen blocks"))
    if hourly_price:
        low, high = (
            f"{seconds / _HOUR_SECONDS * hourly_price:,.2f}"
            for seconds in (cost.low_seconds, cost.high_seconds)
        )
        facts.append(("Money", low if low == high else f"{low}–{high}", "in your currency"))
    return facts


def _served(cost: CostEstimate) -> str:
    """Say who can load the result without merging it."""
    served = ", ".join(cost.adapter_servers)
    return f"served unmerged by {served}" if served else "what the run saves"


def _kept_words(kept: TrainPlan | None, answer: Answer | None, project: Project) -> Markup:
    """Say whether what is seen is what will be trained."""
    if kept is None or answer is None or answer.plan is None:
        return Markup("")
    if kept == answer.plan:
        return callout("good", f"This is the plan you have made ({project.plan})")
    return callout(
        "warn", "You have changed something since you made the plan", fix="Press Next to take it"
    )
