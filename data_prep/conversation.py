"""A cell with a conversation in JSON -> turns; ShareGPT and messages layouts."""

import re
from itertools import pairwise
from typing import Any

from data_prep.json_text import load_cell
from templates.errors import DataError
from templates.example import Role, Turn

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "chatgpt": "assistant",
}
_ROLE_NAME = re.compile(r"[A-Za-z_-]{1,20}")


class NoConversation(ValueError):
    """The cell is not a conversation that can be learned; the message says why."""


def read_turns(cell: str, *, answered: bool = True) -> tuple[Turn, ...]:
    """Read `[{"role": …, "content": …}]` or `[{"from": …, "value": …}]`.

    Args:
        cell: JSON text.
        answered: whether the conversation must end with an assistant turn.

    Returns:
        The turns: at most one system turn first, then user and assistant in alternation.

    Raises:
        NoConversation: roles are missing, unknown or out of order, or an answer is empty.
    """
    try:
        messages = load_cell(cell)
    except DataError:
        raise NoConversation("the conversation is not JSON") from None
    if not isinstance(messages, list) or not messages:
        raise NoConversation("the conversation has no turns")
    turns = tuple(_read_turn(message) for message in messages)
    _check_order(turns, answered)
    return turns


def _read_turn(message: Any) -> Turn:
    if not isinstance(message, dict):
        raise NoConversation("a turn is not an object")
    role = message.get("role", message.get("from"))
    if role is None:
        raise NoConversation("a turn has no role")
    if str(role).lower() not in _ROLES:
        # The reason is kept with the dataset, so it repeats a role's name and never a text.
        shown = f"the role {role!r}" if _ROLE_NAME.fullmatch(str(role)) else "a role"
        raise NoConversation(f"{shown} is unknown")
    content = message.get("content", message.get("value"))
    if isinstance(content, list) and all(
        isinstance(part, dict) and isinstance(part.get("text"), str) for part in content
    ):
        content = "".join(part["text"] for part in content)
    if not isinstance(content, str):
        raise NoConversation("a turn has no text")
    return Turn(_ROLES[str(role).lower()], content)


def _check_order(turns: tuple[Turn, ...], answered: bool) -> None:
    roles = [turn.role for turn in turns]
    if roles.count("system") > 1:
        raise NoConversation("there are two system turns")
    if "system" in roles[1:]:
        raise NoConversation("the system turn is not first")
    spoken = roles[roles.count("system") :]
    if spoken[:1] == ["assistant"]:
        raise NoConversation("an assistant turn comes before the first user turn")
    if any(first == second for first, second in pairwise(spoken)):
        raise NoConversation("user and assistant turns do not alternate")
    if any(turn.role == "assistant" and not turn.content.strip() for turn in turns):
        raise NoConversation("an assistant turn is empty")
    if not spoken or (answered and spoken[-1] != "assistant"):
        raise NoConversation("the conversation does not end with an assistant turn")
