"""Step 6: what goes out, and to whom."""

from collections.abc import Mapping
from functools import partial
from typing import Any, get_args

import gradio as gr
from gradio.blocks import Block

from engine.publishing.publication import Form
from engine.publishing.published_files import write_zip
from studio.jobs.requests import PublishRequest
from studio.pages.download import new_place, offer_file, save_on_change
from studio.pages.page import Page, Shell, hidden_field, piece
from studio.pages.publish_card import card_view
from studio.pages.publish_forms import FORM_TARGET, TITLES, KnownForms, forms_view
from studio.pages.publish_hub import (
    connect_hub,
    hub_progress,
    hub_values,
    place_hub,
    repo_name,
    title_of,
)
from studio.pages.publish_subject import Subject, Written, choose, made_forms, read_subject
from studio.pages.publish_views import (
    FILE_TARGET,
    commands_view,
    finding_choices,
    findings_view,
    next_view,
    snippet_views,
    subject_view,
    written_view,
)
from studio.projects import Project
from studio.records import require_finished
from studio.web.choices import sent as sent_value
from studio.web.html import callout, empty, heading, section
from studio.web.job_view import job_view
from studio.web.toasts import told
from templates.errors import RunError
from templates.files import disk_errors

_TITLE = "Writing and checking the model"
_LONGEST_TITLE = 96
Values = dict[str, Any]


def build(shell: Shell) -> Page:
    """Build the step.

    Args:
        shell: what the wizard gives.

    Returns:
        The step.
    """
    server, known = shell.server, KnownForms(shell.server)
    parts = _place()
    outputs = list(parts.values())

    def in_order(values: Mapping[str, Any]) -> list[Any]:
        return [values.get(name, gr.skip()) for name in parts]

    def subject_of(project: Project) -> Subject:
        subject = read_subject(server, project, project.publishing.form)
        forms = known.of(subject.plan.method.name) if subject.plan else None
        if forms is None or project.publishing.form in (None, *forms):
            return subject
        return read_subject(server, project)  # what was chosen was for another method

    def form_of(subject: Subject, project: Project) -> Form | None:
        """Which form is shown: the chosen one, or what was made last, or the usual one."""
        forms = (known.of(subject.plan.method.name) if subject.plan else None) or ()
        last = subject.writing.request.form if subject.writing else None
        made = subject.written.publication.form if subject.written else None
        wishes = (project.publishing.form, made, last)
        found = (wish for wish in wishes if wish and (not forms or wish in forms))
        return next(found, forms[0] if forms else None)

    def forms_of_run(subject: Subject, project: Project) -> str:
        assert subject.run is not None and subject.plan is not None
        made = made_forms(server.home, subject.run.id)
        forms = known.of(subject.plan.method.name)
        return str(forms_view(forms, form_of(subject, project), made))

    def show(project: Project) -> list[Any]:
        subject = subject_of(project)
        if subject.run is None or subject.plan is None:
            return in_order(_nothing(subject))
        forms = known.of(subject.plan.method.name)
        return in_order({
            "trouble": _summary(subject),
            "about": str(subject_view(subject)),
            "choices": gr.Column(visible=True),
            "forms": forms_of_run(subject, project),
            "title": title_of(project),
            **_progress(project, subject, is_waiting=forms is None),
            **_folder_values(project, subject),
            **hub_values(project, subject),
            "commands": str(commands_view(subject, title_of(project), project.publishing.repo_id)),
            "next": str(next_view(subject.sent)) if subject.written else "",
            "onward": gr.Row(visible=subject.written is not None),
            "restart": gr.Button(variant="primary" if subject.sent else "secondary"),
            "watched": _watched(subject),
        })  # fmt: skip

    def titled(project: Project, title: str) -> Project:
        title = title.strip()[:_LONGEST_TITLE]
        return choose(server, project, title="" if title == project.name else title)

    def named(project: Project, title: str) -> list[Any]:
        project = titled(project, title)
        subject = subject_of(project)
        shown = _progress(project, subject, is_waiting=False)
        return [shown["make"], shown["old"]]

    def picked(project: Project, sent: str) -> list[Any]:
        form = sent_value(sent)
        if form not in get_args(Form):
            raise RunError("There is no such form", where=form[:40], fix="Choose one of the cards")
        return show(choose(server, project, form=form))

    def make(project: Project, title: str) -> list[Any]:
        project = titled(project, title)
        subject = subject_of(project)
        if subject.is_writing:
            return show(project)  # a second click
        if subject.run is None or subject.plan is None:
            raise RunError("There is no finished run to publish", fix="Train one first")
        require_finished(subject.run)
        before = subject.writing
        form = form_of(subject, project)
        project = choose(server, project, form=form)
        request = PublishRequest(run_id=subject.run.id, form=form, name=title_of(project))
        server.engine.release()  # its models would stand in the way of the job's
        if before is not None and before.has_bad_end and before.request == request:
            server.queue.resume(before.job)
            job = before.job
        else:
            last = before.job.id if before else "nothing"
            key = f"{project.id}/publish/{subject.run.id}/{form} after {last}"
            job = server.queue.submit(request, key=key)
        server.queue.advance()
        return show(server.projects.change(project.id, publish_job=job.id))

    def stopped(project: Project) -> list[Any]:
        subject = subject_of(project)
        if subject.writing is not None:
            server.queue.stop(subject.writing.job)
        return show(project)

    def looked(project: Project, watched: str) -> list[Any]:
        subject = subject_of(project)
        now = _watched(subject)
        if now == watched and subject.plan is not None:
            is_waiting = known.of(subject.plan.method.name) is None
            values = _progress(project, subject, is_waiting=is_waiting)
            if not now:  # the engine was asked for the forms
                values["forms"] = forms_of_run(subject, project)
            return in_order({**values, **hub_progress(subject)})
        _tell(subject, watched)
        return show(project)

    def file(project: Project, sent: str) -> str:
        written = _require(subject_of(project))
        name = sent_value(sent)
        if name not in {file.name for file in written.publication.files}:
            raise RunError("There is no such file", where=name[:80], fix="Choose one of the list")
        return str(offer_file(server.downloads, written.folder / name))

    def packed(project: Project) -> str:
        written = _require(subject_of(project))
        name = f"{repo_name(written.record.name)}-{written.publication.form}.zip"
        path = new_place(server.downloads) / name
        with disk_errors("the zip"):
            write_zip(written.folder, path, root=written.publication.folder)
        return str(path)

    def ticked(project: Project, names: list[str]) -> None:
        choose(server, project, acknowledged=tuple(names or ()))

    title, watched, path = parts["title"], parts["watched"], parts["path"]
    # Not `input`: of text fields Gradio fires it at keys alone, not when something is pasted.
    shell.on(
        title.change, named, [title], [parts["make"], parts["old"]], trigger_mode="always_last"
    )  # fmt: skip
    shell.on(parts["form_choice"].change, picked, [parts["form_choice"]], outputs)
    shell.on(parts["make"].click, make, [title], outputs, busy=parts["make"])
    shell.on(parts["stop"].click, stopped, outputs=outputs)
    shell.on(parts["timer"].tick, looked, [watched], outputs)
    shell.on(parts["file_choice"].change, file, [parts["file_choice"]], [path])
    shell.on(parts["zip"].click, packed, outputs=[path], busy=parts["zip"])
    shell.on(parts["acknowledged"].input, ticked, [parts["acknowledged"]])
    save_on_change(path)
    connect_hub(shell, parts, outputs, show, subject_of)
    shell.on(parts["try"].click, lambda project: "compare", outputs=[shell.step])
    parts["restart"].click(
        None,
        None,
        None,
        js="() => studio.leave()",
        api_visibility="private",
        show_progress="hidden",
    )
    return Page(outputs, show)


