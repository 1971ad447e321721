from hypothesis import given
from hypothesis import strategies as st

from data_prep.cleaners.trim import Options, clean
from templates.example import Example, Turn


def test_all_ends_are_trimmed_and_nothing_else() -> None:
    example = Example(
        {"text": "\u00a0 a  b\u200b"},
        label=" x\t",
        references=("\ufeffr\n", "s"),
        turns=(Turn("user", " u "),),
        source_rows=(4,),
    )
    (found,), report = clean([example], Options())
    assert found.texts() == ("a  b", "u", "r", "s") and found.label == "x"
    assert (report.rows_changed, report.rows, report.rows_out) == (1, (4,), 1)


@given(st.text())
def test_twice_is_once(text: str) -> None:
    once, _ = clean([Example({"text": text}, source_rows=(1,))], Options())
    twice, report = clean(once, Options())
    assert twice == once and report.rows_changed == 0
    assert once[0].fields["text"] in text
