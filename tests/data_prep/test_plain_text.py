from data_prep.plain_text import read_plain_text
from data_prep.table import Table, collect


def read(text: str, *, is_cut: bool = False) -> Table:
    pieces = [text[start : start + 5] for start in range(0, len(text), 5)]
    return collect(read_plain_text(pieces, name="a.txt", encoding="utf-8", is_cut=is_cut))


def test_paragraphs() -> None:
    table = read("\n\none\r\nstill one \r\n \u00a0\r\n\r\ntwo\n\n\n")
    assert (table.columns, table.lines) == (("text",), [3, 7])
    assert table.cells == [["one\nstill one"], ["two"]]
    assert table.notes == ("Each paragraph is one text",)


def test_lines_where_no_blank_line_parts_paragraphs() -> None:
    table = read("\none\n two\rthree\n\n")
    assert table.cells == [["one"], ["two"], ["three"]] and table.lines == [2, 3, 4]
    assert table.notes == ("Each line is one text",)


def test_what_looks_like_a_table_is_told() -> None:
    assert "if this is a table" in read("ham\tgood news\nspam\twin\n").notes[1]


def test_a_beginning_leaves_its_last_line_out() -> None:
    assert read("one\ntwo\nthr", is_cut=True).cells == [["one"], ["two"]]
