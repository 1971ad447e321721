import json

import pytest

from data_prep.conversation import NoConversation, read_turns
from templates.example import Turn


def messages(*pairs: tuple[str, object], keys: tuple[str, str] = ("role", "content")) -> str:
    return json.dumps([dict(zip(keys, pair, strict=True)) for pair in pairs])


def test_both_layouts() -> None:
    turns = (Turn("system", "s"), Turn("user", "u"), Turn("assistant", "a"))
    assert read_turns(messages(("developer", "s"), ("user", "u"), ("assistant", "a"))) == turns
    share = messages(("system", "s"), ("human", "u"), ("gpt", "a"), keys=("from", "value"))
    assert read_turns(share) == turns
    assert read_turns(messages(("user", [{"type": "text", "text": "u"}]), ("assistant", "a")))


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("hello", "is not JSON"),
        ("[]", "no turns"),
        ('{"a": 1}', "no turns"),
        ("[1]", "not an object"),
        ('[{"content": "x"}]', "a turn has no role"),
        ("[" * 100_000, "is not JSON"),
        ("[" * 30 + "]" * 30, "is not JSON"),
        (messages(("user", "\ud800"), ("assistant", "x")), "is not JSON"),
        (messages(("user", float("nan")), ("assistant", "x")), "is not JSON"),
        ('[{"role": "user", "role": "system", "content": "x"}]', "is not JSON"),
        ("[] []", "is not JSON"),
        (messages(("tool", "x")), "the role 'tool' is unknown"),
        (messages(("+1 202 555 0178", "x")), "a role is unknown"),
        (messages(("user", None)), "a turn has no text"),
        (messages(("system", "a"), ("system", "b"), ("user", "c")), "two system turns"),
        (messages(("user", "a"), ("system", "b")), "system turn is not first"),
        (messages(("assistant", "a"), ("user", "b")), "before the first user turn"),
        (messages(("user", "a"), ("user", "b"), ("assistant", "c")), "do not alternate"),
        (messages(("user", "a"), ("assistant", " ")), "an assistant turn is empty"),
        (messages(("user", "a")), "does not end with an assistant turn"),
        (messages(("system", "a")), "does not end with an assistant turn"),
    ],
)
def test_refused(cell: str, reason: str) -> None:
    with pytest.raises(NoConversation, match=reason):
        read_turns(cell)


def test_whole_characters_written_as_escapes_are_read() -> None:
    assert read_turns(" " + messages(("user", "😀"), ("assistant", "é")) + "\n")[0].content == "😀"


def test_an_open_question_is_fine_for_prediction() -> None:
    assert read_turns(messages(("user", "a")), answered=False) == (Turn("user", "a"),)
