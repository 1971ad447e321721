"""publish: the tuned model as a folder others can load, with what was measured, and on the Hub."""

import os
from pathlib import Path
from typing import Annotated

import typer

from engine.jobs import Job
from engine.publishing.publication import Form, Publication, PublishedFile, parity_sentence
from studio.doing import do
from studio.home import Home
from studio.jobs.requests import PublishRequest
from studio.records import PUBLICATION, require_finished
from studio.screen import say, say_json, say_table
from studio.settings import hub_token
from studio.verbs.upload import Json
from templates.errors import RunError

_FOLDER = Path("my-model")


def publish(
    run: Annotated[str, typer.Argument(help='Id of a train run, or "latest".')] = "latest",
    to: Annotated[
        Path | None, typer.Option(help="New folder to write; my-model, where it stays here.")
    ] = None,
    form: Annotated[
        Form | None, typer.Option(help="The adapter, where the method has one, if not given.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Title on the model card.")] = None,
    zip: Annotated[bool, typer.Option(help="Also write a zip beside the folder.")] = False,
    hub: Annotated[
        str, typer.Option(help="Send it to the Hub too: user/name. The token is read in HF_TOKEN.")
    ] = "",
    public: Annotated[
        bool, typer.Option("--public", help="Let everybody see it; needs --confirm.")
    ] = False,
    confirm: Annotated[str, typer.Option(help="user/name once more, for --public.")] = "",
    accept_findings: Annotated[
        bool,
        typer.Option("--accept-findings", help="Send it with all that was found in its texts."),
    ] = False,
    use_login: Annotated[
        bool, typer.Option("--use-login", help="Use the token that `hf auth login` keeps.")
    ] = False,
    publication: Annotated[
        str, typer.Option(help="Send what this publication wrote, instead of writing it anew.")
    ] = "",
    json: Json = False,
) -> None:
    """Write adapter or merged model, model card and measurements; --hub sends them, privately."""
    home = Home()
    token = _checked_token(hub, public, confirm, use_login) if hub else ""
    if publication and not hub:
        raise RunError("--publication is for --hub", fix="Say where to: --hub user/name")
    if publication:
        written = Job(home.find("publish", publication))
    else:
        job = Job(home.find("train", run))
        require_finished(job)
        to = to or (None if hub else _FOLDER)
        title = name or (to.name if to else hub.partition("/")[2])
        target = str(Path(os.path.abspath(to.expanduser()))) if to else ""
        written = do(
            home, PublishRequest(run_id=job.id, form=form, name=title, to=target, zipped=zip)
        )
    if hub:
        written = _send(home, written, hub, not public, accept_findings, token, quiet=json)
    content = (written.folder / PUBLICATION).read_text(encoding="utf-8")
    done = Publication.model_validate_json(content)
    if json:
        say_json(done.model_dump(mode="json"))
        return
    if not hub:
        _say_files(f"{to} ({done.form})", done.files)
    say(parity_sentence(done.parity, done.effect))
    if done.archive:
        say(f"Also as {done.archive.name}, {done.archive.size_bytes:,} bytes.")
    if done.hub:
        seen = "private" if done.hub.private else "public"
        say(f"It is on the Hub, {seen}: {done.hub.url} at commit {done.hub.commit}")


def _checked_token(hub: str, public: bool, confirm: str, use_login: bool) -> str:
    """Refuse what cannot become a publication before anything slow is done."""
    from engine.publishing.hub_upload import check_repo_id, check_token, stored_login  # noqa: PLC0415
    from studio.publishing_check import confirm_public  # noqa: PLC0415

    check_repo_id(hub)
    if public:
        confirm_public(hub, confirm)
    return check_token(stored_login() if use_login else hub_token())


def _send(
    home: Home,
    written: Job,
    hub: str,
    private: bool,
    accept_findings: bool,
    token: str,
    *,
    quiet: bool,
) -> Job:
    from studio.publishing_check import published_folder, what_will_be_uploaded  # noqa: PLC0415

    outgoing = what_will_be_uploaded(published_folder(written))
    if not quiet:
        _say_files(f"To {hub}, {'private' if private else 'public'}", outgoing.files)
    if outgoing.findings and not quiet:
        rows = [(found.kind, found.file, found.where, found.excerpt) for found in outgoing.findings]
        say_table("Perhaps private", ("what", "file", "where", "text"), rows)
    if outgoing.findings and not accept_findings:
        places = ", ".join(f"{found.kind} in {found.file}" for found in outgoing.findings[:3])
        raise RunError(
            f"There may be something private in it: {places}",
            where=f"{len(outgoing.findings)} in all",
            fix="Change the title or the template; or accept them: "
            f"python app.py publish --hub {hub} --publication {written.id} --accept-findings",
        )
    request = written.request("publish")
    return do(
        home,
        PublishRequest(
            run_id=request["run_id"],
            name=request["name"],
            publication_id=written.id,
            repo_id=hub,
            private=private,
            acknowledged=tuple(found.id for found in outgoing.findings),
        ),
        token=token,
    )


def _say_files(title: str, files: tuple[PublishedFile, ...]) -> None:
    rows = [(file.name, f"{file.size_bytes:,}", file.sha256[:12]) for file in files]
    rows.append(("in all", f"{sum(file.size_bytes for file in files):,}", ""))
    say_table(title, ("file", "bytes", "sha256"), rows)
