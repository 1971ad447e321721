"""Texts of the publish step that need no browser."""

import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from engine.publishing.hub_upload import TokenOwner
from engine.publishing.publication import HubCommit
from engine.service import describe_methods
from studio.pages.publish_forms import KnownForms, forms_of, forms_view
from studio.pages.publish_hub import goes_view, owner_view, repo_name, repo_problem
from studio.pages.publish_views import finding_choices, findings_view, next_view, sent_view
from studio.publishing_check import Finding
from templates.errors import RunError

NAUGHTY = "<img src=x onerror=alert(1)>"


def test_the_engine_tells_every_methods_forms() -> None:
    methods = describe_methods()["methods"]
    found = {name: forms_of(described) for name, described in methods.items()}
    assert all(found.values())
    assert found["lora"] == ("adapter", "merged")
    assert found["full"] == ("merged",)
    assert found["prompt_tuning"] == ("adapter",)


def test_a_form_that_cannot_be_had_says_why() -> None:
    view = str(forms_view(("merged",), "merged", {}))
    assert view.count(" disabled") == 1 and view.count(" checked") == 1
    assert "changes the base itself" in view
    assert "looking up" in forms_view(None, None, {})


def wait_for_forms(forms: KnownForms, method: str) -> Any:
    for _ in range(500):
        if (found := forms.of(method)) is not None:
            return found
        threading.Event().wait(0.01)
    raise AssertionError("nobody answered")


def test_the_engine_is_asked_once_for_all_methods() -> None:
    asked: list[str] = []

    def call(operation: str) -> dict[str, Any]:
        asked.append(operation)
        return {"methods": {"lora": {"publishes_adapter": True, "publishes_merged": False}}}

    forms = KnownForms(SimpleNamespace(engine=SimpleNamespace(call=call)))  # type: ignore[arg-type]
    assert wait_for_forms(forms, "lora") == ("adapter",)
    assert forms.of("lora") == ("adapter",) and asked == ["methods"]


def test_an_engine_that_cannot_start_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def call(operation: str) -> dict[str, Any]:
        asked.append(operation)
        raise RunError("It does not start", fix="Wait")

    forms = KnownForms(SimpleNamespace(engine=SimpleNamespace(call=call)))  # type: ignore[arg-type]
    assert wait_for_forms(forms, "lora") == ("adapter", "merged")
    forms.of("full")
    assert asked == ["methods"]
    minute_later = time.monotonic() + 61
    monkeypatch.setattr("studio.pages.publish_forms.time", SimpleNamespace(
        monotonic=lambda: minute_later
    ))  # fmt: skip
    assert forms.of("full") is None  # it is asked again
    assert wait_for_forms(forms, "full") == ("adapter", "merged")
    assert asked == ["methods", "methods"]


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("Support tickets!", "support-tickets"),
        ("  --A..B--  ", "a-b"),
        ("日本語", "tuned-model"),
        (NAUGHTY, "img-src-x-onerror-alert-1"),
        ("x" * 300, "x" * 96),
    ],
    ids=["words", "signs", "other-letters", "naughty", "long"],
)
def test_a_title_becomes_a_name_that_the_hub_takes(title: str, name: str) -> None:
    assert repo_name(title) == name
    assert repo_problem(f"alice/{name}") is None


def test_a_name_is_checked_as_it_is_typed() -> None:
    assert repo_problem("") is None
    for wrong in ("alice", "alice/", "a b/c", "alice/../x", "alice/x--y", f"alice/{NAUGHTY}"):
        problem = repo_problem(wrong)
        assert problem is not None and problem.fix, wrong


def test_findings_are_masked_and_ticked_one_by_one() -> None:
    finding = Finding(
        id="1", file="README.md", where="line 3", kind="e-mail address", excerpt="ask [EMAIL]\u202e"
    )
    assert finding_choices((finding,)) == [
        ("E-mail address in README.md, line 3: ask [EMAIL]\\u202e", "1")
    ]
    assert "1 place may hold something private" in findings_view((finding,))
    assert "Nothing private was found" in findings_view(())


def test_where_it_is_tells_who_can_see_it() -> None:
    sent = HubCommit(
        url="https://huggingface.co/alice/x", repo_id="alice/x", commit="a" * 40,
        revision_parent="b" * 40, is_new_repo=True, private=True,
    )  # fmt: skip
    view = str(sent_view(sent))
    assert "private" in view and 'rel="noreferrer noopener"' in view and "a" * 40 in view
    assert "everybody can see it" in sent_view(sent.model_copy(update={"private": False}))
    assert "alice/x" in next_view(sent) and "Unpack the zip" in next_view(None)
    assert goes_view(None, "alice/x", is_private=True) == ""


def test_whose_login_it_is() -> None:
    assert "a-team" in owner_view(TokenOwner("alice", ("a-team",), True))
    assert "may only read" in owner_view(TokenOwner("alice", (), False))
    assert "<img" not in owner_view(TokenOwner(NAUGHTY, (NAUGHTY,), True))
