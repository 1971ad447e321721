"""Step 4: train, watch, stop, go on, and choose the run to compare."""

import functools
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr
from gradio.blocks import Block

from studio.commands import train_command
from studio.jobs.progress import RunProgress
from studio.pages.page import LOOK_SECONDS, Page, Shell, hidden_field, piece
from studio.pages.train_charts import loss_chart, overlay_chart, pace_charts
from studio.pages.train_desk import Desk, Sight
from studio.pages.train_log import log_view, planned_steps, raw_log
from studio.pages.train_runs import Run, line_view, num_in_front, runs_table
from studio.pages.train_samples import samples_view, words_of
from studio.pages.train_view import plan_notice, plan_sentence, run_view
from studio.projects import Project
from studio.records import kept_estimate
from studio.runs.about import change_about
from studio.web.html import callout, code, empty, heading, join, preformatted, section
from studio.web.toasts import told
from templates.errors import RunError

_MOST_OVERLAID = 6
_LABEL_TASKS = ("classification", "pair_classification")
_LIVE = ("run", "loss", "pace", "samples", "overlay", "log", "raw")
_TICKED = (*_LIVE, "timer", "sent", "news")
Values = dict[str, Any]


def build(shell: Shell) -> Page:
    """Build the step.

    Args:
        shell: what the wizard gives.

    Returns:
        The step.
    """
    server, desk = shell.server, Desk(shell.server)
    parts = _components()
    outputs = list(parts.values())
    chosen, overlaid = parts["chosen"], parts["overlaid"]
    ticked = [parts[name] for name in _TICKED]

    def in_order(values: Mapping[str, Any]) -> list[Any]:
        return [values.get(name, gr.skip()) for name in parts]

    def whole(
        project: Project, choice: str = "", *, overlay: Sequence[str] | None = None
    ) -> Values:
        """Everything, as it is when the step is opened or something was done."""
        sight = desk.look(project, choice)
        values = _frame(desk, sight)
        if overlay is None:
            overlay = [run.id for run in sight.runs[-_MOST_OVERLAID:]]
        known = [run.id for run in sight.runs]
        overlay = [name for name in overlay if name in known][:_MOST_OVERLAID]
        if sight.run is None:  # nothing of another project may stay chosen
            values["chosen"] |= {"value": None}
            values["overlaid"] |= {"value": []}
        else:
            about = sight.run.about
            values["chosen"] |= {"value": sight.run.id}
            values["overlaid"] |= {"value": overlay}
            values |= {"name": about.name, "note": about.note}
            values |= _live(desk, sight, sight.run, overlay)
        values["known"] = json.dumps(_known(desk, sight))
        values["sent"] = json.dumps(_digests(values))
        return values

    def show(project: Project) -> list[Any]:
        return in_order(whole(project))

    def tick(project_id: str, choice: str, overlay: list[str], known: str, sent: str) -> list[Any]:
        """Fill what has changed since the last look; the rest costs the browser nothing.

        It goes past Gradio's queue, which costs more than all of this; so it cannot show a toast.
        Whatever is more than the next steps of a run, and trouble too, is left to `news`.
        """
        if not project_id:
            return [gr.skip() for _ in _TICKED]
        try:
            project = server.projects.read(project_id)
            sight = desk.look(project, choice)
            values = _live(desk, sight, sight.run, overlay) if sight.run else {}
            before, now = json.loads(sent or "{}"), _digests(values)
            changed = {name: values[name] for name in now if before.get(name) != now[name]}
            if changed:
                changed["sent"] = json.dumps(before | now)
            signature = _known(desk, sight)["signature"]
            if signature != json.loads(known or "{}").get("signature"):
                changed["news"] = signature
        except Exception:  # once, and not again every second
            changed = {"timer": gr.update(active=False), "news": f"trouble at {time.time()}"}
        return [changed.get(name, gr.skip()) for name in _TICKED]

    def take_news(project: Project, choice: str, overlay: list[str], known: str) -> list[Any]:
        _tell(shell, desk, desk.look(project, choice), json.loads(known or "{}"))
        values = whole(project, choice, overlay=overlay)
        for name in ("name", "note"):  # somebody may be writing there
            values.pop(name, None)
        return in_order(values)

    def start(project: Project) -> list[Any]:
        name = desk.start(project)
        return in_order(whole(server.projects.read(project.id), name))

    def again(project: Project, choice: str) -> list[Any]:
        name = desk.start_again(project, _require(desk.look(project, choice)))
        return in_order(whole(server.projects.read(project.id), name))

    def stop(project: Project, choice: str, overlay: list[str]) -> list[Any]:
        desk.stop(_require(desk.look(project, choice)))
        return in_order(whole(project, choice, overlay=overlay))

    def go_on(project: Project, choice: str, overlay: list[str]) -> list[Any]:
        desk.go_on(_require(desk.look(project, choice)))
        return in_order(whole(project, choice, overlay=overlay))

    def move(project: Project, choice: str, overlay: list[str], *, by: int) -> list[Any]:
        run = _require(desk.look(project, choice))
        place = desk.progress(run).place
        if place:
            server.queue.move(run.job, max(1, place + by))
        return in_order(whole(project, choice, overlay=overlay))

    def use(project: Project, choice: str, overlay: list[str]) -> list[Any]:
        run = _require(desk.look(project, choice))
        project = server.projects.change(project.id, run=run.id)
        told(f"{run.name} goes on to compare and publish")
        return in_order(whole(project, choice, overlay=overlay))

    def save(project: Project, choice: str, overlay: list[str], name: str, note: str) -> list[Any]:
        change_about(_require(desk.look(project, choice)).job, name=name, note=note)
        return in_order(whole(project, choice, overlay=overlay))

    def look(project: Project, choice: str, overlay: list[str]) -> list[Any]:
        return in_order(whole(project, choice, overlay=overlay))

    parts["timer"].tick(
        tick, [shell.project, chosen, overlaid, parts["known"], parts["sent"]], ticked,
        queue=False, api_visibility="private", show_progress="hidden",
    )  # fmt: skip
    shell.on(parts["news"].change, take_news, [chosen, overlaid, parts["known"]], outputs)
    shell.on(parts["start"].click, start, outputs=outputs, busy=parts["start"])
    shell.on(parts["again"].click, again, [chosen], outputs, busy=parts["again"])
    kept = [chosen, overlaid]
    shell.on(parts["stop"].click, stop, kept, outputs, busy=parts["stop"])
    shell.on(parts["go_on"].click, go_on, kept, outputs, busy=parts["go_on"])
    shell.on(parts["earlier"].click, functools.partial(move, by=-1), kept, outputs)
    shell.on(parts["later"].click, functools.partial(move, by=1), kept, outputs)
    shell.on(parts["use"].click, use, kept, outputs)
    shell.on(parts["save"].click, save, [*kept, parts["name"], parts["note"]], outputs)
    shell.on(chosen.input, look, kept, outputs)
    shell.on(overlaid.input, look, kept, outputs)
    shell.on(parts["onward"].click, lambda project: "compare", outputs=[shell.step])
    return Page(outputs, show)


