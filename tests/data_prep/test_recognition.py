import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_prep.recognition import recognise
from data_prep.upload import load_upload

CHAT = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
SHARE = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]


@pytest.mark.parametrize(
    ("row", "layout", "columns"),
    [
        (
            {"instruction": "Do {}", "input": "on {}", "output": "done {}"},
            "alpaca",
            {"instruction": "instruction", "input": "input", "references": "output"},
        ),
        (
            {"instruction": "Do {}", "response": "done {}"},
            "alpaca",
            {"instruction": "instruction", "references": "response"},
        ),
        (
            {"Prompt": "Do {}", "Completion": "done {}"},
            "prompt and completion",
            {"input": "Prompt", "references": "Completion"},
        ),
        (
            {"question": "Why {}?", "answer": "so {}"},
            "question and answer",
            {"question": "question", "references": "answer"},
        ),
        (
            {"context": "It is {}", "question": "What is {}?", "answer": "{}"},
            "question and answer",
            {"question": "question", "context": "context", "references": "answer"},
        ),
        (
            {"premise": "It is {}", "hypothesis": "It was {}", "label": "AB"},
            "sentence pair",
            {"first": "premise", "second": "hypothesis", "label": "label"},
        ),
        (
            {"ticket_id": "T{}", "text": "Please {}", "team": "AB"},
            "text and label",
            {"text": "text", "label": "team"},
        ),
        (
            {"id": "7", "words": "a long text about {}", "mood": "AB"},
            "text and label",
            {"text": "words", "label": "mood"},
        ),
        (
            {"text": "text {}", "label": "01"},
            "text and label",
            {"text": "text", "label": "label"},
        ),
        (
            {"mr": "name[{}]", "ref": "It is called {}"},
            "text and answer",
            {"input": "mr", "references": "ref"},
        ),
        (
            {"category": "AB", "triples": "a | b | {}", "texts": ["one {}", "two"]},
            "text and answer",
            {"input": "triples", "references": "texts"},
        ),
        ({"id": "c{}", "messages": CHAT}, "messages", {"turns": "messages"}),
        ({"conversations": SHARE}, "ShareGPT", {"turns": "conversations"}),
        ({"note": "only {}"}, "text and answer", {"input": "note"}),
    ],
)
def test_layouts(
    row: dict[str, Any], layout: str, columns: dict[str, str], make_upload: Callable[..., Path]
) -> None:
    def fill(value: object, number: int) -> object:
        if isinstance(value, list):
            return value if isinstance(value[0], dict) else [fill(part, number) for part in value]
        text = str(value)
        return text[number % 2] if text in ("AB", "01") else text.format(number)

    lines = [
        json.dumps({key: fill(value, number) for key, value in row.items()}) for number in range(12)
    ]
    upload = load_upload(make_upload("\n".join(lines), name="a.jsonl"))
    proposal = recognise(upload.columns)
    assert proposal.layout == layout
    assert proposal.mapping.columns() == columns
