from data_prep.marks import (
    free_separator,
    free_stop,
    rows_with,
    rows_with_glued_stop,
    rows_with_tokens,
)
from templates.builtin import TEMPLATES
from templates.example import Example
from templates.template import DEFAULT_SEPARATOR, DEFAULT_STOP

TEMPLATE = TEMPLATES["classification"]
EXAMPLES = [
    Example({"text": "plain"}, label="a", source_rows=(1,)),
    Example({"text": "x\n\n###\n\ny"}, label="a", source_rows=(2,)),
    Example({"text": "THE END"}, label="b", source_rows=(3,)),
    Example({"text": "z"}, label="B END", source_rows=(4,)),
]


def lower(text: str) -> list[int]:
    """A tokenizer that loses case."""
    return [ord(char) for char in text.lower()]


def greedy(text: str) -> list[int]:
    """A tokenizer that glues a space to the word before it."""
    return [hash(part) for part in text.replace(" ", " \x00").split("\x00")]


def test_rows_with() -> None:
    assert rows_with(DEFAULT_SEPARATOR, EXAMPLES) == (2,)
    assert rows_with(DEFAULT_STOP, EXAMPLES) == (3, 4)
    assert rows_with("nowhere", EXAMPLES) == ()


def test_rows_with_tokens() -> None:
    examples = [Example({"text": "in the end"}, label="a", source_rows=(7,))]
    assert rows_with(DEFAULT_STOP, examples) == ()
    assert rows_with_tokens(DEFAULT_STOP, examples, lower) == (7,)
    assert rows_with_tokens(DEFAULT_STOP, examples, lambda text: []) == ()


def test_a_stop_that_is_cut_otherwise_when_glued() -> None:
    assert rows_with_glued_stop(EXAMPLES[:1], TEMPLATE, lower) == ()
    assert rows_with_glued_stop(EXAMPLES[:1], TEMPLATE, greedy) == (1,)


def test_suggestions_are_free() -> None:
    assert free_separator(TEMPLATE, EXAMPLES[:1]) == DEFAULT_SEPARATOR
    assert free_separator(TEMPLATE, EXAMPLES) == "\n\n~~~\n\n"
    assert free_stop(TEMPLATE, EXAMPLES) == " ~END~"
    everything = "".join(
        ["\n\n###\n\n~~~\n\n@@@\n\n|||\n\n=====>\n\n#~#~#\n\n", " END ~END~ @@END ||END #~END~#"]
    )
    crowded = [Example({"text": everything + " %%STOP%%"}, label="a", source_rows=(1,))]
    assert rows_with(free_separator(TEMPLATE, crowded), crowded) == ()
    assert rows_with(free_stop(TEMPLATE, crowded), crowded) == ()
    worded = TEMPLATE.model_copy(update={"wording": "{text} END"})
    assert free_stop(worded, []) == " ~END~"