def _place() -> dict[str, Any]:
    """Place everything, from top to bottom."""
    piece(heading(
        "Publish",
        "Your model as a folder that others can load, with a model card that says what it is and "
        "how good it was measured to be. It stays on this machine until you send it somewhere.",
    ))  # fmt: skip
    made: dict[str, Block] = {}
    made["trouble"] = piece()
    made["about"] = piece()
    with gr.Column(visible=False) as made["choices"]:
        made["form_choice"] = hidden_field(FORM_TARGET)
        made["forms"] = piece()
        made["title"] = gr.Textbox(
            label="Title", max_length=_LONGEST_TITLE, max_lines=1,
            elem_id="publish-title", elem_classes="ts-publish-field",
            info="Stands at the top of the model card, for people to read.",
        )  # fmt: skip
        made["old"] = piece()
    made["status"] = piece()
    with gr.Row(elem_classes="ts-next"):
        made["stop"] = gr.Button("Stop", visible=False)
        made["make"] = gr.Button("Make the folder", variant="primary", visible=False)
    with gr.Column(visible=False) as made["folder"]:
        made["files"] = piece(elem_classes=("ts-publish-files",))
        made["file_choice"], made["path"] = hidden_field(FILE_TARGET), hidden_field()
        with gr.Row(elem_classes="ts-downloads"):
            made["zip"] = gr.Button(
                "Download everything as a zip", size="sm", elem_classes="ts-small-button"
            )
        piece(
            section("The model card", "The first thing others see. It is README.md in the folder.")
        )
        made["card"] = piece()
        made["findings"] = piece()
        made["acknowledged"] = gr.CheckboxGroup(
            [], label="This may be seen all the same", visible=False, elem_id="publish-findings",
            info="Only where every one is ticked can the model go to the Hub.",
        )  # fmt: skip
        piece(section("How it is used", "Code to copy, made for this very model and its wording."))
        with gr.Tabs():
            for name, label in (("peft", "transformers"), ("vllm", "vLLM"), ("ollama", "Ollama")):
                with gr.Tab(label):
                    made[name] = piece(elem_classes=("ts-publish-code",))
    made.update(place_hub())
    made["next"] = piece()
    made["commands"] = piece()
    with gr.Row(elem_classes="ts-next", visible=False) as made["onward"]:
        made["try"] = gr.Button("Try the model")
        made["restart"] = gr.Button("Start another project")
    made["watched"] = hidden_field()
    made["timer"] = gr.Timer(1.5, active=False)
    return made


