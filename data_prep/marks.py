"""Separator and stop sequence: do they occur in the data, and which ones do not?"""

from collections.abc import Callable, Iterable, Sequence

from templates.example import Example
from templates.render import answer_text, completion_text
from templates.template import DEFAULT_SEPARATOR, DEFAULT_STOP, Template

Tokenise = Callable[[str], list[int]]

_SEPARATORS = (
    DEFAULT_SEPARATOR,
    "\n\n~~~\n\n",
    "\n\n@@@\n\n",
    "\n\n|||\n\n",
    "\n\n=====>\n\n",
    "\n\n#~#~#\n\n",
)
_STOPS = (DEFAULT_STOP, " ~END~", " @@END", " ||END", " #~END~#", " %%STOP%%")


def rows_with(mark: str, examples: Iterable[Example]) -> tuple[int, ...]:
    """Find the rows that contain a text.

    Args:
        mark: separator or stop sequence.
        examples: all examples.

    Returns:
        Upload rows, ascending.
    """
    found = {
        row
        for example in examples
        if any(mark in text for text in (*example.texts(), example.label or ""))
        for row in example.source_rows
    }
    return tuple(sorted(found))


def rows_with_tokens(mark: str, examples: Iterable[Example], tokenise: Tokenise) -> tuple[int, ...]:
    """Find the rows whose tokens contain the tokens of a mark, though the text does not.

    Args:
        mark: separator or stop sequence.
        examples: all examples.
        tokenise: text to token ids, without special tokens.

    Returns:
        Upload rows, ascending.
    """
    wanted = tokenise(mark)
    found = {
        row
        for example in examples
        if any(_contains(tokenise(text), wanted) for text in example.texts())
        for row in example.source_rows
    }
    return tuple(sorted(found))


def rows_with_glued_stop(
    examples: Iterable[Example], template: Template, tokenise: Tokenise
) -> tuple[int, ...]:
    """Find the rows where the stop sequence is cut into other tokens when it follows the answer.

    Args:
        examples: all examples.
        template: gives stop sequence and label words.
        tokenise: text to token ids, without special tokens.

    Returns:
        Upload rows, ascending.
    """
    stop = tokenise(template.stop)
    known: dict[str, bool] = {}
    found: set[int] = set()
    for example in examples:
        answer = answer_text(example, template)
        if answer not in known:
            tokens = tokenise(completion_text(answer, template))
            known[answer] = tokens[len(tokens) - len(stop) :] != stop
        if known[answer]:
            found.update(example.source_rows)
    return tuple(sorted(found))


def free_separator(template: Template, examples: Sequence[Example]) -> str:
    """Suggest a separator.

    Args:
        template: its wording and label words count as data.
        examples: all examples.

    Returns:
        One that occurs nowhere.
    """
    return free_mark(template.separator, _SEPARATORS, template, examples)


def free_stop(template: Template, examples: Sequence[Example]) -> str:
    """Suggest a stop sequence.

    Args:
        template: its wording and label words count as data.
        examples: all examples.

    Returns:
        One that occurs nowhere.
    """
    return free_mark(template.stop, _STOPS, template, examples)


def free_mark(
    current: str, choices: Sequence[str], template: Template, examples: Sequence[Example]
) -> str:
    """Find the first mark that occurs nowhere.

    Args:
        current: tried first.
        choices: tried next; then the last of them is made longer until it is free.
        template: its wording and label words count as data.
        examples: all examples.

    Returns:
        The mark.
    """
    for mark in (current, *choices):
        if not occurs_in_wording(mark, template) and not rows_with(mark, examples):
            return mark
    mark = choices[-1]
    while occurs_in_wording(mark, template) or rows_with(mark, examples):
        body = mark.strip()
        mark = mark.replace(body, f"{body}~{body}")
    return mark


def occurs_in_wording(mark: str, template: Template) -> bool:
    """Tell whether the wording or a label word contains a mark.

    Args:
        mark: separator or stop sequence.
        template: any.

    Returns:
        Whether it does.
    """
    return any(mark in text for text in (template.wording, *template.verbalizer.values()))


def _contains(tokens: Sequence[int], wanted: Sequence[int]) -> bool:
    size = len(wanted)
    if not size:
        return False
    first = wanted[0]
    return any(
        tokens[at] == first and list(tokens[at : at + size]) == list(wanted)
        for at in range(len(tokens) - size + 1)
    )
