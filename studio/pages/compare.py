"""Step 5: the verdict and what it rests on, and the tuned model to try."""

from contextlib import suppress
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from engine.comparing.comparison import Comparison
from studio.commands import compare_command, predict_command, try_command
from studio.jobs.requests import CompareRequest
from studio.pages import compare_answers, compare_inside, compare_predict, compare_try
from studio.pages.compare_subject import (
    Subject,
    compare_jobs,
    finished_runs,
    looks_at,
    read_subject,
)
from studio.pages.compare_try import slots_of
from studio.pages.compare_verdict import headline, verdict_view
from studio.pages.page import LOOK_SECONDS, Page, Shell, piece
from studio.projects import Project
from studio.records import planned, require_finished, run_id_of
from studio.runs.about import read_about
from studio.web.html import callout, code, details, empty, heading, join
from studio.web.job_view import job_view
from studio.web.toasts import told
from studio.web.words import count
from templates.dataset import Dataset
from templates.errors import RunError, StudioError

_TITLE = "Comparing"


def build(shell: Shell) -> Page:
    """Build the step.

    Args:
        shell: what the wizard gives.

    Returns:
        The step.
    """
    server = shell.server
    piece(heading(
        "Is it better than prompting?",
        "The tuned model answers rows that nobody trained on, and so does everything else you "
        "could use instead.",
    ))  # fmt: skip
    trouble = piece()
    run = gr.Dropdown(
        [], label="Run", info="Which finished run is compared, tried and published.", visible=False
    )
    before = piece()
    status = piece()
    with gr.Row(elem_classes="ts-next", visible=False) as actions:
        stop = gr.Button("Stop", visible=False)
        begin = gr.Button("Compare now", variant="primary", visible=False)
    verdict = piece()
    with gr.Row(elem_classes="ts-downloads", visible=False) as repeat:
        again = gr.Button("Compare again", size="sm", elem_classes="ts-small-button")
    timer = gr.Timer(LOOK_SECONDS, active=False)
    answers = compare_answers.build(shell)
    trying = compare_try.build(shell)
    inside = compare_inside.build(shell)
    predicting = compare_predict.build(shell)
    commands = piece()
    with gr.Row(elem_classes="ts-next"):
        onward = gr.Button("Next: publish", visible=False)
    progress = [status, actions, stop, begin, repeat, timer]
    head = [trouble, run, before, *progress, verdict, commands, onward]
    result = [*head, *answers.outputs]
    parts = (trying, inside, predicting)
    everything = [*result, *(output for part in parts for output in part.outputs)]

    def show_result(project: Project) -> list[Any]:
        return [*_head(shell, project), *answers.show(project)]

    def show(project: Project) -> list[Any]:
        shown = (value for part in parts for value in part.show(project))
        return [*show_result(project), *shown]

    def compare(project: Project) -> list[Any]:
        subject = read_subject(server, project)
        if subject.is_at_work:
            return show_result(project)  # a second click
        if subject.run is None:
            raise RunError("There is no finished run to compare", fix="Train one first")
        require_finished(subject.run)
        server.engine.release()  # its models would stand in the way of the job's
        if subject.may_go_on and subject.job is not None:
            server.queue.resume(subject.job)
            job = subject.job
        else:
            key = f"{project.id}/compare/{subject.run.id}/{project.compare_job}"
            job = server.queue.submit(CompareRequest(run_id=subject.run.id), key=key)
        server.queue.advance()
        return show_result(server.projects.change(project.id, compare_job=job.id))

    def stopped(project: Project) -> list[Any]:
        job = server.home.existing_job(project.compare_job)
        if job is not None:
            server.queue.stop(job)
        return show_result(project)

    def looked(project: Project) -> list[Any]:
        subject = read_subject(server, project)
        if subject.is_at_work:
            rest = (gr.skip() for _ in [*head[len(progress) + 3 :], *answers.outputs])
            return [gr.skip(), gr.skip(), gr.skip(), *_progress(subject), *rest]
        if subject.comparison is not None and subject.shown == subject.job:
            told(headline(subject.comparison), "Compared")
        return show_result(project)

    def chosen(project: Project, run_id: str) -> list[Any]:
        if run_id not in finished_runs(server, project):
            raise RunError("This run cannot be compared", fix="Choose one of the list")
        found = next(compare_jobs(server.home, run_id), None)
        changes = {"run": run_id, **({"compare_job": found.id} if found else {})}
        return show(server.projects.change(project.id, **changes))

    for button in (begin, again):
        shell.on(button.click, compare, outputs=result, busy=button)
    again.click(None, None, None, js="() => studio.top()", api_visibility="private")
    shell.on(stop.click, stopped, outputs=result)
    shell.on(timer.tick, looked, outputs=result)
    shell.on(run.input, chosen, [run], everything)
    shell.on(onward.click, lambda project: "publish", outputs=[shell.step])
    return Page(everything, show)


