"""What is published, its files, what was found in them, and how it is used, as pieces of a page."""

from collections.abc import Mapping
from pathlib import Path, PurePath

from markupsafe import Markup

from engine.comparing.comparison import Outcome
from engine.publishing.publication import HubCommit, parity_sentence
from engine.publishing.snippet import Snippet, snippets
from studio.commands import publish_command
from studio.pages.compare_verdict import headline
from studio.pages.publish_forms import TITLES
from studio.pages.publish_subject import Subject, Written
from studio.publishing_check import Finding
from studio.runs.about import read_about
from studio.web.choices import send_button
from studio.web.html import (
    Tone,
    badge,
    callout,
    code,
    details,
    join,
    section,
    table,
    tiles,
    visible,
)
from studio.web.words import count, size

FILE_TARGET = "publish-file"
_SHORT_HASH, _SHORT_COMMIT, _MOST_CHARACTERS = 12, 10, 60
_TONES: Mapping[Outcome, Tone] = {"better": "good", "worse": "bad", "cannot tell": "warn"}
_ABOUT = {
    "README.md": "model card",
    "adapter_config.json": "says where the adapter belongs",
    "adapter_model.safetensors": "what was learned",
    "model.safetensors": "all weights",
    "config.json": "architecture of the model",
    "generation_config.json": "how it writes",
    "tokenizer.json": "how text becomes tokens",
    "tokenizer_config.json": "settings of the tokenizer",
    "chat_template.jinja": "how a conversation is written",
    "studio_run.json": "plan, hashes and measurements",
}
_NO_OLLAMA = "Ollama reads whole models. Choose “Merged model” above, make it, and look here again."
_NO_VLLM = (
    "vLLM cannot serve what this method learns as an adapter. If the method can be merged, make "
    "the merged model above and look here again."
)


def subject_view(subject: Subject) -> Markup:
    """Say what is published, and how good it was measured to be.

    Args:
        subject: has a run.

    Returns:
        A verdict, or an honest word where there is none; then the facts.
    """
    assert subject.run is not None and subject.plan is not None
    plan, comparison = subject.plan, subject.comparison
    if comparison is None:
        verdict = callout(
            "warn", "Nobody has compared this run with prompting yet",
            "The model card will say that nothing was measured.",
            fix="Open Compare first, if people shall know how good it is",
        )  # fmt: skip
    else:
        verdict = callout(
            _TONES[comparison.outcome], headline(comparison),
            "The model card tells it with all numbers, whatever the outcome is.",
        )  # fmt: skip
    name = read_about(subject.run).name or subject.run.id
    base = plan.base.id if not plan.base.id.startswith("/") else PurePath(plan.base.id).name
    facts = tiles((
        ("Run", visible(name, _MOST_CHARACTERS)),
        ("Method", plan.method.name.replace("_", " ")),
        ("Base", visible(base, _MOST_CHARACTERS)),
    ))  # fmt: skip
    return Markup('<div class="ts-publish-facts">{}{}</div>').format(verdict, facts)


def written_view(written: Written) -> Markup:
    """Show a folder: that it is right, and its files.

    Args:
        written: the folder.

    Returns:
        A message and a table.
    """
    publication = written.publication
    kind = TITLES[publication.form].lower()
    good = callout(
        "good", f"The {kind} is written and checked",
        "The files were read back and asked a few real examples. "
        f"{parity_sentence(publication.parity, publication.effect)}",
    )  # fmt: skip
    rows: list[tuple[object, ...]] = [
        (
            visible(file.name), _ABOUT.get(file.name, ""), size(file.size_bytes),
            Markup('<code title="{}">{}</code>').format(file.sha256, file.sha256[:_SHORT_HASH]),
            send_button(
                "Download", file.name, target=FILE_TARGET, label=f"Download {visible(file.name)}"
            ),
        )
        for file in publication.files
    ]  # fmt: skip
    whole = size(sum(file.size_bytes for file in publication.files))
    rows.append((count(len(rows), "file"), "in all", whole, "", ""))
    listed = table(
        ("File", "What it is", "Size", "SHA-256", "Download"), rows,
        caption="Files of the published model", numeric=(2,),
    )  # fmt: skip
    return join((good, section("The files", "These, and nothing else, are published."), listed))


