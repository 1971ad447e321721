import json
from pathlib import Path

from data_prep.exports import export_messages, export_prompt_completion
from templates.builtin import TEMPLATES
from templates.example import Example, Turn

CLASSIFY = TEMPLATES["classification"].model_copy(update={"verbalizer": {"0": "no"}})
EXAMPLES = [
    Example({"text": "is {it}?"}, label="0", source_rows=(1,)),
    Example({"text": "é\n"}, label="1", source_rows=(2,)),
]
CHAT = Example(
    turns=(
        Turn("system", "s"),
        Turn("user", "q1"),
        Turn("assistant", "a1"),
        Turn("user", "q2"),
        Turn("assistant", "a2"),
    )
)


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_prompt_completion(tmp_path: Path) -> None:
    assert export_prompt_completion(EXAMPLES, CLASSIFY, tmp_path / "a.jsonl") == 2
    assert lines(tmp_path / "a.jsonl") == [
        {"prompt": "is {it}?\n\n###\n\n", "completion": " no END"},
        {"prompt": "é\n\n\n###\n\n", "completion": " 1 END"},
    ]
    export_prompt_completion([CHAT], TEMPLATES["chat"], tmp_path / "b.jsonl")
    (line,) = lines(tmp_path / "b.jsonl")
    assert line["prompt"] == "s\n\nq1\n\n###\n\n a1 END\n\nq2\n\n###\n\n"
    assert line["completion"] == " a2 END"


def test_messages(tmp_path: Path) -> None:
    assert export_messages(EXAMPLES[:1], CLASSIFY, tmp_path / "a.jsonl") == 1
    assert lines(tmp_path / "a.jsonl") == [
        {
            "messages": [
                {"role": "user", "content": "is {it}?"},
                {"role": "assistant", "content": "no"},
            ]
        }
    ]
    export_messages([CHAT], TEMPLATES["chat"], tmp_path / "b.jsonl")
    messages = lines(tmp_path / "b.jsonl")[0]["messages"]
    assert messages == [{"role": turn.role, "content": turn.content} for turn in CHAT.turns]