def _components() -> dict[str, Any]:
    """Place everything, from top to bottom."""
    piece(heading(
        "Train",
        "The model reads your examples again and again and gets better at them. You may close this "
        "page: training goes on, and you find it here again.",
    ))  # fmt: skip
    made: dict[str, Block] = {}
    made["plan"] = piece()
    with gr.Row(elem_classes="ts-next"):
        made["start"] = gr.Button("Start training", variant="primary", visible=False)
    made["nothing"] = piece()
    with gr.Column(visible=False) as made["runs_part"]:
        made["chosen"] = gr.Dropdown(
            [], label="Run", info="Which one is shown below. Each training is a run of its own.",
            filterable=False,
        )  # fmt: skip
        made["run"] = piece()
        with gr.Row(elem_classes="ts-train-buttons"):
            made["stop"] = gr.Button("Stop and save", visible=False)
            made["go_on"] = gr.Button("Go on", visible=False)
            made["earlier"] = gr.Button("Move up in the line", visible=False)
            made["later"] = gr.Button("Move down in the line", visible=False)
            made["again"] = gr.Button("Train once more as a new run", visible=False)
        made["line"] = piece()
        piece(section(
            "Loss",
            "How far the model's answers are from yours: it should fall. Validation rows are never "
            "trained on; when their loss rises again, the model begins to learn by heart.",
        ))  # fmt: skip
        made["loss"] = piece(elem_classes=["ts-train-charts", "ts-train-wide"])
        made["pace"] = piece(elem_classes=["ts-train-charts"])
        made["samples"] = piece()
        piece(section("Runs of this project", "One of the finished runs goes on to compare."))
        made["runs"] = piece()
        with gr.Row(elem_classes="ts-train-buttons"):
            made["use"] = gr.Button("Use this run", visible=False)
        made["overlaid"] = gr.CheckboxGroup(
            [], label="Lay over each other",
            info=f"Validation losses in one chart, of {_MOST_OVERLAID} runs at most.",
        )  # fmt: skip
        made["overlay"] = piece(elem_classes=["ts-train-charts", "ts-train-wide"])
        with gr.Accordion("Name and note of this run", open=False):
            made["name"] = gr.Textbox(
                label="Name", info="What you call this run.", max_length=100, lines=1
            )
            made["note"] = gr.Textbox(
                label="Note", info="For you: what you tried, what you saw.", max_length=10_000,
                lines=3,
            )  # fmt: skip
            made["save"] = gr.Button("Save name and note", size="sm")
        piece(section("What happened"))
        made["log"] = piece()
        with gr.Accordion("For experts: commands, and what libraries printed", open=False):
            made["commands"] = piece()
            made["raw"] = piece()
    with gr.Row(elem_classes="ts-next"):
        made["onward"] = gr.Button("Next: compare", variant="primary", visible=False)
    made["timer"] = gr.Timer(LOOK_SECONDS, active=False)
    # In the browser: for a gr.State each tab would hold a connection, and browsers have but six.
    made |= {name: hidden_field() for name in ("known", "sent", "news")}
    return made


