"""Questions to a comparison, asked of its predictions file where it lies: no copy, no import.

A file holds one JSON object a line: what every arm answered to one test row. Arms are compared in
pairs. A row is right where its score is full; where the metric gives single rows no score, where
the answer is one of those expected. Rows that an arm did not answer are in no filter but "all".
"""

import glob
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from data_prep.database import read_files
from templates.errors import RunError

Filter = Literal[
    "all",
    "only_ours_right",
    "only_theirs_right",
    "both_right",
    "both_wrong",
    "ours_better",
    "theirs_better",
]
ArmPair = tuple[str, str]
TUNED_AND_FEW_SHOT: ArmPair = ("tuned", "few_shot")
NO_LABEL, OTHER_LABELS = "(no label)", "(other labels)"
_MOST_LABELS = 20
_FIX = "Run compare again"

# Scores are sums of floats: this near to each other they are equal.
_SCHEMA = """
    CREATE TEMP TABLE answers (
        item BIGINT, source_rows BIGINT[], fields MAP(VARCHAR, VARCHAR), expected VARCHAR[],
        outputs MAP(VARCHAR, VARCHAR), scores MAP(VARCHAR, DOUBLE)
    );
    CREATE TEMP MACRO points(arm, scores, outputs, expected) AS
        coalesce(scores[arm], CAST(list_contains(expected, outputs[arm]) AS DOUBLE));
    CREATE TEMP MACRO paired(our_arm, their_arm) AS TABLE
        SELECT *, points(our_arm, scores, outputs, expected) AS ours,
            points(their_arm, scores, outputs, expected) AS theirs
        FROM answers;
    CREATE TEMP MACRO is_right(score) AS score > 0.999999;
    CREATE TEMP MACRO is_in(filter, ours, theirs) AS CASE filter
        WHEN 'all' THEN true
        WHEN 'only_ours_right' THEN is_right(ours) AND NOT is_right(theirs)
        WHEN 'only_theirs_right' THEN is_right(theirs) AND NOT is_right(ours)
        WHEN 'both_right' THEN is_right(ours) AND is_right(theirs)
        WHEN 'both_wrong' THEN NOT is_right(ours) AND NOT is_right(theirs)
        WHEN 'ours_better' THEN ours > theirs + 0.000001
        WHEN 'theirs_better' THEN theirs > ours + 0.000001
    END;
    CREATE TEMP MACRO chosen(our_arm, their_arm, filter, needle) AS TABLE
        SELECT * FROM paired(our_arm, their_arm)
        WHERE is_in(filter, ours, theirs) AND (needle = '' OR len(list_filter(
            list_concat(map_values(fields), expected, map_values(outputs)),
            LAMBDA text: contains(lower(text), lower(needle))
        )) > 0);
"""
_READ = """
    INSERT INTO answers SELECT * FROM read_json($path, format = 'newline_delimited', columns = {
        item: 'BIGINT', source_rows: 'BIGINT[]', fields: 'MAP(VARCHAR, VARCHAR)',
        expected: 'VARCHAR[]', outputs: 'MAP(VARCHAR, VARCHAR)', scores: 'MAP(VARCHAR, DOUBLE)'
    })
"""
_NOT_ANSWERS = """
    SELECT item FROM answers WHERE item IS NULL OR source_rows IS NULL OR fields IS NULL
        OR expected IS NULL OR outputs IS NULL OR scores IS NULL LIMIT 1
"""
_COUNTS = """
    SELECT filter, count(*) FILTER (is_in(filter, ours, theirs))
    FROM paired($our_arm, $their_arm), unnest($filters::VARCHAR[]) AS asked(filter)
    GROUP BY filter
"""
_TOTAL = "SELECT count(*) FROM chosen($our_arm, $their_arm, $filter, $needle)"
_PAGE = """
    SELECT item, source_rows, fields, expected, outputs, scores
    FROM chosen($our_arm, $their_arm, $filter, $needle) ORDER BY item LIMIT $limit OFFSET $offset
"""
_CONFUSION = """
    SELECT expected[1], outputs[$arm], count(*) FROM answers
    WHERE expected[1] IS NOT NULL AND outputs[$arm] IS NOT NULL GROUP BY ALL ORDER BY min(item)
"""
_PAIRS = """
    SELECT round(ours, 2) AS our_score, round(theirs, 2) AS their_score, count(*)
    FROM paired($our_arm, $their_arm) WHERE ours IS NOT NULL AND theirs IS NOT NULL
    GROUP BY our_score, their_score ORDER BY our_score, their_score
"""


@dataclass(frozen=True)
class AnsweredRow:
    """What every arm answered to one test row.

    Attributes:
        item: 0-based line of the test split.
        source_rows: 1-based data rows of the upload.
        fields: the row's own text by slot.
        expected: the label, or all acceptable answers.
        outputs: answer by arm.
        scores: 0 to 1 by arm; None where one row has no score.
    """

    item: int
    source_rows: tuple[int, ...]
    fields: Mapping[str, str]
    expected: tuple[str, ...]
    outputs: Mapping[str, str]
    scores: Mapping[str, float | None]


@dataclass(frozen=True)
class AnswerPage:
    """Some of the rows that match, and how many there are in all."""

    total: int
    rows: tuple[AnsweredRow, ...]


