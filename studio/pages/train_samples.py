"""What the model answers to a few validation examples while it learns."""

from collections.abc import Sequence
from functools import lru_cache

from markupsafe import Markup

from engine.events import Sample
from studio.web.html import badge, empty, join, visible
from studio.web.words import count

_PROMPT_CHARACTERS = 260


@lru_cache(maxsize=64)
def samples_view(
    before: tuple[Sample, ...], now: tuple[Sample, ...], step: int, *, is_label_task: bool
) -> Markup:
    """Show each example with the answer before training beside the one of now.

    Args:
        before: answers of the untuned model; may be missing.
        now: the newest answers.
        step: when those were given.
        is_label_task: whether an answer is right or wrong as a whole; else a text that differs may
            still be good.

    Returns:
        One card for each example.
    """
    if not now:
        return empty(
            "No sample answers yet",
            "A few validation examples are answered before the first step and after each check.",
        )
    earlier = {(sample.prompt, sample.source_rows): sample for sample in before}
    cards = [
        _card(earlier.get((sample.prompt, sample.source_rows)), sample, step, is_label_task)
        for sample in now
    ]
    return Markup('<div class="ts-train-samples">{}</div>').format(join(cards))


def agrees(answer: str, expected: str) -> bool:
    """Say whether two texts are the same but for case and spacing.

    Args:
        answer: of the model.
        expected: in the data.

    Returns:
        Whether they are.
    """
    return answer.casefold().split() == expected.casefold().split()


def ending(text: str, most_characters: int) -> str:
    """Keep the end of a text, where a question usually stands.

    Args:
        text: any.
        most_characters: to keep.

    Returns:
        The end, with an ellipsis where something is left out.
    """
    text = text.strip()
    return text if len(text) <= most_characters else "…" + text[-most_characters:].lstrip()


def _card(before: Sample | None, now: Sample, step: int, is_label_task: bool) -> Markup:
    answers = []
    if before is not None and step > 0:
        answers.append(_answer("Before training", before, is_label_task))
    title = f"After {count(step, 'step')}" if step else "Before training"
    answers.append(_answer(title, now, is_label_task))
    rows = ", ".join(f"{row:,}" for row in now.source_rows)
    return Markup(
        '<article class="ts-train-sample">'
        '<div class="ts-pre ts-train-sample-prompt" dir="auto">{}</div>'
        '<dl><div><dt>Expected</dt><dd dir="auto">{}</dd></div>{}</dl>'
        '<p class="ts-soft ts-train-sample-row">{} of your table</p></article>'
    ).format(
        visible(ending(now.prompt, _PROMPT_CHARACTERS)),
        visible(now.expected),
        join(answers),
        f"Row {rows}" if len(now.source_rows) == 1 else f"Rows {rows}" if rows else "A row",
    )


def _answer(title: str, sample: Sample, is_label_task: bool) -> Markup:
    if agrees(sample.answer, sample.expected):
        mark = badge("right", "good")
    elif is_label_task:
        mark = badge("wrong", "bad")
    else:
        mark = badge("differs", title="Other words than in your data; they may still be good")
    text = visible(sample.answer).strip() or "(nothing)"
    return Markup('<div><dt>{} {}</dt><dd dir="auto">{}</dd></div>').format(title, mark, text)


def words_of(samples: Sequence[Sample]) -> str:
    """Count the right ones.

    Args:
        samples: any.

    Returns:
        Such as "2 of 3 as expected".
    """
    right = sum(agrees(sample.answer, sample.expected) for sample in samples)
    return f"{right} of {len(samples)} as expected"
