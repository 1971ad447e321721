import csv
import io
import json

import pytest

from studio.answer_files import as_csv, as_jsonl

ROWS = [{"row": 1, "text": 'a "b",\nc', "b": "ä"}, {"row": 2, "text": "", "b": "-"}]


def test_rows_come_back_as_they_were() -> None:
    assert [json.loads(line) for line in as_jsonl(ROWS).splitlines()] == ROWS
    found = list(csv.DictReader(io.StringIO(as_csv(ROWS[:1]))))
    assert found == [{"row": "1", "text": 'a "b",\nc', "b": "ä"}]


def test_columns_keep_their_order() -> None:
    assert as_csv(ROWS).splitlines()[0] == "row,text,b"
    assert list(json.loads(as_jsonl(ROWS).splitlines()[0])) == ["row", "text", "b"]


@pytest.mark.parametrize("cell", ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "\r=1"])
def test_a_spreadsheet_runs_nothing(cell: str) -> None:
    [row] = csv.DictReader(io.StringIO(as_csv([{"a": cell}]), newline=""))
    assert row["a"] == f"'{cell}"
    [heading] = next(csv.reader(io.StringIO(as_csv([{cell: ""}]), newline="")))
    assert heading == f"'{cell}"


@pytest.mark.parametrize("cell", ["-3.5", "+4", "-7,25"])
def test_a_number_stays_a_number(cell: str) -> None:
    assert as_csv([{"a": cell}]).splitlines()[1].strip('"') == cell


def test_without_rows_there_is_nothing() -> None:
    assert as_csv([]) == as_jsonl([]) == ""
