import sys
import threading
import time

import pytest

from studio.child_service import ChildService, ChildWords
from studio.trying import Tries, tried_example
from templates.builtin import TEMPLATES
from templates.errors import DataError, RunError
from templates.example import Turn

PAIR = TEMPLATES["pair_classification"]
ANSWERING = TEMPLATES["question_answering"]
SLOW_LOADER = """
import time
from templates.service import Nothing, Operation, Server, Service, take_pipes

def load(request):
    time.sleep(30)
    yield Nothing()

operations = {"try": Operation(Nothing, load), "ping": Operation(Nothing, lambda request: 1)}
Service(*take_pipes(), Server("engine", operations, lambda error: False, "")).serve()
"""


def test_texts_go_to_their_fields_as_they_are() -> None:
    texts = dict.fromkeys(PAIR.slots, " {text} END ")
    assert tried_example(PAIR, texts).fields == texts


def test_what_the_user_says_begins_a_conversation() -> None:
    example = tried_example(TEMPLATES["chat"], {"user": "hello"})
    assert example.turns == (Turn("user", "hello"),)


def test_an_optional_field_without_text_is_no_field() -> None:
    optional = [slot for slot in ANSWERING.slots if slot in ANSWERING.optional_slots]
    needed = [slot for slot in ANSWERING.slots if slot not in ANSWERING.optional_slots]
    texts = {**dict.fromkeys(needed, "why?"), **dict.fromkeys(optional, "  ")}
    assert optional and set(tried_example(ANSWERING, texts).fields) == set(needed)


@pytest.mark.parametrize(
    ("task", "texts", "words"),
    [
        ("chat", {"user": " \n"}, "nothing to answer"),
        ("chat", {}, "nothing to answer"),
        ("classification", {"text": ""}, "'text' has no text"),
        ("pair_classification", {PAIR.slots[0]: "one"}, f"{PAIR.slots[1]!r} has no text"),
    ],
)
def test_what_cannot_be_answered_is_said(task: str, texts: dict[str, str], words: str) -> None:
    with pytest.raises(DataError, match=words):
        tried_example(TEMPLATES[task], texts)


def test_stop_ends_a_try_that_has_not_said_a_word() -> None:
    words = ChildWords(name="engine", too_slow="Wait", too_large="Try again")
    with ChildService([sys.executable, "-c", SLOW_LOADER], words) as engine:
        engine.call("ping")
        tries = Tries(engine)
        tries.stop("project-1")  # without one, nothing
        with tries.answer("project-1", {}) as answer:
            assert tries.is_busy("project-1") and not tries.is_busy("project-2")
            with pytest.raises(RunError, match="being answered"), tries.answer("project-1", {}):
                pass
            assert tries.is_busy("project-1"), "the refused one has ended nothing"
            begun = time.monotonic()
            threading.Timer(0.5, tries.stop, ["project-1"]).start()
            assert list(answer) == [] and answer.result is None
        assert time.monotonic() - begun < 10
        assert not tries.is_busy("project-1")
        assert engine.call("ping", timeout_seconds=10) == 1, "the turn is free"
