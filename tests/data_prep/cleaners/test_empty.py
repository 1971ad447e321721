from data_prep.cleaners.empty import Options, clean
from templates.example import Example, Turn


def test_what_goes_and_what_stays() -> None:
    examples = [
        Example({"text": "a"}, label="x", source_rows=(1,)),
        Example({"text": "\u200b \n"}, label="x", source_rows=(2,)),
        Example({"text": "a"}, label=" ", source_rows=(3,)),
        Example({"input": "a"}, references=("", "b"), source_rows=(4,)),
        Example({"input": "a"}, references=(" ", ""), source_rows=(5,)),
        Example({}, references=("b",), source_rows=(6,)),
        Example(turns=(Turn("user", ""), Turn("assistant", "a")), source_rows=(7,)),
        Example(turns=(Turn("user", "q"), Turn("assistant", "a")), source_rows=(8,)),
        Example({"text": "unlabelled"}, source_rows=(9,)),
    ]
    kept, report = clean(examples, Options())
    assert [example.source_rows[0] for example in kept] == [1, 4, 8, 9]
    assert kept[1].references == ("b",)
    assert report.counts == {"empty text": 3, "empty label": 1, "empty answer": 1}
    assert (report.rows_in, report.rows_out, report.rows_changed) == (9, 4, 1)
    assert report.rows == (2, 3, 4, 5, 6, 7)
