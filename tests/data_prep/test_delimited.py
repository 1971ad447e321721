import csv
import io
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.delimited import choose_delimiter, read_delimited, read_records
from data_prep.table import Table, collect
from templates.errors import DataError


def read(
    text: str,
    name: str = "a.csv",
    delimiter: str | None = None,
    has_header: bool | None = None,
) -> Table:
    return collect(
        read_delimited(
            [text], name=name, encoding="utf-8", delimiter=delimiter, has_header=has_header
        )
    )


def test_lines_of_rows_count_quoted_line_breaks_and_blank_lines() -> None:
    table = read('text,label\n\n"one\ntwo",1\r\n\r\nthree,2\r"a ""b"" c",3')
    assert table.columns == ("text", "label")
    assert table.cells == [["one\ntwo", "1"], ["three", "2"], ['a "b" c', "3"]]
    assert table.lines == [3, 6, 7]
    assert "mixes line ends" in table.notes[-1]


@pytest.mark.parametrize(
    ("text", "name", "delimiter"),
    [
        ("a,b\n1,2\n", "a.csv", ","),
        ("a;b\n1,5;2\n1,7;3\n", "a.csv", ";"),
        ("a\tb\n1,2\t3\n", "a.csv", "\t"),
        ("a\tb\n1,2\t3\n", "a.tsv", "\t"),
        ("a|b\n1|2\n", "a.csv", "|"),
        ("text,label\n=cmd|' /C calc'!A0,1\n=cmd|x,2\n", "a.csv", ","),
        ('"x;y;z",label\n"a;b;c",1\n"d;e;f",2\n', "a.csv", ","),
        ("text,label\na;b;c,1\nd;e;f,2\n", "a.csv", ","),
        ("text\nhello\n", "a.csv", ","),
        ("text,a|b\nx,1\ny|z|v,2\n", "a.csv", ","),
    ],
)
def test_delimiter(text: str, name: str, delimiter: str) -> None:
    assert read(text, name).delimiter == delimiter


def test_a_chosen_delimiter_wins() -> None:
    assert read("a,b;c\n1,2;3\n", delimiter=";").columns == ("a,b", "c")
    assert read("a:b\n1:2\n", delimiter=":").cells == [["1", "2"]]


def test_an_unclosed_quote_does_not_confuse_the_choice() -> None:
    assert choose_delimiter('a;b\n1;2\n3;"4\n', prefer=",") == ";"


def test_quotes_inside_plain_cells_are_characters() -> None:
    assert read('text,label\n5" pipe,1\nsay "hi","2"\n').cells == [
        ['5" pipe', "1"],
        ['say "hi"', "2"],
    ]


def test_u2028_is_no_line_end() -> None:
    assert read("a,b\n1\u2028\x0b\x0c\x852,3\n").cells == [["1\u2028\x0b\x0c\x852", "3"]]


def test_rows_of_empty_cells_are_rows() -> None:
    assert read('a,b\n,\n"",""\n').cells == [["", ""], ["", ""]]
    assert read('a\n""\nx\n').cells == [[""], ["x"]]


def test_odd_looking_tables_get_a_note() -> None:
    assert "looks like data" in read("1,2\n3,4\n").notes[0]
    assert "Only one column" in read("text\nx\ny\n").notes[0]
    assert "starts near line 3 spans 60" in read('a,b\n1,2\n"' + "\n" * 60 + '",3\n').notes[0]


def test_a_cell_of_5_mb_is_read_and_one_above_the_limit_is_not() -> None:
    big = "x" * 5_000_000
    assert read(f"a,b\n{big},1\n").cells[0][0] == big
    quoted = '"' + "x\n" * 2_500_000 + '"'
    assert len(read(f"a,b\n{quoted},1\n").cells[0][0]) == 5_000_000
    with pytest.raises(DataError, match=r"longer than 10,000,000 characters \(a.csv, line 2\)"):
        read("a,b\n" + "x" * 10_000_001 + ",1\n")


def test_an_unclosed_quote_in_a_large_file_fails_fast() -> None:
    text = "a,b\n" + '1,"2""3"\n' * 100_000 + '"' + "x,y\n" * 500_000
    start = time.process_time()
    with pytest.raises(DataError, match="opened in line 100002"):
        read(text)
    assert time.process_time() - start < 5


cells = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=12) | st.text(
    '",;|\t\r\n a', max_size=8
)


@given(
    rows=st.lists(st.lists(cells, min_size=3, max_size=3), min_size=1, max_size=6),
    delimiter=st.sampled_from(",;\t|"),
    # With other line ends Python's writer leaves some line breaks inside cells unquoted.
    ends=st.sampled_from(
        [("\r\n", csv.QUOTE_MINIMAL), ("\n", csv.QUOTE_ALL), ("\r", csv.QUOTE_ALL)]
    ),
)
def test_what_csv_writes_is_read_back(
    rows: list[list[str]], delimiter: str, ends: tuple[str, int]
) -> None:
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, lineterminator=ends[0], quoting=ends[1])
    writer.writerows(rows)
    text = out.getvalue()
    found = list(read_records(text, delimiter, name="a.csv"))
    assert [record for _, record in found] == rows
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    last_lines = [reader.line_num for _ in reader]
    assert [line for line, _ in found] == [1, *(line + 1 for line in last_lines[:-1])]


def test_a_line_that_announces_the_delimiter_is_not_the_header() -> None:
    table = read("sep=;\na;b\n1,5;2\n", "t.csv")
    assert table.columns == ("a", "b") and table.delimiter == ";"
    assert table.cells[0] == ["1,5", "2"] or tuple(table.cells[0]) == ("1,5", "2")
    assert list(table.lines) == [3]


@given(
    text=st.text('",;\r\n aé', max_size=40),
    cuts=st.lists(st.integers(0, 40), max_size=6),
)
def test_pieces_make_no_difference(text: str, cuts: list[int]) -> None:
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[start:end] for start, end in pairwise(places)]

    def outcome(content: str | list[str]) -> object:
        records = []
        try:
            records.extend(read_records(content, ",", name="a.csv"))
        except DataError as error:
            return str(error)
        return records

    assert outcome(pieces) == outcome(text)


def test_a_beginning_leaves_its_last_record_out() -> None:
    def found(text: str) -> list[list[str]]:
        return [cells for _, cells in read_records([text], ",", name="", is_cut=True)]

    assert found('a,b\n1,2\n3,"4') == [["a", "b"], ["1", "2"]]
    assert found("a,b\n1,2\n3,4") == [["a", "b"], ["1", "2"]]


def test_a_record_of_many_pieces_is_not_read_again_for_each() -> None:
    pieces = ['a,b\n"', *["x" * 1000] * 8000, '",1\n']
    start = time.process_time()
    assert [len(cells) for _, cells in read_records(pieces, ",", name="")] == [2, 2]
    assert time.process_time() - start < 5


def test_a_table_without_a_header() -> None:
    table = read("1,2\n3,4\n", has_header=False)
    assert (table.columns, table.cells) == (("column 1", "column 2"), [["1", "2"], ["3", "4"]])
    assert (table.lines, table.notes, table.has_header) == ([1, 2], (), False)
    assert read("1,2\n3,4\n", has_header=True).notes == ()
    assert read("just,one\n", has_header=False).cells == [["just", "one"]]