def _live(desk: Desk, sight: Sight, run: Run, overlay: Sequence[str]) -> Values:
    """What may change every second while a run is at work."""
    progress, story = desk.progress(run), desk.story(run)
    curves = desk.curves.of(run.job, is_over=not run.is_at_work)
    is_stopping = desk.is_stopping(run)
    total_steps = progress.total_steps or planned_steps(story)
    view = run_view(run, progress, story, desk.estimated_bytes(run), is_stopping=is_stopping)
    others = tuple(other for other in sight.runs if other.id in tuple(overlay)[:_MOST_OVERLAID])
    lines = tuple(
        (other.name, desk.curves.of(other.job, is_over=not other.is_at_work).evaluations)
        for other in others
    )
    raw = raw_log(run.job.folder)
    return {
        "run": str(view),
        "loss": str(loss_chart(curves, total_steps)),
        "pace": str(pace_charts(curves.steps, total_steps)),
        "samples": str(_samples(desk, run, progress, story.first_samples)),
        "overlay": str(overlay_chart(lines)) if len(sight.runs) > 1 else "",
        "log": str(log_view(story)),
        "raw": str(preformatted(raw) if raw else empty("Nothing was printed")),
    }


def _samples(desk: Desk, run: Run, progress: RunProgress, first: tuple[Any, ...]) -> object:
    dataset = desk.dataset(run.plan)
    is_label_task = dataset is not None and dataset.template.task in _LABEL_TASKS
    counted = f" Now {words_of(progress.samples)}." if progress.samples else ""
    lead = f"Validation examples, answered before training and after each check.{counted}"
    view = samples_view(
        first, progress.samples, progress.sampled_step or 0, is_label_task=is_label_task
    )
    return join((section("Sample answers", lead), view))


def _frame(desk: Desk, sight: Sight) -> Values:
    """What changes only when something is done, begins or ends."""
    server, project, plan, run = desk.server, sight.project, sight.plan, sight.run
    estimate = kept_estimate(server.home, plan) if plan else None
    in_front = num_in_front(server.home, server.queue) if not sight.is_trained else 0
    notice = plan_notice(
        plan, is_old_data=plan is not None and plan.dataset_id != project.dataset,
        has_older_run=bool(sight.runs), is_trained=sight.is_trained, num_in_front=in_front,
        estimate=estimate,
    )  # fmt: skip
    card = section(
        "What will be trained" if not sight.is_trained else "The plan",
        plan_sentence(plan, desk.dataset(plan), estimate) if plan else "",
    )
    can_start = plan is not None and not sight.is_trained
    is_done = any(other.id == project.run and other.state == "finished" for other in sight.runs)
    values: Values = {
        "plan": str(join((card, notice)) if plan else notice),
        "start": gr.update(
            visible=can_start, variant="secondary" if is_done else "primary",
            value="Queue training" if in_front else "Start training",
        ),
        "nothing": "" if run or plan is None else str(empty(
            "Nothing has been trained yet",
            "Curves, sample answers and what happens appear here once it has begun.",
        )),
        "runs_part": gr.update(visible=run is not None),
        "onward": gr.update(visible=is_done, variant="primary"),
        "timer": gr.update(active=sight.is_at_work),
        "chosen": gr.update(
            choices=[(other.label, other.id) for other in reversed(sight.runs)],
            visible=len(sight.runs) > 1,
        ),
        "overlaid": gr.update(
            choices=[(other.label, other.id) for other in reversed(sight.runs)],
            visible=len(sight.runs) > 1,
        ),
    }  # fmt: skip
    if run is not None:
        values |= _run_frame(desk, sight, run)
    return values


