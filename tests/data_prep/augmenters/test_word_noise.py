from hypothesis import given
from hypothesis import strategies as st

from data_prep.augmenters.word_noise import Options, augment
from templates.example import Example, Turn

EXAMPLES = [
    Example({"text": f"row {row} has a few more words"}, label="x", source_rows=(row,))
    for row in range(1, 9)
]


def test_copies_follow_the_originals_and_keep_their_answer() -> None:
    out, report = augment(EXAMPLES, Options(copies=2), 0)
    assert out[:8] == EXAMPLES and len(out) == 24
    for copy in out[8:]:
        original = EXAMPLES[copy.source_rows[0] - 1]
        assert (copy.origin, copy.label) == ("word_noise", "x")
        assert set(copy.fields["text"].split()) <= set(original.fields["text"].split())
        assert copy.fields["text"] != original.fields["text"]
    assert (report.rows_in, report.rows_out, report.counts) == (8, 24, {"added": 16})


def test_order_of_rows_plays_no_part_and_the_seed_does() -> None:
    def copies(examples: list[Example], seed: int) -> set[str]:
        return {item.to_json() for item in augment(examples, Options(), seed)[0]}

    assert copies(EXAMPLES, 1) == copies(EXAMPLES[::-1], 1)
    assert copies(EXAMPLES, 1) != copies(EXAMPLES, 2)


def test_spacing_between_words_stays() -> None:
    example = Example({"text": "one\n\ntwo  three"}, references=("r",), source_rows=(1,))
    out, _ = augment([example], Options(deletion_ratio=0.0, num_swaps=1), 3)
    assert "\n\n" in out[1].fields["text"] and "  " in out[1].fields["text"]


def test_what_cannot_vary_gets_no_copy() -> None:
    for example in (
        Example({"text": "word"}, source_rows=(1,)),
        Example({"text": "same same"}, source_rows=(1,)),
        Example(turns=(Turn("user", "a b"), Turn("assistant", "c")), source_rows=(1,)),
    ):
        out, report = augment([example], Options(deletion_ratio=0.0), 0)
        assert out == [example]
        assert report.counts == {"too short to vary": 1}


@given(
    st.lists(st.text("ab \n", max_size=20), max_size=5),
    st.floats(0, 0.5),
    st.integers(0, 3),
    st.integers(0, 99),
)
def test_never_empty_never_unchanged(texts: list[str], share: float, swaps: int, seed: int) -> None:
    examples = [
        Example({"text": text}, label="x", source_rows=(row,)) for row, text in enumerate(texts, 1)
    ]
    out, _ = augment(examples, Options(copies=3, deletion_ratio=share, num_swaps=swaps), seed)
    for copy in out[len(examples) :]:
        assert copy.fields["text"].strip()
        assert copy.fields["text"] not in texts
