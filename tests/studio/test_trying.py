import pytest

from studio.trying import tried_example
from templates.builtin import TEMPLATES
from templates.errors import DataError
from templates.example import Turn

PAIR = TEMPLATES["pair_classification"]
ANSWERING = TEMPLATES["question_answering"]


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
