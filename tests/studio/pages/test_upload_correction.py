import pytest

from data_prep.table_file import FORMATS, Corrections
from data_prep.table_preview import Problem
from studio.pages.upload_correction import (
    FIND_OUT,
    corrections_of,
    delimiter_name,
    encoding_choices,
    field_values,
    fields_for,
    lines_view,
    problem_view,
)
from templates.errors import DataError


def test_each_format_has_the_fields_that_can_help() -> None:
    assert "delimiter" in fields_for("a.CSV") and "delimiter" in fields_for("a.tsv.gz")
    assert fields_for("a.xlsx") == {"has_header", "sheet"}
    assert fields_for("a.parquet") == frozenset() == fields_for("a.exe")
    assert "delimiter" in fields_for("table")
    assert all(isinstance(fields_for(f"a{ending}"), frozenset) for ending in FORMATS)


def test_fields_become_corrections_and_back() -> None:
    for corrections in (
        Corrections(),
        Corrections(delimiter="\t", encoding="cp1252", has_header=False, sheet="One"),
        Corrections(delimiter="~", has_header=True),
    ):
        assert corrections_of(*field_values(corrections)) == corrections


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("tab", "\t"), ("\\t", "\t"), (" ; ", ";"), (" ", " "), (None, None), (FIND_OUT, None)],
)
def test_typed_delimiters_are_understood(typed: str | None, meant: str | None) -> None:
    assert corrections_of(typed, None, None, None).delimiter == meant


def test_a_delimiter_of_several_characters_is_refused() -> None:
    with pytest.raises(DataError, match="one character"):
        corrections_of("||", "", "", "")


def test_odd_values_of_a_field_find_out() -> None:
    assert corrections_of("", [], "perhaps", 0) == Corrections()


def test_a_found_encoding_can_be_chosen() -> None:
    assert "koi8-r" in [value for _, value in encoding_choices("KOI8-R")]
    assert encoding_choices("latin-1") == encoding_choices()
    assert "no-such" in [value for _, value in encoding_choices("no-such")]


def test_delimiters_have_names() -> None:
    assert (delimiter_name(","), delimiter_name("\t")) == ("comma", "tab")
    assert "~" in delimiter_name("~")


def test_problems_and_lines_are_escaped() -> None:
    view = problem_view(Problem(what="<b>", where="line 3 <i>", fix="<u>")) + lines_view(
        ["<s>\u202e"]
    )
    assert not any(tag in view for tag in ("<b>", "<i>", "<u>", "<s>", "\u202e"))
    assert lines_view([]) == ""
