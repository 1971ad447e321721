"""Plain text as a table: each paragraph, or each line, is a row."""

from collections.abc import Generator, Iterable, Iterator
from io import StringIO

from data_prep.table import (
    Batch,
    Facts,
    empty_file,
    in_batches,
    refuse_long_cells,
    strip_edges,
)

COLUMN = "text"
_PROBED_LINES = 200


def read_plain_text(
    pieces: Iterable[str], *, name: str, encoding: str, is_cut: bool = False
) -> Generator[Batch, None, Facts]:
    """Read one text per paragraph where blank lines part paragraphs, else one per line.

    Args:
        pieces: the text of the file, one after the other.
        name: the file name, for sentences.
        encoding: reported in the facts.
        is_cut: whether this is only the beginning of a file; its last line is left out.

    Returns:
        The rows, a batch at a time; and in the end how the file was understood.

    Raises:
        DataError: the file is empty, or a text is too long.
    """
    text = "".join(pieces)
    if is_cut:
        text = text[: text.rfind("\n") + 1] or text
    has_blocks = any(is_first and line > 1 for is_first, line, _ in _lines(text))
    yield from in_batches(_texts(text, name, has_blocks))
    if not text.strip():
        raise empty_file(name)
    how = "Each paragraph" if has_blocks else "Each line"
    notes: tuple[str, ...] = (f"{how} is one text",)
    probed = [words for _, (_, _, words) in zip(range(_PROBED_LINES), _lines(text), strict=False)]
    if len(probed) > 1 and all("\t" in words for words in probed):
        notes += ("Every line holds a tab: if this is a table, choose the tab as its delimiter",)
    return Facts(format="txt", encoding=encoding, delimiter=None, columns=(COLUMN,), notes=notes)


def _lines(text: str) -> Iterator[tuple[bool, int, str]]:
    """Give the lines that are not blank: whether a blank one stands before it, number, text."""
    is_first = False
    has_begun = False
    for number, line in enumerate(StringIO(text, newline=None), 1):
        words = strip_edges(line)
        if words:
            yield is_first and has_begun, number, line.rstrip("\n")
            has_begun, is_first = True, False
        else:
            is_first = True


def _texts(text: str, name: str, has_blocks: bool) -> Iterator[tuple[int, list[str]]]:
    block: list[str] = []
    start = 0
    for is_first, number, line in _lines(text):
        if block and (is_first or not has_blocks):
            yield _row(name, start, block)
            block = []
        if not block:
            start = number
        block.append(line)
    if block:
        yield _row(name, start, block)


def _row(name: str, line: int, block: list[str]) -> tuple[int, list[str]]:
    cells = [strip_edges("\n".join(block))]
    refuse_long_cells(cells, f"{name}, line {line}")
    return line, cells
