import json

import pytest

from data_prep.mapping import ColumnMapping, examples_for_prediction, map_rows
from data_prep.table import Row
from templates.builtin import TEMPLATES
from templates.errors import DataError
from templates.example import Example, Turn
from templates.render import render


def rows(*cells: dict[str, str]) -> list[Row]:
    return [Row(number, number + 1, cell) for number, cell in enumerate(cells, 1)]


def test_labels() -> None:
    mapping = ColumnMapping(fields={"text": "body"}, label="team")
    examples, report = map_rows(
        rows({"body": " a ", "team": "x"}, {"body": "", "team": ""}),
        TEMPLATES["classification"],
        mapping,
    )
    assert examples == [
        Example({"text": " a "}, label="x", source_rows=(1,)),
        Example({"text": ""}, label="", source_rows=(2,)),
    ]
    assert (report.step, report.rows_in, report.rows_out) == ("map columns", 2, 2)
    assert mapping.columns() == {"text": "body", "label": "team"}


@pytest.mark.parametrize(
    ("cell", "references"),
    [
        ("one", ("one",)),
        ('["one", "two"]', ("one", "two")),
        ("[laughs] one", ("[laughs] one",)),
        ("[1, 2]", ("[1, 2]",)),
        ("[]", ("",)),
        ("", ("",)),
        ("[" * 100_000, ("[" * 100_000,)),
        ('["\\ud83d\\ude00"]', ("😀",)),
        ('["\\ud800"]', ('["\\ud800"]',)),
        ('["a"] b', ('["a"] b',)),
    ],
)
def test_references(cell: str, references: tuple[str, ...]) -> None:
    mapping = ColumnMapping(fields={"input": "a"}, references="b")
    (example,), _ = map_rows(rows({"a": "x", "b": cell}), TEMPLATES["generation"], mapping)
    assert example.references == references
    assert example.to_json().encode(), "no half of a character"


def test_an_empty_optional_slot_is_no_field() -> None:
    mapping = ColumnMapping(fields={"instruction": "i", "input": "n"}, references="o")
    found, _ = map_rows(
        rows({"i": "do", "n": " ", "o": "x"}, {"i": "", "n": "y", "o": "x"}),
        TEMPLATES["generation"],
        mapping,
    )
    assert [dict(example.fields) for example in found] == [{"instruction": "do"}, {"input": "y"}]


def test_conversations_that_cannot_be_learned_are_dropped_and_reported() -> None:
    good = json.dumps([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}])
    empty = json.dumps([{"role": "user", "content": "q"}, {"role": "assistant", "content": ""}])
    examples, report = map_rows(
        rows({"m": good}, {"m": empty}, {"m": ""}), TEMPLATES["chat"], ColumnMapping(turns="m")
    )
    assert examples == [
        Example(turns=(Turn("user", "q"), Turn("assistant", "a")), source_rows=(1,))
    ]
    assert (report.rows_in, report.rows_out, report.rows) == (3, 1, (2, 3))
    assert report.counts == {"an assistant turn is empty": 1, "the conversation is not JSON": 1}
    assert report.samples[0].row == 2 and report.samples[0].after is None


def test_a_slot_called_like_a_target_is_refused() -> None:
    with pytest.raises(ValueError, match="a slot cannot be called 'label'"):
        ColumnMapping(fields={"label": "a"})


def test_prediction_needs_only_the_inputs() -> None:
    columns = {"text": "body", "label": "team"}
    template = TEMPLATES["classification"]
    examples = examples_for_prediction(rows({"body": "a", "x": "y"}), template, columns)
    assert examples == [Example({"text": "a"}, source_rows=(1,))]
    assert render(examples[0], template).prompt.startswith("a")
    with pytest.raises(DataError, match=r"no column 'body' for text .*one of its columns: text"):
        examples_for_prediction(rows({"text": "a"}), template, columns)


def test_prediction_for_conversations() -> None:
    asked = json.dumps([{"role": "user", "content": "q"}])
    answered = json.dumps([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}])
    template, columns = TEMPLATES["chat"], {"turns": "m"}
    for example in examples_for_prediction(rows({"m": asked}, {"m": answered}), template, columns):
        assert example.turns == (Turn("user", "q"), Turn("assistant", ""))
        assert render(example, template).prompt == "q\n\n###\n\n"
    with pytest.raises(DataError, match=r"cannot be answered: .*not JSON \(row 1, line 2\)"):
        examples_for_prediction(rows({"m": "?"}), template, columns)


def test_a_new_table_may_lack_the_column_of_an_optional_slot() -> None:
    rows = [Row(1, 2, {"question": "Why?"})]
    columns = {"question": "question", "context": "context", "references": "answer"}
    found = examples_for_prediction(rows, TEMPLATES["question_answering"], columns)
    assert found[0].fields == {"question": "Why?"}
    with pytest.raises(DataError, match="no column 'question'"):
        examples_for_prediction([Row(1, 2, {"x": "y"})], TEMPLATES["question_answering"], columns)
