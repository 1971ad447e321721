import json

import pytest

from data_prep.json_lines import read_json_table
from data_prep.table import Table, collect
from templates.errors import DataError


def read(text: str, name: str = "a.jsonl") -> Table:
    return collect(read_json_table([text], name=name, encoding="utf-8"))


def test_lines() -> None:
    table = read('{"a": "x", "b": 1}\r\n\n{"b": 2.5, "c": null}\n{"a": true}')
    assert (table.format, table.columns, table.lines) == ("jsonl", ("a", "b", "c"), [1, 3, 4])
    assert table.cells == [["x", "1", ""], ["", "2.5", ""], ["true", "", ""]]
    assert table.notes == ("3 row(s) lack some of the columns; these cells are empty",)


def test_nested_values_stay_json_text() -> None:
    table = read('{"m": [{"role": "user", "content": "é"}], "o": {"k": 1}, "t": "[x]"}\n')
    assert table.json_columns == {"m", "o"}
    assert json.loads(table.cells[0][0]) == [{"role": "user", "content": "é"}]
    assert table.cells[0][2] == "[x]"


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_an_array_knows_the_line_of_each_element(name: str) -> None:
    table = read('[\n {"a": 1},\n\n {"a":\n 2}, {"a": 3}]\n', name)
    assert (table.format, table.lines) == ("json", [2, 4, 5])
    assert table.cells == [["1"], ["2"], ["3"]]


def test_an_object_with_one_list() -> None:
    table = read('{"version": {"data": [1]},\n "data": [\n{"a": 1},\n{"a": 2}], "n": 2}', "a.json")
    assert (table.lines, table.cells) == ([3, 4], [["1"], ["2"]])


def test_lines_behind_the_ending_json() -> None:
    assert read('{"a": 1}\n{"a": 2}\n', "a.json").format == "jsonl"
    with pytest.raises(DataError, match="line 2"):
        read('{"a": 1}\n{"a": \n', "a.json")


def test_one_object_on_one_line_is_a_row_of_jsonl() -> None:
    assert read('{"a": [1]}').cells == [["[1]"]]


def test_broken_document_names_its_line() -> None:
    with pytest.raises(DataError, match=r"expecting value at character 7 \(a.json, line 3\)"):
        read('{"a":\n1,\n"b": [tru]}', "a.json")


def test_odd_keys() -> None:
    assert read('{"": 1, " a": 2, "a": 3}').columns == ("column 1", "a", "a (2)")


def test_u2028_in_a_string_is_no_line_end() -> None:
    assert read('{"a": "x\u2028y"}\n{"a": "z"}').cells == [["x\u2028y"], ["z"]]


def test_a_cell_above_the_limit() -> None:
    assert len(read('{"a": "' + "x" * 5_000_000 + '"}').cells[0][0]) == 5_000_000
    with pytest.raises(DataError, match=r"10,000,000 characters \(a.jsonl, line 2\)"):
        read('{"a": 1}\n{"a": "' + "x" * 10_000_001 + '"}')


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_pieces_make_no_difference(size: int) -> None:
    text = '\n{"a": "x\u2028y"}\r\n\r{"b": [1]}\r\n{"a": "z", "b": 2}'
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    for name in ("a.jsonl", "a.json"):
        table = collect(read_json_table(pieces, name=name, encoding="utf-8"))
        assert table.cells == [["x\u2028y", ""], ["", "[1]"], ["z", "2"]]
        assert table.lines == [2, 4, 5] and table.json_columns == {"b"}


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("a.jsonl", '{"a": 1}\n{"a": 2}\n{"a"', "jsonl"),
        ("a.json", '{"a": 1}\n{"a": 2}\n{"a"', "jsonl"),
        ("a.json", '[{"a": 1}, {"a": 2}, {"a"', "json"),
        ("a.json", '[{"a": 1}, {"a": 2}', "json"),
        ("a.json", '{"v": "1", "data": [{"a": 1}, {"a": 2}, {"a', "json"),
    ],
)
def test_a_beginning_leaves_its_last_row_out(name: str, text: str, kind: str) -> None:
    table = collect(read_json_table([text], name=name, encoding="utf-8", is_cut=True))
    assert (table.format, table.cells) == (kind, [["1"], ["2"]])


def test_too_many_keys_are_refused_before_they_fill_the_memory() -> None:
    with pytest.raises(DataError, match="501 columns"):
        read("".join(f'{{"key {number}": 1}}\n' for number in range(100_000)))
