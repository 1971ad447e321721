"""What the documents say is what the code does."""

import re
from pathlib import Path

from docs.methods import README, with_table
from docs.reliability import NOT_YET, PAGE, faults, page
from engine.methods import all_methods
from studio.verbs import app
from tests.engine.architectures import KINDS

ROOT = Path(__file__).parents[1]


def test_the_method_table_is_fresh() -> None:
    text = README.read_text(encoding="utf-8")
    assert text == with_table(text), "run: python -m docs.methods"
    assert all(f"| `{name}` |" in text for name in all_methods())


def test_the_kinds_of_model_in_the_readme_are_those_that_are_tested() -> None:
    section = README.read_text(encoding="utf-8").split("### Kinds of model")[1].split("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == ["model_type", *KINDS]


def test_the_page_of_faults_is_fresh_and_leaves_none_out() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m docs.reliability"
    assert {fault.number for fault in faults()} | set(NOT_YET) == set(range(1, 27))


def test_every_verb_is_in_the_readme() -> None:
    text = README.read_text(encoding="utf-8")
    for command in app.registered_commands:
        assert f"**{command.name or command.callback.__name__}**" in text
    assert "**jobs**" in text


def test_the_two_commands_stand_on_top() -> None:
    head = README.read_text(encoding="utf-8").splitlines()[:6]
    assert any(line.startswith("make run") for line in head)
    assert any(line.startswith("make test") for line in head)


def test_every_path_named_in_the_documents_exists() -> None:
    for name in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        for path in re.findall(r"`((?:[a-z_]+/)+[a-z_.]*)`", text):
            assert (ROOT / path).exists(), f"{name} names {path}"


def test_torch_is_pinned_exactly() -> None:
    pins = (ROOT / "requirements.txt").read_text().split("\n")
    assert "torch==2.13.0" in pins
    assert all("==" in pin for pin in pins if pin and not pin.startswith("#"))
