"""What is found in the texts of a published folder, and what is left alone."""

import json
from pathlib import Path

import pytest

from engine.publishing.publication import CARD, RECORD
from engine.publishing.publish import publish
from studio.publishing_check import (
    Outgoing,
    confirm_public,
    require_acknowledged,
    what_will_be_uploaded,
)
from templates.errors import RunError
from templates.files import sha256_of_file
from tests.engine.publishing.published import finished_run

SECRETS = (
    "hf_" + "aB3" * 11, "sk-proj-" + "x1" * 15, "ghp_" + "Z9" * 18, "AKIA" + "Q7" * 8,
    "github_pat_" + "a_" * 15, "-----BEGIN RSA PRIVATE KEY-----", "xoxb-1234567890-abcdef",
)  # fmt: skip


def folder_with(folder: Path, card: str = "", record: object = None) -> Path:
    (folder / CARD).write_text(f"---\nlicense: mit\n---\n{card}\n", encoding="utf-8")
    (folder / RECORD).write_text(json.dumps(record or {}), encoding="utf-8")
    return folder


def found(outgoing: Outgoing) -> list[tuple[str, str, str]]:
    return [(finding.kind, finding.file, finding.where) for finding in outgoing.findings]


@pytest.mark.parametrize("form", ["adapter", "merged"])
def test_an_ordinary_publication_has_none(tmp_path: Path, form: str) -> None:
    publication = publish(
        finished_run(tmp_path, "lora", compared=True), tmp_path / "out", form=form
    )
    outgoing = what_will_be_uploaded(tmp_path / "out")
    assert outgoing.findings == ()
    assert outgoing.files == publication.files
    assert outgoing.size_bytes == sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    assert outgoing.files[0].sha256 == sha256_of_file(tmp_path / "out" / outgoing.files[0].name)
    assert outgoing.card == (tmp_path / "out" / CARD).read_text()
    require_acknowledged(outgoing, ())


def test_what_belongs_to_a_card_is_left_alone(tmp_path: Path) -> None:
    card = """
    | Seed | 1234567890123 |
    | Trainable parameters | 4,111,222,333 (12.34 % of the base's) |
    | Data sha256 | `0123456789012345678901234567890123456789012345678901234567890123` |
    Run train-20261121-162703-123abcd from ds-4111111111111111aa, 81.2 (76.2 to 86.2), step 20000.
    Base `org/model-3.5-4k` at revision `41111111111111111234567890abcdef01234567`.
    schedule: learning_rate 0.0002, epochs 3, batch_size 16, seed 2024 11 21
    ask task sk-learn hf_model ghp_ AKIA
    """
    record = {"parity": 4111111111111111, "run_id": "train-20261121-162703-123abcd", "x": [1.5]}
    assert what_will_be_uploaded(folder_with(tmp_path, card, record)).findings == ()


def test_everything_private_is_found_where_it_is(tmp_path: Path) -> None:
    record = {
        "name": "x",
        "prompt": {
            "template": {
                "wording": "one\nask bob.o@example.org about {text}",
                "verbalizer": {"call +44 20 7946 0958": "card 4111 1111 1111 1111"},
            },
            "labels": ["ok", "to me@example.com"],
        },
    }
    outgoing = what_will_be_uploaded(folder_with(tmp_path, "\nwrite to a.b@example.com", record))
    assert found(outgoing) == [
        ("e-mail address", CARD, "line 5"),
        ("e-mail address", RECORD, "prompt.template.wording"),
        ("phone number", RECORD, "prompt.template.verbalizer"),
        ("payment card number", RECORD, "prompt.template.verbalizer.call [PHONE]"),
        ("e-mail address", RECORD, "prompt.labels.2"),
    ]
    shown = outgoing.model_dump_json(exclude={"card", "files"})
    for private in ("a.b@", "bob.o", "7946", "4111 1111", "me@example"):
        assert private not in shown
    assert outgoing.findings[1].excerpt == "ask [EMAIL] about {text}"


@pytest.mark.parametrize("number", range(len(SECRETS)))
def test_keys_are_found_and_not_shown(tmp_path: Path, number: int) -> None:
    secret = SECRETS[number]
    outgoing = what_will_be_uploaded(folder_with(tmp_path, f"use {secret} here"))
    assert found(outgoing) == [("key or token", CARD, "line 4")]
    assert outgoing.findings[0].excerpt == "use [KEY] here"


def test_a_base_folder_is_looked_at_too(tmp_path: Path) -> None:
    folder_with(tmp_path)
    config = {"base_model_name_or_path": "./alice@example.com"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    [finding] = what_will_be_uploaded(tmp_path).findings
    assert (finding.file, finding.where) == ("adapter_config.json", "base_model_name_or_path")


def test_each_finding_is_accepted_by_itself(tmp_path: Path) -> None:
    folder_with(tmp_path, "a@example.com\nb@example.com\na@example.com", {"name": "a@example.com"})
    outgoing = what_will_be_uploaded(tmp_path)
    ids = [finding.id for finding in outgoing.findings]
    assert len(set(ids)) == len(ids) == 4
    assert [finding.id for finding in what_will_be_uploaded(tmp_path).findings] == ids
    with pytest.raises(RunError, match=r"e-mail address in README.md and 3 more \(line 4\)"):
        require_acknowledged(outgoing, ())
    with pytest.raises(RunError, match=r"README.md \(line 6\)"):
        require_acknowledged(outgoing, [*ids[:2], ids[3]])
    require_acknowledged(outgoing, ids)
    folder_with(tmp_path, "c@example.com")  # another text at an accepted place
    with pytest.raises(RunError):
        require_acknowledged(what_will_be_uploaded(tmp_path), ids)


def test_a_long_line_is_shown_around_what_was_found(tmp_path: Path) -> None:
    folder_with(tmp_path, "x " * 500 + "a@example.com" + " y" * 500)
    excerpt = what_will_be_uploaded(tmp_path).findings[0].excerpt
    assert "[EMAIL]" in excerpt and len(excerpt) < 130
    assert excerpt.startswith("…") and excerpt.endswith("…")


@pytest.mark.parametrize("typed", ["", "alice", "alice/ticket", "Alice/tickets", "yes"])
def test_a_public_model_needs_its_name(typed: str) -> None:
    with pytest.raises(RunError, match="Type its whole name"):
        confirm_public("alice/tickets", typed)
    confirm_public("alice/tickets", " alice/tickets ")