def findings_view(findings: tuple[Finding, ...]) -> Markup:
    """Say whether something in the texts should perhaps stay at home.

    Args:
        findings: what was found.

    Returns:
        A message.
    """
    what = (
        "Card, wording, labels and settings were searched for e-mail addresses, phone numbers, "
        "payment card numbers and keys."
    )
    if not findings:
        return callout("good", "Nothing private was found in its texts", (
            f"{what} Names of people cannot be found this way: read the card yourself."
        ))  # fmt: skip
    return callout(
        "warn", f"{count(len(findings), 'place')} may hold something private", what,
        fix="Change the title above and make the folder again; wording and labels come from "
        "Prepare. Or tick below what may be seen all the same",
    )  # fmt: skip


def finding_choices(findings: tuple[Finding, ...]) -> list[tuple[str, str]]:
    """Put findings as things to tick.

    Args:
        findings: what was found.

    Returns:
        Words and id of each.
    """
    return [
        (
            f"{found.kind[0].upper()}{found.kind[1:]} in {found.file}, {visible(found.where, 80)}: "
            f"{visible(found.excerpt)}",
            found.id,
        )
        for found in findings
    ]


def snippet_views(written: Written) -> tuple[Markup, Markup, Markup]:
    """Show how the model is used.

    Args:
        written: the folder.

    Returns:
        For transformers, vLLM and Ollama: code to copy, or why there is none.
    """
    known = dict(snippets(written.record))
    title = "transformers" if written.record.form == "merged" else "transformers + peft"
    return (
        _snippet(known.get(title), title, ""),
        _snippet(known.get("vLLM"), "vLLM", _NO_VLLM),
        _snippet(known.get("Ollama"), "Ollama", _NO_OLLAMA),
    )


def _snippet(snippet: Snippet | None, title: str, missing: str) -> Markup:
    if snippet is None:
        return callout("plain", "Not for this form", missing)
    return code(snippet.code.rstrip(), label=f"Code for {title}")


def sent_view(sent: HubCommit) -> Markup:
    """Say where the model is on the Hub.

    Args:
        sent: what the Hub told.

    Returns:
        A message with the address and the commit.
    """
    seen = badge("private", "plain") if sent.private else badge("public", "busy")
    who = "only you and who you let in can see it" if sent.private else "everybody can see it"
    head = Markup("<strong>{}</strong> {} {}").format(sent.repo_id, seen, who)
    commit = Markup(
        'At commit <code title="{}">{}</code>: whoever loads it can name that commit, to get these '
        "very files."
    ).format(sent.commit, sent.commit[:_SHORT_COMMIT])
    link = Markup(
        '<a href="{}" target="_blank" rel="noreferrer noopener">Open it on the Hub</a>'
    ).format(sent.url)
    lines = Markup('<span class="ts-publish-line">{}</span>')
    return join((
        callout("good", "Your model is published", join(map(lines.format, (head, commit, link)))),
        code(sent.url, label="Address on the Hub"),
    ))  # fmt: skip


def next_view(sent: HubCommit | None) -> Markup:
    """Say what can be done now.

    Args:
        sent: where it is on the Hub, if it is there.

    Returns:
        A few sentences.
    """
    where = (
        Markup("Where the code says the folder, <code>{}</code> does as well.").format(sent.repo_id)
        if sent
        else "Unpack the zip where the code shall run."
    )
    items = (
        Markup("<b>Use it.</b> Copy the code of “How it is used”. {}").format(where),
        Markup("<b>Try it.</b> Compare has a box that asks the tuned model and the base at once."),
        Markup("<b>Go on.</b> Another table, another project: this one stays as it is."),
    )
    listed = Markup('<ul class="ts-publish-next">{}</ul>').format(
        join(map(Markup("<li>{}</li>").format, items))
    )
    return join((section("What now?"), listed))


def commands_view(subject: Subject, title: str, repo_id: str) -> Markup:
    """Show the same on a command line.

    Args:
        subject: has a run.
        title: on the card.
        repo_id: where on the Hub; empty: nobody has said.

    Returns:
        A disclosure.
    """
    assert subject.run is not None
    form = subject.written.publication.form if subject.written else None
    run = subject.run.id
    lines = [publish_command(run, Path("my-model"), form=form, name=title, zipped=True)]
    lines.append(publish_command(run, form=form, name=title, repo_id=repo_id or "user/name"))
    words = Markup('<p class="ts-soft">{}</p>').format(
        "The second line sends it to the Hub, privately; it reads the token in HF_TOKEN."
    )
    shown = code(visible("\n".join(lines)), label="publish")
    return details("The same on a command line", join((shown, words)))
