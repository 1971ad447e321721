from data_prep.answers import AnsweredRow, ConfusionMatrix, ScorePairs
from studio.pages.compare_rows import (
    confusion_view,
    difference_bins,
    differences_view,
    filter_choices,
    marked_answer,
    rows_view,
)

NAUGHTY = '<script>alert(1)</script>"\u202e'


def row(tuned: str, score: float | None, expected: str = "billing", **fields: str) -> AnsweredRow:
    outputs = {"few_shot": "billing", "tuned": tuned, "zero_shot": NAUGHTY}
    return AnsweredRow(0, (7,), fields or {"text": "hello"}, (expected,), outputs,
                       {"few_shot": 1.0, "tuned": score, "zero_shot": 0.0})  # fmt: skip


def test_text_of_tables_and_models_is_harmless_everywhere() -> None:
    view = str(rows_view([row(NAUGHTY, 0.0, NAUGHTY, **{NAUGHTY: NAUGHTY, "b": ""})], "few_shot"))
    assert "<script" not in view and "\u202e" not in view and "&lt;script&gt;" in view
    matrix = ConfusionMatrix((NAUGHTY,), (NAUGHTY, "(no label)"), ((3, 1),))
    assert "<script" not in str(confusion_view(matrix, "Tuned model"))


def test_a_row_shows_what_each_arm_answered_and_whether_it_is_right() -> None:
    view = str(rows_view([row("shipping", 0.0)], "few_shot"))
    assert "Row 7 of your table" in view
    few_shot, tuned = view.split("Few-shot prompt")[1].split("Tuned model")
    assert ">right<" in few_shot and ">wrong<" in tuned and "shipping" in tuned
    assert "Other answers" in view and "Zero-shot prompt" in view
    assert "42 points" in str(rows_view([row("some long answer " * 4, 0.42)], "few_shot"))
    assert "(nothing)" in str(rows_view([row("", 0.0)], "few_shot"))


def test_a_score_that_rows_do_not_have_is_judged_by_the_answer() -> None:
    assert ">right<" in str(rows_view([row("billing", None)], "few_shot")).split("Tuned model")[1]
    assert ">wrong<" in str(rows_view([row("other", None)], "few_shot")).split("Tuned model")[1]


def test_a_long_text_is_shortened_and_can_be_opened() -> None:
    view = str(rows_view([row("x", 0.0, text="a" * 5000)], "few_shot"))
    assert "a" * 5000 in view and "a" * 320 + "…" in view and "<details" in view


def test_only_words_that_differ_are_marked() -> None:
    found = str(marked_answer("a cheap bar", ["nothing alike", "a cheap restaurant"]))
    assert found == 'a cheap <mark class="ts-differs">bar</mark>'
    assert "<mark" not in str(marked_answer("the same", ["the same"]))
    assert str(marked_answer("x", [])) == "x"


def test_filters_say_how_many_rows_they_hold() -> None:
    counts = {"all": 1200, "only_ours_right": 3, "ours_better": 5}
    right = filter_choices(counts, "Few-shot prompt", is_graded=False)
    assert right[:3] == [
        ("All (1,200)", "all"), ("Only tuned right (3)", "only_ours_right"),
        ("Only few-shot prompt right (0)", "only_theirs_right"),
    ]  # fmt: skip
    graded = filter_choices(counts, "Few-shot prompt", is_graded=True)
    assert [name for _, name in graded] == ["all", "ours_better", "theirs_better"]


def test_every_difference_is_in_one_bin_and_none_in_the_middle() -> None:
    pairs = ScorePairs((1.0, 0.0, 0.5, 0.2), (0.0, 1.0, 0.5, 0.1), (2, 1, 4, 3))
    bins = difference_bins(pairs)
    assert sum(number for *_, number in bins) == 10
    assert (bins[0][0], bins[0][2], bins[-1][1], bins[-1][2]) == (-100, 1, 100, 2)
    low, high, middle = bins[len(bins) // 2]
    assert low < 0 < high and middle == 4
    small = difference_bins(ScorePairs((0.1, 0.12), (0.1, 0.1), (1, 1)))
    assert (small[0][0], small[-1][1]) == (-5, 5)


def test_where_rows_have_no_score_that_is_said() -> None:
    assert "Single rows have no score" in str(differences_view(ScorePairs(), "x", "BLEU"))
    assert difference_bins(ScorePairs()) == []


def test_each_label_has_its_share_found() -> None:
    matrix = ConfusionMatrix(("a", "b"), ("a", "b"), ((3, 1), (0, 0)))
    view = str(confusion_view(matrix, "Tuned model"))
    assert "75 %" in view and "(3 of 4)" in view and view.count("–") == 1
    assert "Nothing was answered" in str(confusion_view(ConfusionMatrix((), (), ()), "x"))
