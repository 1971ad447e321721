"""What the plan step keeps, and what it does when the engine cannot be asked."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from studio.home import Home
from studio.pages.plan_desk import Desk
from studio.pages.plan_methods import build_methods
from studio.server import Server
from templates.errors import RunError


def test_an_engine_that_does_not_answer_is_told_until_it_does(tmp_path: Path) -> None:
    server = Server(Home(tmp_path))
    answers: list[Any] = [
        RunError("The engine did not start", fix="Try again in a moment"),
        {"methods": {"lora": {"title": "LoRA", "when_to_choose": "Begin here."}}},
    ]

    def call(operation: str) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    server.engine = SimpleNamespace(call=call)  # type: ignore[assignment]
    desk, project = Desk(server), server.projects.new("Tickets")
    part, _, _ = build_methods(desk)
    assert "Looking at your data" in part.show(project)[0]

    desk.ask(project)
    assert desk.trouble is not None
    shown = part.show(project)[0]
    assert "The engine did not start" in shown and "Try again</button>" in shown
    assert "Looking at your data" not in shown

    desk.ask(project)
    assert desk.trouble is None
    shown = part.show(project)[0]
    assert "LoRA" in shown and "did not start" not in shown
