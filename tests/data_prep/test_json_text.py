from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.json_text import ends_here, load_cell, load_value, skip_space, without_escapes
from templates.errors import DataError
from templates.files import canonical_json

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc"), inner, max_size=3),
    max_leaves=8,
)


@given(values)
def test_reads_all_proper_json(value: Any) -> None:
    text = canonical_json(value)
    assert load_value(text, 0, "a", line=1) == (value, len(text))


def test_brackets_inside_strings_are_no_depth() -> None:
    text = '"' + "[" * 100 + '\\""'
    assert load_value(text, 0, "a", line=1)[0] == "[" * 100 + '"'


@pytest.mark.parametrize(("depth", "fine"), [(20, True), (21, False)])
def test_depth_limit(depth: int, fine: bool) -> None:
    text = "[" * depth + "]" * depth
    assert (ends_here(text, 0) is not None) == fine
    if not fine:
        with pytest.raises(DataError, match="20 levels"):
            load_value(text, 0, "a", line=1)


@pytest.mark.parametrize(
    ("text", "fine"),
    [
        ('"\\ud83d\\ude00"', True),
        ('"\\\\ud800"', True),
        ('"\\uD800x"', False),
        ('"\\ude00\\ud83d"', False),
        ('"\\\\\\ud800"', False),
    ],
)
def test_half_characters(text: str, fine: bool) -> None:
    if fine:
        load_value(text, 0, "a", line=1)
    else:
        with pytest.raises(DataError, match="lone surrogate"):
            load_value(text, 0, "a", line=1)


def test_space() -> None:
    assert skip_space(" \n\tx", 0) == 3
    assert skip_space("  ", 0) == 2


def test_a_cell_is_one_value() -> None:
    assert load_cell(' ["a"]\n') == ["a"]
    for cell in ("", "[1] 2", "[" * 100_000, '"\\ud800"', "NaN"):
        with pytest.raises(DataError):
            load_cell(cell)


def test_escapes_become_characters() -> None:
    assert without_escapes(r'"\n\u0040\"\\n\ud83d' + "\\") == '"\n@"\\n\ufffd\\'
