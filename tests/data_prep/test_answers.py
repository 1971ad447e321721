import json
import time
from pathlib import Path
from typing import Any

import pytest

from data_prep.answers import (
    NO_LABEL,
    OTHER_LABELS,
    AnsweredRow,
    ScorePairs,
    confusion,
    count_answers,
    read_answers,
    score_pairs,
)
from engine.comparing.comparison import Prediction, write_predictions
from templates.errors import RunError

NAUGHTY = ("'); DROP TABLE answers; --", '"', "\\", "%", "_", ".*", "ÄÖ", "<script>", "\0", "$path")


def prediction(item: int, expected: str = "yes", **answers: tuple[str, float | None]) -> Prediction:
    return Prediction(
        item=item,
        source_rows=(item + 1, item + 7),
        fields={"text": f"row {item}"},
        expected=(expected,),
        outputs={arm: output for arm, (output, _) in answers.items()},
        scores={arm: score for arm, (_, score) in answers.items()},
    )


def write(folder: Path, *predictions: Prediction) -> Path:
    path = folder / "predictions.jsonl"
    write_predictions(path, predictions)
    return path


def graded(item: int, ours: float | None, theirs: float | None) -> Prediction:
    return prediction(item, tuned=("a", ours), few_shot=("b", theirs))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    scores = [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.0, 0.0), (0.6, 0.5), (0.2, 0.7), (1.0, 0.3)]
    rows = [graded(item, *pair) for item, pair in enumerate(scores)]
    return write(tmp_path, *reversed(rows))


def test_every_filter_has_its_rows_and_its_count(path: Path) -> None:
    expected = {
        "all": [0, 1, 2, 3, 4, 5, 6],
        "only_ours_right": [0, 6],
        "only_theirs_right": [1],
        "both_right": [2],
        "both_wrong": [3, 4, 5],
        "ours_better": [0, 4, 6],
        "theirs_better": [1, 5],
    }
    assert count_answers(path) == {name: len(rows) for name, rows in expected.items()}
    for name, rows in expected.items():
        page = read_answers(path, filter=name)
        assert (page.total, [row.item for row in page.rows]) == (len(rows), rows), name
    turned = count_answers(path, ("few_shot", "tuned"))
    assert (turned["only_ours_right"], turned["theirs_better"]) == (1, 3)


def test_a_row_comes_back_as_it_was_written(tmp_path: Path) -> None:
    row = Prediction(
        item=3,
        source_rows=(5, 9),
        fields={"z": "naïve\n\u2028", "a": ""},
        expected=("x", "y"),
        outputs={"tuned": "x\0", "few_shot": ""},
        scores={"tuned": 0.25, "few_shot": None},
    )
    [found] = read_answers(write(tmp_path, row)).rows
    assert found == AnsweredRow(**row.model_dump())


def test_pages_are_in_the_order_of_the_split(path: Path) -> None:
    pages = [read_answers(path, offset=offset, limit=3) for offset in (0, 3, 6, 9, -5)]
    assert [[row.item for row in page.rows] for page in pages] == [
        [0, 1, 2], [3, 4, 5], [6], [], [0, 1, 2],
    ]  # fmt: skip
    assert {page.total for page in pages} == {7}
    assert read_answers(path, limit=-1).rows == ()


@pytest.mark.parametrize("text", NAUGHTY)
def test_a_search_is_literal_in_every_text(tmp_path: Path, text: str) -> None:
    rows = [prediction(number, tuned=("no", 0.0)) for number in range(4)]
    rows[0] = rows[0].model_copy(update={"fields": {"text": f"a {text.lower()} b"}})
    rows[1] = rows[1].model_copy(update={"expected": ("other", f"{text}!")})
    rows[2] = rows[2].model_copy(update={"outputs": {"few_shot": f"({text}"}})
    path = write(tmp_path, *rows)
    assert [row.item for row in read_answers(path, search=text).rows] == [0, 1, 2]
    assert read_answers(path, search=text * 2).total == 0
    assert read_answers(path, search=text, arms=(text, text), filter="both_wrong").total == 0


def test_search_and_filter_go_together(path: Path) -> None:
    assert read_answers(path, filter="only_ours_right", search="ROW 6").total == 1
    assert read_answers(path, filter="both_right", search="ROW 6").total == 0


def test_without_scores_an_answer_is_right_where_it_is_one_of_those_expected(
    tmp_path: Path,
) -> None:
    rows = [
        prediction(0, "a", tuned=("a", None), few_shot=("b", None)),
        prediction(1, "a", tuned=("b", None), few_shot=("c", None)),
    ]
    path = write(tmp_path, *rows)
    counts = count_answers(path)
    assert (counts["only_ours_right"], counts["both_wrong"], counts["ours_better"]) == (1, 1, 1)
    assert score_pairs(path) == ScorePairs((0.0, 1.0), (0.0, 0.0), (1, 1))