def _head(shell: Shell, project: Project) -> list[Any]:
    """Fill everything above the answers, and the foot."""
    subject = read_subject(shell.server, project)
    if subject.run is None or subject.dataset is None:
        hidden = gr.Button(visible=False)
        return [
            str(empty("Nothing to compare", subject.trouble)), gr.Dropdown(visible=False), "",
            "", gr.Row(visible=False), hidden, hidden, gr.Row(visible=False),
            gr.Timer(active=False), "", "", hidden,
        ]  # fmt: skip
    runs = finished_runs(shell.server, project)
    looks = looks_at(shell.server.home, subject.dataset)
    comparison = subject.comparison
    introduction = "" if comparison else str(_introduction(subject.dataset, looks))
    is_done = _is_done(subject) and not subject.is_at_work
    texts = dict.fromkeys(slots_of(subject.dataset.template), "your text")
    lines = (
        compare_command(subject.run.id), try_command(subject.run.id, texts),
        predict_command(subject.run.id, Path("new.csv")),
    )  # fmt: skip
    command = code("\n".join(lines), label="compare, try, predict")
    return [
        "",
        gr.Dropdown(
            [(_run_name(shell, name), name) for name in runs], value=subject.run.id,
            visible=len(runs) > 1,
        ),
        introduction, *_progress(subject),
        str(_shown(comparison, subject, looks)) if comparison else "",
        str(details("The same on a command line", command)),
        gr.Button(visible=True, variant="primary" if is_done else "secondary"),
    ]  # fmt: skip


def _progress(subject: Subject) -> list[Any]:
    """Give what status, actions, stop, begin, repeat and timer hold."""
    at_work = subject.is_at_work
    is_done = _is_done(subject)
    words = "Try again" if subject.may_go_on else "Compare now"
    bad_end = subject.may_go_on or at_work
    shown = (
        job_view(subject.job, subject.progress, title=_TITLE)
        if subject.job and subject.progress and bad_end
        else Markup("")
    )
    return [
        str(shown), gr.Row(visible=at_work or not is_done), gr.Button(visible=at_work),
        gr.Button(words, visible=not at_work and not is_done),
        gr.Row(visible=is_done and not at_work), gr.Timer(active=at_work),
    ]  # fmt: skip


def _is_done(subject: Subject) -> bool:
    return not (subject.comparison is None or subject.is_stale or subject.may_go_on)


def _introduction(dataset: Dataset, looks: int) -> Markup:
    num_test, num_validation = (dataset.splits[name].rows for name in ("test", "validation"))
    others = ["the base with the task described", "the best prompt with solved examples that a "
              f"search on {count(num_validation, 'validation row')} finds"]  # fmt: skip
    if dataset.template.instruction:
        others.append("the base without any tuning")
    if dataset.template.has_labels:
        others += ["always the most frequent label", "a classical model without language model"]
    words = (
        f"{count(num_test, 'test row')} that nobody trained on are answered by your tuned model "
        f"and by what you could use instead: {', '.join(others[:-1])} and {others[-1]}. One test "
        "that was planned before then says whether the tuned model is better, worse, or whether "
        "these rows cannot tell."
    )
    return join((callout("plain", "What will be measured", words), looks_view(looks)))


def looks_view(looks: int) -> Markup:
    """Say how often the test rows were looked at, and what that means.

    Args:
        looks: how often.

    Returns:
        A message; a warning where it was often.
    """
    if not looks:
        return callout(
            "good", "Nobody has looked at these test rows yet",
            "So the first verdict is worth most. Compare when you have chosen your settings.",
        )  # fmt: skip
    return callout(
        "plain" if looks == 1 else "warn",
        f"These test rows have been looked at {count(looks, 'time')}",
        "Each look at the same rows makes it likelier that a lucky result is taken for a good one. "
        "If you choose between runs, choose by validation loss, not by this verdict.",
    )


def _shown(comparison: Comparison, subject: Subject, looks: int) -> Markup:
    parts = []
    if subject.is_stale and subject.shown:
        parts.append(callout(
            "warn", "This comparison is of an earlier run",
            f"It is about {run_id_of(subject.shown)}, and another run is chosen now.",
            fix="Compare now, to see the chosen one",
        ))  # fmt: skip
    elif subject.shown != subject.job and subject.is_at_work:
        parts.append(callout("plain", "Below is the last comparison, until the new one is there"))
    return join([*parts, verdict_view(comparison), looks_view(looks)])


def _run_name(shell: Shell, name: str) -> str:
    job = shell.server.home.job(name)
    with suppress(StudioError):
        return f"{read_about(job).name or planned(job).method.name} · {name}"
    return name
