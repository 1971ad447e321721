import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_prep.mapping import ColumnMapping
from data_prep.recognition import explain, recognise, recognise_for
from data_prep.upload import load_upload

CHAT = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
SHARE = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]


def rows_like(row: dict[str, Any]) -> str:
    """Write a dozen rows in JSON Lines; {} becomes their number, AB one of two labels."""

    def fill(value: object, number: int) -> object:
        if isinstance(value, list):
            return value if isinstance(value[0], dict) else [fill(part, number) for part in value]
        text = str(value)
        return text[number % 2] if text in ("AB", "CD", "01") else text.format(number)

    return "\n".join(
        json.dumps({key: fill(value, number) for key, value in row.items()}) for number in range(12)
    )


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
    upload = load_upload(make_upload(rows_like(row), name="a.jsonl"))
    proposal = recognise(upload.columns)
    assert proposal.layout == layout
    assert proposal.mapping.columns() == columns


TABLES = {
    "tickets": {"id": "T{}", "text": "please {} do it", "team": "AB"},
    "pairs": {"a": "a first text {}", "b": "a longer second one {}", "same": "AB"},
    "questions": {"page": "a long page of {} words", "question": "why {}?", "reply": "so {}"},
    "chat": {"talk": CHAT, "topic": "AB"},
    "one column": {"text": "alone {}"},
}


@pytest.mark.parametrize(
    ("table", "task", "columns"),
    [
        ("tickets", "classification", {"text": "text", "label": "team"}),
        ("tickets", "generation", {"input": "text", "references": "team"}),
        ("pairs", "pair_classification", {"first": "a", "second": "b", "label": "same"}),
        ("pairs", "classification", {"text": "b", "label": "same"}),
        (
            "questions",
            "question_answering",
            {"context": "page", "question": "question", "references": "reply"},
        ),
        ("chat", "chat", {"turns": "talk"}),
        ("tickets", "chat", {}),
        ("one column", "classification", {"text": "text"}),
        ("one column", "question_answering", {"references": "text"}),
    ],
)
def test_the_best_mapping_for_a_chosen_task(
    table: str, task: Any, columns: dict[str, str], make_upload: Callable[..., Path]
) -> None:
    folder = make_upload(rows_like(TABLES[table]), name="a.jsonl")
    found = recognise_for(load_upload(folder).columns, task)
    assert found.template.task == task
    assert found.mapping.columns() == columns


def test_reasons(make_upload: Callable[..., Path]) -> None:
    row = {"id": "7", "words": "a long text about {}", "mood": "AB", "label": "CD"}
    columns = load_upload(make_upload(rows_like(row), name="a.jsonl")).columns
    mapping = recognise(columns).mapping
    reasons = explain(columns, mapping)
    assert reasons["label"] == "because the column is called 'label'"
    assert reasons["text"].startswith("because 'words' holds texts, ")
    told = explain(columns, mapping.model_copy(update={"label": "mood", "split": "mood"}))
    assert told["label"] == "because 'mood' has few different values (2)"
    assert "train, validation and test" in told["split"]
    assert explain(columns, ColumnMapping(turns="words"))["turns"].endswith("are conversations")
