"""Answers of several arms to the same test rows, side by side, as pieces of a page."""

import difflib
import math
import re
from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

from data_prep.answers import AnsweredRow, ConfusionMatrix, Filter, ScorePairs
from studio.pages.compare_verdict import NAMES
from studio.web.charts import Bar, bars, heat_table, histogram
from studio.web.html import Tone, badge, details, empty, join, section, visible
from studio.web.words import count

PAGE_ROWS = 20
RIGHT = 0.999999  # sums of floats
_MOST_TEXT, _MOST_ANSWER, _SHORT = 320, 400, 30
_WORD = re.compile(r"\s+|[^\W_]+|.", re.DOTALL)
_MOST_WORDS = 400
_NUM_BINS = 21


def filter_choices(
    counts: Mapping[Filter, int], rival: str, *, is_graded: bool
) -> list[tuple[str, Filter]]:
    """Name the filters and say how many rows each holds.

    Args:
        counts: rows by filter.
        rival: what the other arm is called.
        is_graded: whether rows have a score between right and wrong.

    Returns:
        (words, filter).
    """
    name = rival.lower()
    words: dict[Filter, str] = {"all": "All"}
    if is_graded:
        words |= {"ours_better": "Tuned better", "theirs_better": f"{rival} better"}
    else:
        words |= {
            "only_ours_right": "Only tuned right", "only_theirs_right": f"Only {name} right",
            "both_right": "Both right", "both_wrong": "Both wrong",
        }  # fmt: skip
    return [(f"{text} ({count(counts.get(key, 0))})", key) for key, text in words.items()]


def rows_view(rows: Sequence[AnsweredRow], rival: str) -> Markup:
    """Show rows, one below the other, with the answers beside each other.

    Args:
        rows: of one page.
        rival: the arm beside the tuned one.

    Returns:
        Cards.
    """
    if not rows:
        return empty("No row is like that", "Choose another filter, or search for something else.")
    return Markup('<div class="ts-rows">{}</div>').format(join(_card(row, rival) for row in rows))


def confusion_view(matrix: ConfusionMatrix, name: str) -> Markup:
    """Show which labels an arm takes for which, and how much of each label it finds.

    Args:
        matrix: of the arm.
        name: what the arm is called.

    Returns:
        A table and bars.
    """
    if not matrix.expected:
        return empty("Nothing was answered")
    found = []
    for label, row in zip(matrix.expected, matrix.counts, strict=True):
        hits, whole = row[matrix.answered.index(label)], sum(row)
        words = f"{100 * hits / whole:.0f} %  ({hits} of {whole})" if whole else "–"
        found.append(Bar(visible(label, 40), hits / whole if whole else 0.0, words))
    heat = heat_table(
        [visible(label, 24) for label in matrix.expected],
        [visible(label, 24) for label in matrix.answered],
        matrix.counts,
        label=f"{name}: how often each label was answered where another was expected",
        row_title="expected", column_title="answered",
    )  # fmt: skip
    recall = join((
        section("How many of each label are found"),
        bars(found, label=f"{name}: share of each label that was found", most=1.0),
    ))  # fmt: skip
    return Markup('<div class="ts-confusion"><div>{}</div><div>{}</div></div>').format(heat, recall)


def differences_view(pairs: ScorePairs, rival: str, metric: str) -> Markup:
    """Show how far the scores of single rows lie apart.

    Args:
        pairs: scores of the tuned model and of the other.
        rival: what the other is called.
        metric: what the scores are.

    Returns:
        A histogram; right of zero the tuned model is better.
    """
    bins = difference_bins(pairs)
    if not bins:
        return empty("Single rows have no score", "This metric says something of all rows only.")
    label = f"Tuned model minus {rival.lower()}, {metric} of single rows"
    return histogram(bins, label=label, x_title="points; right of 0 the tuned model is better")


def difference_bins(pairs: ScorePairs) -> list[tuple[float, float, int]]:
    """Count row differences in equal bins around zero.

    Args:
        pairs: scores from 0 to 1.

    Returns:
        (from, to, rows) in points; the middle bin holds zero, and the ends the largest difference.
    """
    differences = [100 * (ours - theirs) for ours, theirs in zip(
        pairs.ours, pairs.theirs, strict=True
    )]  # fmt: skip
    if not differences:
        return []
    end = max(5, math.ceil(max(map(abs, differences)) / 5) * 5)
    width = 2 * end / _NUM_BINS
    counts = [0] * _NUM_BINS
    for difference, number in zip(differences, pairs.num_rows, strict=True):
        counts[min(_NUM_BINS - 1, math.floor((difference + end) / width))] += number
    return [(-end + n * width, -end + (n + 1) * width, number) for n, number in enumerate(counts)]