def test_an_arm_that_did_not_answer_is_in_no_filter(path: Path) -> None:
    counts = count_answers(path, ("tuned", "zero_shot"))
    assert counts.pop("all") == 7 and set(counts.values()) == {0}
    assert score_pairs(path, ("tuned", "zero_shot")) == ScorePairs()
    matrix = confusion(path, "zero_shot")
    assert matrix.expected == () and matrix.counts == ()


def test_score_pairs_count_every_row_once(path: Path) -> None:
    pairs = score_pairs(path)
    assert sum(pairs.num_rows) == 7
    assert set(zip(pairs.ours, pairs.theirs, strict=True)) >= {(0.6, 0.5), (0.2, 0.7)}
    assert max(map(len, (pairs.ours, pairs.theirs, pairs.num_rows))) == 7


def test_confusion_counts_by_frequency_and_knows_what_is_no_label(tmp_path: Path) -> None:
    answers = [("b", "b"), ("a", "b"), ("b", "a"), ("b", "rare"), ("a", "nonsense"), ("b", "b")]
    rows = [prediction(n, e, tuned=(answer, None)) for n, (e, answer) in enumerate(answers)]
    path = write(tmp_path, *rows)
    matrix = confusion(path, "tuned")
    assert matrix.expected == ("b", "a")
    assert matrix.answered == ("b", "a", NO_LABEL)
    assert matrix.counts == ((2, 1, 1), (1, 0, 1))
    known = confusion(path, "tuned", labels=("a", "b", "rare"))
    assert known.answered == ("b", "a", OTHER_LABELS, NO_LABEL)
    assert sum(map(sum, known.counts)) == len(rows)


def test_of_many_labels_the_rare_ones_stand_together(tmp_path: Path) -> None:
    names = [f"label {number}" for number in range(25)]
    rows = []
    for number, name in enumerate(names):
        for _ in range(25 - number):
            rows.append(prediction(len(rows), name, tuned=(names[-1 - number], None)))
    matrix = confusion(write(tmp_path, *rows), "tuned")
    assert matrix.expected == (*names[:20], OTHER_LABELS) == matrix.answered
    assert sum(map(sum, matrix.counts)) == len(rows)
    assert sum(matrix.counts[-1]) == 5 + 4 + 3 + 2 + 1
    assert matrix.counts[0][-1] == 25, "the most frequent was taken for the rarest"


GOOD = json.dumps(graded(0, 1.0, 0.0).model_dump(mode="json"))


@pytest.mark.parametrize(
    "line",
    [GOOD[:-20], "{}", "null", "3", "[]", '{"item":"x"}', '{"item":1,"fields":[1]}',
     '{"item":0}', "\0\0", GOOD.replace('"few_shot": 0.0', '"few_shot": "much"')],
)  # fmt: skip
def test_a_damaged_line_is_a_sentence(tmp_path: Path, line: str) -> None:
    path = tmp_path / "predictions.jsonl"
    path.write_text(f"{GOOD}\n{line}\n")
    calls: list[Any] = [
        lambda: count_answers(path),
        lambda: read_answers(path, limit=1),
        lambda: confusion(path, "tuned"),
        lambda: score_pairs(path),
    ]
    for call in calls:
        with pytest.raises(RunError, match=r"A line of the comparison's answers is damaged\. Run"):
            call()


def test_a_file_that_is_gone_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="Reading the comparison's answers did not work"):
        count_answers(tmp_path / "predictions.jsonl")


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    path = write(tmp_path)
    assert set(count_answers(path).values()) == {0}
    assert read_answers(path).rows == () and confusion(path, "tuned").counts == ()


def test_a_folder_may_be_called_like_a_pattern(tmp_path: Path) -> None:
    folder = tmp_path / "a[b]*?'; DROP TABLE answers"
    folder.mkdir()
    assert read_answers(write(folder, graded(0, 1.0, 0.0))).total == 1


def test_many_rows_take_no_longer_than_a_person_waits(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    line = GOOD.replace('"item": 0', '"item": %d')
    path.write_text("".join(line % number + "\n" for number in range(100_000)))
    before = time.perf_counter()
    page = read_answers(path, filter="only_ours_right", search="ROW", offset=99_990)
    assert time.perf_counter() - before < 10
    assert (page.total, page.rows[-1].item) == (100_000, 99_999)