def _run_frame(desk: Desk, sight: Sight, run: Run) -> Values:
    server, project = desk.server, sight.project
    num_waiting = len(server.queue.waiting())
    place = desk.progress(run).place
    words = "Go on where it stopped" if run.state == "stopped" else "Try again"
    stop_words = "Take out of the line" if run.state == "queued" else "Stop and save"
    same_at_work = any(other.is_at_work and other.plan == run.plan for other in sight.runs)
    trouble = server.trouble if run.state == "queued" else ""
    own = (*project.runs, project.prepare_job, project.compare_job, project.publish_job)
    line = line_view(server.home, server.queue, own)
    blocked = callout("bad", "The line does not move just now", trouble) if trouble else ""
    again = run.state not in ("queued", "running") and run.status.step
    resume = train_command("", resume=run.id) if again and run.state != "finished" else ""
    commands = [
        code(train_command(project.plan), label="Train this plan from a terminal"),
        code(resume, label="Go on with this run") if resume else "",
        code(f"python app.py jobs show {run.id}", label="Look at this run"),
    ]
    return {
        "stop": gr.update(
            visible=run.is_at_work,
            value="End at once" if desk.is_stopping(run) else stop_words,
        ),
        "go_on": gr.update(
            visible=run.state in ("stopped", "failed", "interrupted"), value=words
        ),
        "earlier": gr.update(visible=place > 1),
        "later": gr.update(visible=0 < place < num_waiting),
        "again": gr.update(visible=not run.is_at_work and not same_at_work),
        "line": str(join((blocked, line))),
        "runs": str(runs_table(sight.runs, desk.best_losses(sight.runs), project.run)),
        "use": gr.update(
            visible=run.state == "finished" and project.run != run.id,
            value=f"Use {run.name} to compare",
        ),
        "commands": str(join(commands)),
    }  # fmt: skip


def _known(desk: Desk, sight: Sight) -> Values:
    """What a tab knows of the runs; when it is something else, there is news."""
    signature = (
        sight.project.id, sight.project.plan, sight.project.run, sight.run and sight.run.id,
        tuple((run.id, run.state, run.about, desk.is_stopping(run)) for run in sight.runs),
        tuple(desk.server.queue.waiting()), desk.server.trouble,
    )  # fmt: skip
    return {
        "signature": _digest(signature),
        "at_work": [run.id for run in sight.runs if run.is_at_work],
    }


def _digests(values: Values) -> dict[str, str]:
    """Remember what a tab was sent, to send it only what is new."""
    return {name: _digest(values[name]) for name in _LIVE if name in values}


def _digest(value: object) -> str:
    return f"{hash(repr(value)) & (1 << 64) - 1:x}"


def _tell(shell: Shell, desk: Desk, sight: Sight, known: Values) -> None:
    """Say what has ended since the last look."""
    for run in sight.runs:
        if run.id not in known.get("at_work", ()) or run.is_at_work:
            continue
        if run.state == "finished":
            told(f"{run.name} is trained. Next: compare it with prompting", "Training finished")
        elif run.state == "stopped":
            told(f"{run.name} is saved and can go on later", "Stopped")
        else:
            failure = desk.progress(run).failure
            what, fix = (failure.what, failure.fix) if failure else ("It failed", "See the log")
            shell.toasts.show(RunError(what, where=run.name, fix=fix))


def _require(sight: Sight) -> Run:
    if sight.run is None:
        raise RunError("There is no run yet", fix="Start training first")
    return sight.run
