from data_prep.cleaners.length import Options, clean
from templates.example import Example


def test_limits_count_all_texts() -> None:
    examples = [
        Example({"input": "x" * size}, references=("y" * 5,), source_rows=(size,))
        for size in (1, 5, 6)
    ]
    kept, report = clean(examples, Options(min_characters=7, max_characters=10))
    assert [item.source_rows for item in kept] == [(5,)]
    assert report.counts == {"too long": 1, "too short": 1}
    assert report.rows == (1, 6)
    assert clean(examples, Options())[0] == examples