def _card(row: AnsweredRow, rival: str) -> Markup:
    arms = [arm for arm in (rival, "tuned") if arm in row.outputs]
    others = [arm for arm in row.outputs if arm not in arms]
    where = ", ".join(str(number) for number in row.source_rows[:3])
    head = Markup('<p class="ts-row-where">Row {} of your table</p>').format(where)
    texts = join(
        Markup('<div class="ts-row-field">{}{}</div>').format(
            Markup('<span class="ts-soft">{}</span>').format(visible(name, 60))
            if len(row.fields) > 1 else "",
            _shortened(text),
        )
        for name, text in row.fields.items()
    )  # fmt: skip
    expected = join((Markup('<div class="ts-pre">{}</div>').format(visible(text, _MOST_ANSWER))
                     for text in row.expected[:5]), Markup("<hr>"))  # fmt: skip
    cells = [Markup('<div class="ts-answer"><p>Your table says</p>{}</div>').format(expected)]
    is_short = all(len(text) <= _SHORT for text in (*row.outputs.values(), *row.expected))
    cells += [_answer(row, arm, is_marked=not is_short) for arm in arms]
    more = details("Other answers", Markup('<div class="ts-answers">{}</div>').format(
        join(_answer(row, arm, is_marked=not is_short) for arm in others)
    )) if others else ""  # fmt: skip
    return Markup(
        '<article class="ts-row{}"><div>{}{}{}</div><div class="ts-answers">{}</div></article>'
    ).format(" ts-short" if is_short else "", head, texts, more, join(cells))


def _answer(row: AnsweredRow, arm: str, *, is_marked: bool) -> Markup:
    text, score = row.outputs[arm], row.scores.get(arm)
    words, tone = _judged(text, score, row.expected)
    if not text:
        shown = Markup('<span class="ts-soft">(nothing)</span>')
    elif is_marked and tone != "good":
        shown = marked_answer(text, row.expected)
    else:
        shown = escape(visible(text, _MOST_ANSWER))
    return Markup(
        '<div class="ts-answer ts-answer-{}"><p>{} {}</p><div class="ts-pre" dir="auto">{}</div>'
        "</div>"
    ).format(tone, _called(arm), badge(words, tone), shown)


def _called(arm: str) -> str:
    return next((name for known, name in NAMES.items() if known == arm), arm)


def _judged(text: str, score: float | None, expected: Sequence[str]) -> tuple[str, Tone]:
    points = float(text in expected) if score is None else score
    if points >= RIGHT:
        return "right", "good"
    if points <= 0:
        return "wrong", "bad"
    return f"{100 * points:.0f} points", "plain"


def marked_answer(text: str, expected: Sequence[str]) -> Markup:
    """Mark the words of an answer that the nearest expected answer does not have there.

    Args:
        text: of a model.
        expected: acceptable answers.

    Returns:
        The text, shortened where it is long.
    """
    words = _WORD.findall(visible(text, _MOST_ANSWER))[:_MOST_WORDS]
    best: difflib.SequenceMatcher[str] | None = None
    for answer in expected[:5]:
        wanted = _WORD.findall(visible(answer, _MOST_ANSWER))[:_MOST_WORDS]
        matcher = difflib.SequenceMatcher(None, wanted, words, autojunk=False)
        if best is None or matcher.ratio() > best.ratio():
            best = matcher
    if best is None:
        return escape("".join(words))
    parts = []
    for kind, _, _, start, end in best.get_opcodes():
        piece = "".join(words[start:end])
        if kind == "equal" or not piece.strip():
            parts.append(escape(piece))
        else:
            parts.append(Markup('<mark class="ts-differs">{}</mark>').format(piece))
    return join(parts)


def _shortened(text: str) -> Markup:
    if len(text) <= _MOST_TEXT:
        return Markup('<div class="ts-pre" dir="auto">{}</div>').format(visible(text))
    return Markup(
        '<details class="ts-long"><summary><span class="ts-pre" dir="auto">{}</span></summary>'
        '<div class="ts-pre" dir="auto">{}</div></details>'
    ).format(visible(text, _MOST_TEXT), visible(text))