@dataclass(frozen=True)
class ConfusionMatrix:
    """How often each label was answered where another was expected.

    Attributes:
        expected: the labels that were expected, the most frequent first.
        answered: the same, and at the end "(no label)" where some answer was none.
        counts: a line for each of `expected`, in it a number for each of `answered`.
    """

    expected: tuple[str, ...]
    answered: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class ScorePairs:
    """Scores of two arms on the same rows, to two digits; equal pairs are counted together."""

    ours: tuple[float, ...] = ()
    theirs: tuple[float, ...] = ()
    num_rows: tuple[int, ...] = ()


def count_answers(path: Path, arms: ArmPair = TUNED_AND_FEW_SHOT) -> dict[Filter, int]:
    """Count the rows of every filter.

    Args:
        path: a comparison's predictions.
        arms: ours and theirs, such as the tuned model and the few-shot prompt.

    Returns:
        Filter -> rows.

    Raises:
        RunError: the file is damaged, gone, or may not be read.
    """
    filters = get_args(Filter)
    found = dict(_ask(path, _COUNTS, **_named(arms), filters=list(filters)))
    return {name: found.get(name, 0) for name in filters}


def read_answers(
    path: Path,
    *,
    filter: Filter = "all",
    search: str = "",
    arms: ArmPair = TUNED_AND_FEW_SHOT,
    offset: int = 0,
    limit: int = 20,
) -> AnswerPage:
    """Read a page of the rows that match, in the order of the test split.

    Args:
        path: a comparison's predictions.
        filter: which rows.
        search: text that must stand in a field, an expected answer or an output, in upper or lower
            case; nothing in it has a meaning of its own.
        arms: ours and theirs, for the filter.
        offset: rows to pass over.
        limit: at most so many.

    Returns:
        The rows.

    Raises:
        RunError: the file is damaged, gone, or may not be read.
    """
    asked = {**_named(arms), "filter": filter, "needle": search}
    window = {"limit": max(0, limit), "offset": max(0, offset)}
    with _opened(path) as connection:
        [[total]] = connection.execute(_TOTAL, asked).fetchall()
        rows = connection.execute(_PAGE, {**asked, **window}).fetchall()
    return AnswerPage(
        total,
        tuple(
            AnsweredRow(item, tuple(source_rows), fields, tuple(expected), outputs, scores)
            for item, source_rows, fields, expected, outputs, scores in rows
        ),
    )


def confusion(path: Path, arm: str, labels: Collection[str] = ()) -> ConfusionMatrix:
    """Count which label an arm answered for which; of many labels the rare ones are put together.

    Args:
        path: a comparison's predictions.
        arm: whose answers; rows that it did not answer do not count.
        labels: of the dataset; those that no test row has are labels all the same.

    Returns:
        The matrix; empty where nothing was answered.

    Raises:
        RunError: the file is damaged, gone, or may not be read.
    """
    found = _ask(path, _CONFUSION, arm=arm)
    frequency: dict[str, int] = {}
    for expected, _, count in found:
        frequency[expected] = frequency.get(expected, 0) + count
    ordered = sorted(frequency, key=lambda label: -frequency[label])
    known = {*ordered, *labels}
    shown = ordered[:_MOST_LABELS]
    cells: dict[tuple[str, str], int] = {}
    for expected, answer, count in found:
        row = expected if expected in shown else OTHER_LABELS
        column = OTHER_LABELS if answer in known else NO_LABEL
        key = row, answer if answer in shown else column
        cells[key] = cells.get(key, 0) + count
    used = {name for key in cells for name in key}
    rows = (*shown, *([OTHER_LABELS] if OTHER_LABELS in used else []))
    columns = (*rows, *([NO_LABEL] if NO_LABEL in used else []))
    counts = tuple(tuple(cells.get((row, column), 0) for column in columns) for row in rows)
    return ConfusionMatrix(rows, columns, counts)


def score_pairs(path: Path, arms: ArmPair = TUNED_AND_FEW_SHOT) -> ScorePairs:
    """Read the scores of two arms side by side, for a chart.

    Args:
        path: a comparison's predictions.
        arms: ours and theirs.

    Returns:
        At most some thousand points, however many rows there are.

    Raises:
        RunError: the file is damaged, gone, or may not be read.
    """
    found = _ask(path, _PAIRS, **_named(arms))
    return ScorePairs(*zip(*found, strict=True)) if found else ScorePairs()


def _ask(path: Path, question: str, **values: Any) -> list[tuple[Any, ...]]:
    with _opened(path) as connection:
        found: list[tuple[Any, ...]] = connection.execute(question, values).fetchall()
    return found


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Give a connection with the table `answers`."""
    with read_files("the comparison's answers", if_damaged=_FIX) as connection:
        connection.execute(_SCHEMA)
        connection.execute(_READ, {"path": glob.escape(str(path))})
        if connection.execute(_NOT_ANSWERS).fetchall():
            raise RunError("A line of the comparison's answers is damaged", fix=_FIX)
        yield connection


def _named(arms: ArmPair) -> dict[str, str]:
    return dict(zip(("our_arm", "their_arm"), arms, strict=True))
