"""The last part of the publish step: to the Hub, privately unless somebody means it otherwise.

A token lives in its password field until it is used, then in the line of jobs until a worker takes
it: in memory alone, and in no file, log, address or list of arguments.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gradio as gr
from gradio.blocks import Block
from markupsafe import Markup

from engine.publishing.hub_upload import (
    TokenOwner,
    check_repo_id,
    check_token,
    has_stored_login,
    stored_login,
    whose_token,
)
from studio.jobs.requests import PublishRequest
from studio.pages.page import Shell, hidden_field, piece
from studio.pages.publish_subject import Subject, Written, choose
from studio.pages.publish_views import sent_view
from studio.projects import Project
from studio.publishing_check import confirm_public, require_acknowledged
from studio.settings import hub_token
from studio.web.html import callout, join, section
from studio.web.job_view import job_view
from studio.web.words import count, size
from templates.errors import RunError, StudioError

_LONGEST_NAME = 96
_LONGEST_TOKEN = 512
_SECRET = gr.InputHTMLAttributes(autocomplete="off", autocorrect="off", spellcheck=False)
_TITLE = "Sending to the Hub"
_MADE_AGAIN = (
    "The folder was made again since you looked at it. The new one is shown now: look through it, "
    "and publish it then."
)
Values = dict[str, Any]
Fill = Callable[[Project], list[Any]]


def place_hub() -> dict[str, Block]:
    """Place the part.

    Returns:
        Its components by name.
    """
    made: dict[str, Block] = {}
    with gr.Column(visible=False, elem_classes="ts-card") as made["hub"]:
        piece(section(
            "To the Hub, if you like",
            "Hugging Face keeps it for you and for those you let in.",
        ))  # fmt: skip
        made["sent"] = piece()
        made["seen"] = hidden_field()  # the job whose folder this tab shows
        with gr.Column(visible=False) as made["form"]:
            made["repo"] = gr.Textbox(
                label="Repository", placeholder="user/name", max_length=200, max_lines=1,
                info="Your name on the Hub, a slash, and what the model shall be called. It is "
                "made if it is not there yet.",
                elem_id="publish-repo", elem_classes="ts-publish-field",
            )  # fmt: skip
            made["repo_news"] = piece(elem_id="publish-repo-news")
            made["public"] = gr.Checkbox(
                label="Let everybody see it",
                info="Without this it is private: only you see it, and whom you let in. A "
                "repository that exists stays as visible as it is.", elem_id="publish-public",
            )  # fmt: skip
            made["typed"] = gr.Textbox(
                label="Type the whole name of the repository once more", max_lines=1,
                max_length=200, visible=False,
                elem_id="publish-typed", elem_classes="ts-publish-field",
                info="Everybody will be able to see and copy it. Card, wording and labels show "
                "something of your data.",
            )  # fmt: skip
            made["login"] = gr.Checkbox(
                label="Use the login that `hf auth login` left on this machine", visible=False,
                info="It is read only if you tick this, and goes to the Hub and nowhere else.",
                elem_id="publish-login",
            )  # fmt: skip
            made["whose"] = piece()
            made["token"] = gr.Textbox(
                label="Token that may write", type="password", max_length=_LONGEST_TOKEN,
                info="Made at huggingface.co/settings/tokens. It is kept in memory until the files "
                "are sent, is never written down, and this field is emptied.",
               
                elem_id="publish-token", elem_classes="ts-publish-field", html_attributes=_SECRET,
            )  # fmt: skip
            made["goes"] = piece(elem_id="publish-goes")
        made["sending"] = piece()
        with gr.Row(elem_classes="ts-next"):
            made["elsewhere"] = gr.Button("Publish it elsewhere too", visible=False)
            made["stop_sending"] = gr.Button("Stop", visible=False)
            made["send"] = gr.Button("Publish to the Hub", variant="primary", visible=False)
    return made


def connect_hub(
    shell: Shell,
    parts: Mapping[str, Any],
    outputs: Sequence[Block],
    fill: Fill,
    subject_of: Callable[[Project], Subject],
) -> None:
    """Connect what can be clicked and typed.

    Args:
        shell: what the wizard gives.
        parts: the components of the whole step; "acknowledged" is among them.
        outputs: those that `fill` fills.
        fill: gives what the whole step shows.
        subject_of: reads what the step is about.
    """
    server = shell.server
    repo, public, typed = parts["repo"], parts["public"], parts["typed"]
    login, token, accepted = parts["login"], parts["token"], parts["acknowledged"]
    news = [parts["repo_news"], parts["goes"]]

    def named(project: Project, repo_id: str, is_public: bool) -> list[Any]:
        repo_id = repo_id.strip()
        problem = repo_problem(repo_id)
        if problem is None:
            project = choose(server, project, repo_id=repo_id)
        goes = goes_view(subject_of(project).written, repo_id, is_private=not is_public)
        return [_news(repo_id, problem), str(goes)]

    def turned(project: Project, is_public: bool, repo_id: str) -> list[Any]:
        goes = goes_view(subject_of(project).written, repo_id.strip(), is_private=not is_public)
        return [gr.Textbox(value="", visible=is_public), str(goes)]

    def allowed(project: Project, may_use: bool, repo_id: str, is_public: bool) -> list[Any]:
        if not may_use:
            return ["", gr.Textbox(visible=True), *(gr.skip() for _ in [repo, *news])]
        try:
            owner = whose_token(hub_token() or stored_login())
        except StudioError as error:
            bad = callout("bad", error.what, error.where, fix=error.fix)
            return [str(bad), gr.Textbox(visible=True), *(gr.skip() for _ in [repo, *news])]
        name = repo_id.strip() or f"{owner.name}/{repo_name(title_of(project))}"
        hidden = gr.Textbox(value="", visible=False)
        return [str(owner_view(owner)), hidden, name, *named(project, name, is_public)]

    def send(
        project: Project, repo_id: str, is_public: bool, confirmed: str, may_use: bool,
        pasted: str, ticked: Sequence[str], seen: str,
    ) -> list[Any]:  # fmt: skip
        subject = subject_of(project)
        if subject.is_sending:
            return fill(project)  # a second click
        if subject.written is None or subject.run is None:
            raise RunError("There is no folder to send", fix="Make the folder first")
        if seen != subject.written.job.id:  # in another tab; nobody has looked at it here
            gr.Warning(_MADE_AGAIN, title="Nothing was sent")
            return fill(project)
        repo_id = repo_id.strip()
        check_repo_id(repo_id)
        if is_public:
            confirm_public(repo_id, confirmed)
        secret = hub_token() or stored_login() if may_use else pasted
        if not secret.strip():
            raise RunError(
                "Publishing to the Hub needs a token that may write", where="Token",
                fix="Make one at huggingface.co/settings/tokens, and paste it into the field",
            )  # fmt: skip
        known = [finding.id for finding in subject.written.outgoing.findings]
        acknowledged = tuple(name for name in ticked or () if name in known)
        require_acknowledged(subject.written.outgoing, acknowledged)
        request = PublishRequest(
            run_id=subject.run.id,
            form=subject.written.publication.form,
            name=subject.written.record.name,
            publication_id=subject.written.job.id,
            repo_id=repo_id,
            private=not is_public,
            acknowledged=acknowledged,
        )
        before = subject.sending.job.id if subject.sending else "nothing"
        key = f"{project.id}/send/{subject.written.job.id} after {before}"
        job = server.queue.submit(request, key=key, token=check_token(secret))
        server.queue.advance()
        choose(server, project, repo_id=repo_id, acknowledged=acknowledged)
        return fill(server.projects.change(project.id, publish_job=job.id))

    def stopped(project: Project) -> list[Any]:
        subject = subject_of(project)
        if subject.sending is not None:
            server.queue.stop(subject.sending.job)
        return fill(project)

    shell.on(repo.change, named, [repo, public], news, trigger_mode="always_last")
    shell.on(public.input, turned, [public, repo], [typed, parts["goes"]])
    shell.on(
        login.input, allowed, [login, repo, public], [parts["whose"], token, repo, *news],
        busy=parts["whose"],
    )  # fmt: skip
    values = [repo, public, typed, login, token, accepted, parts["seen"]]
    shell.on(parts["send"].click, send, values, outputs, busy=parts["send"])
    shell.on(parts["stop_sending"].click, stopped, outputs=outputs)
    shell.on(
        parts["elsewhere"].click,
        lambda project: [
            gr.Column(visible=True), gr.Button(visible=True, value="Publish to the Hub"),
            gr.Button(visible=False),
        ],
        outputs=[parts["form"], parts["send"], parts["elsewhere"]],
    )  # fmt: skip


def hub_values(project: Project, subject: Subject) -> Values:
    """Fill the part as it is when the step is opened, or something was done.

    Args:
        project: remembers the repository's name.
        subject: what the step is about.

    Returns:
        Values by component; every secret and every consent is taken back.
    """
    written, sent = subject.written, subject.sent
    repo_id = project.publishing.repo_id
    return {
        "hub": gr.Column(visible=written is not None),
        "sent": str(sent_view(sent)) if sent else "",
        "seen": written.job.id if written else "",
        "repo": repo_id,
        "repo_news": _news(repo_id, repo_problem(repo_id)),
        "public": False,
        "typed": gr.Textbox(value="", visible=False),
        "login": gr.Checkbox(value=False, visible=bool(hub_token()) or has_stored_login()),
        "whose": "",
        "token": gr.Textbox(value="", visible=True),
        "goes": str(goes_view(written, repo_id, is_private=True)),
        **hub_progress(subject),
    }


def hub_progress(subject: Subject) -> Values:
    """Fill what changes while files are sent.

    Args:
        subject: what the step is about.

    Returns:
        Values by component.
    """
    sending, at_work = subject.sending, subject.is_sending
    has_failed = sending is not None and sending.has_bad_end
    is_done = subject.sent is not None and not has_failed
    shown = job_view(sending.job, sending.progress, title=_TITLE) if sending else Markup("")
    if has_failed:
        again = "The token was forgotten on purpose. Give it again to try once more."
        shown = join((shown, callout("plain", again)))
    return {
        "form": gr.Column(visible=not at_work and not is_done),
        "sending": str(shown),
        "elsewhere": gr.Button(visible=is_done and not at_work),
        "stop_sending": gr.Button(visible=at_work),
        "send": gr.Button(
            "Try again" if has_failed else "Publish to the Hub",
            visible=not at_work and not is_done,
        ),
    }


def repo_problem(repo_id: str) -> StudioError | None:
    """Check a repository's name while it is typed.

    Args:
        repo_id: as far as it is typed.

    Returns:
        What is wrong with it; None: nothing, or nothing was typed yet.
    """
    if not repo_id:
        return None
    try:
        check_repo_id(repo_id)
    except StudioError as error:
        return error
    return None


def repo_name(title: str) -> str:
    """Make a repository's name of a title.

    Args:
        title: such as "Support tickets!".

    Returns:
        Such as "support-tickets"; what the Hub takes.
    """
    letters = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    return letters[:_LONGEST_NAME].strip("-") or "tuned-model"


def title_of(project: Project) -> str:
    """Say what a project's model is called on its card.

    Args:
        project: whose.

    Returns:
        What was typed, or else the project's name.
    """
    return project.publishing.title.strip() or project.name


def owner_view(owner: TokenOwner) -> Markup:
    """Say whose login would be used.

    Args:
        owner: as the Hub told.

    Returns:
        A message; a warning where it may not write.
    """
    others = f" You may also publish under {', '.join(owner.groups)}." if owner.groups else ""
    if not owner.may_write:
        return callout(
            "warn", f"This is the login of {owner.name}, and it may only read",
            fix="Paste a token that may write, or log in again with one",
        )  # fmt: skip
    return callout("plain", f"This is the login of {owner.name}.{others}")


def goes_view(written: Written | None, repo_id: str, *, is_private: bool) -> Markup:
    """Say in one sentence what the button will do.

    Args:
        written: what is sent.
        repo_id: where to; may be empty.
        is_private: who will see it.

    Returns:
        A paragraph.
    """
    if written is None:
        return Markup("")
    files = written.publication.files
    whole = size(sum(file.size_bytes for file in files))
    return Markup(
        '<p class="ts-publish-goes"><b>{}</b> ({}), those listed above and nothing else, go to '
        "<b>{}</b>, <b>{}</b>, in one piece: all of them or none.</p>"
    ).format(
        count(len(files), "file"), whole, repo_id or "the repository you name",
        "private" if is_private else "for everybody to see",
    )  # fmt: skip


def _news(repo_id: str, problem: StudioError | None) -> str:
    if problem is not None:
        line = Markup('<p class="ts-publish-news ts-warn">{}. {}.</p>')
        return str(line.format(problem.what, problem.fix))
    line = Markup('<p class="ts-publish-news ts-good">A name that the Hub takes.</p>')
    return str(line) if repo_id else ""