def _summary(subject: Subject) -> str:
    """Say first what was reached."""
    if subject.sent is None:
        return ""
    seen = "private" if subject.sent.private else "public"
    return str(callout("good", f"On the Hub: {subject.sent.repo_id}, {seen}"))


def _nothing(subject: Subject) -> Values:
    hidden = partial(gr.update, visible=False)
    return {
        "trouble": str(empty("Nothing to publish", subject.trouble)),
        "about": "", "status": "", "next": "", "commands": "",
        "choices": hidden(), "stop": hidden(), "make": hidden(), "folder": hidden(),
        "hub": hidden(), "onward": hidden(), "watched": "", "timer": gr.Timer(active=False),
    }  # fmt: skip


def _progress(project: Project, subject: Subject, *, is_waiting: bool) -> Values:
    """Fill what changes while the folder is written."""
    writing, written, at_work = subject.writing, subject.written, subject.is_writing
    has_failed = writing is not None and writing.has_bad_end
    is_other = written is not None and written.job.folder != (writing and writing.job.folder)
    is_renamed = written is not None and written.title != title_of(project)
    needs_again = written is None or has_failed or is_renamed or subject.is_old
    words = "Try again" if has_failed else "Make the folder again" if written else "Make the folder"
    old = ""
    if subject.is_old and not at_work:
        old = str(callout(
            "plain", "A comparison was made since the folder was", fix="Make the folder again, "
            "and the card tells of it",
        ))  # fmt: skip
    shown = job_view(writing.job, writing.progress, title=_TITLE) if writing else ""
    if is_other and at_work:
        old = str(callout("plain", "Below is the last folder, until the new one is there"))
    return {
        "old": old,
        "status": str(shown),
        "stop": gr.Button(visible=at_work),
        "make": gr.Button(
            words, visible=needs_again and not at_work,
            variant="secondary" if written else "primary",
        ),
        "timer": gr.Timer(active=at_work or subject.is_sending or is_waiting),
    }  # fmt: skip


def _folder_values(project: Project, subject: Subject) -> Values:
    written = subject.written
    if written is None:
        return {"folder": gr.Column(visible=False)}
    findings = written.outgoing.findings
    known = {finding.id for finding in findings}
    peft, vllm, ollama = snippet_views(written)
    return {
        "folder": gr.Column(visible=True),
        "files": str(written_view(written)),
        "card": str(card_view(written.outgoing.card)),
        "findings": str(findings_view(findings)),
        "acknowledged": gr.CheckboxGroup(
            choices=finding_choices(findings), visible=bool(findings),
            value=[name for name in project.publishing.acknowledged if name in known],
        ),
        "peft": str(peft), "vllm": str(vllm), "ollama": str(ollama),
    }  # fmt: skip


def _watched(subject: Subject) -> str:
    """Name the jobs at work, as a tab remembers them."""
    attempts = [subject.writing, subject.sending]
    return " ".join(attempt.job.id for attempt in attempts if attempt and attempt.is_at_work)


def _tell(subject: Subject, watched: str) -> None:
    """Say what has ended well since the last look."""
    sending, writing = subject.sending, subject.writing
    for attempt in (writing, sending):
        if attempt is None or attempt.job.id not in watched.split():
            continue
        if attempt.progress.state != "finished":
            continue
        if attempt.request.repo_id:
            told("Your model is published", "Published")
        else:
            told(f"The {TITLES[attempt.request.form or 'adapter'].lower()} is written", "Written")


def _require(subject: Subject) -> Written:
    if subject.written is None:
        raise RunError("There is no folder yet", fix="Make the folder first")
    return subject.written
