"""Documents -> token rows of one length, on disk: what a stage of the pre-training reads.

A row is T unsigned 16-bit numbers: the token id, and the highest bit where the loss sees it.
"""

import random
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np

from engine.encode import Encoded
from starter.corpus import Corpus, CorpusError, Question, sentences_of
from starter.episodes import EpisodeWriter
from starter.families import make_pools, training_families
from templates.render import COMPLETION_PREFIX, Segment
from templates.template import DEFAULT_SEPARATOR, DEFAULT_STOP

SUPERVISED = np.uint16(1 << 15)
EPISODES, QUESTIONS = "episodes", "questions"  # in a mix, beside the names of the prose sources

Document = tuple[Segment, ...]


@dataclass(frozen=True)
class Tokens:
    """A document as numbers; a whole one is not cut where a row ends."""

    ids: np.ndarray
    whole: bool


class PackedRows(Sequence[Encoded]):
    """The rows of a file, as training items that are made when they are asked for."""

    def __init__(self, path: Path) -> None:
        """Open a file of rows.

        Args:
            path: written by `write_rows`.
        """
        self._rows = np.load(path, mmap_mode="r")

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Encoded: ...
    @overload
    def __getitem__(self, index: slice) -> list[Encoded]: ...
    def __getitem__(self, index: int | slice) -> Encoded | list[Encoded]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        row = np.asarray(self._rows[index])
        return Encoded((row & ~SUPERVISED).tolist(), (row & SUPERVISED != 0).tolist())


def write_rows(
    path: Path,
    documents: Iterator[Document],
    tokenizer: Any,
    *,
    row_tokens: int,
    num_rows: int,
) -> None:
    """Fill rows with documents, one after the other, each behind an end-of-text token.

    An episode is not cut while something else can fill the rest of a row; prose goes on in the
    next row.

    Args:
        path: the file to write; replaced in one go.
        documents: without end.
        tokenizer: turns text into ids.
        row_tokens: T, the length of a row.
        num_rows: how many.
    """
    encoded = (encode_document(document, tokenizer) for document in documents)
    rows = np.empty((num_rows, row_tokens), dtype=np.uint16)
    for number, row in zip(range(num_rows), fill_rows(encoded, row_tokens), strict=False):
        rows[number] = row
    temporary = path.with_suffix(".tmp.npy")
    np.save(temporary, rows)
    temporary.rename(path)


def encode_document(document: Document, tokenizer: Any) -> Tokens:
    """Turn a document into numbers; its pieces are tokenised apart, as in the studio.

    Args:
        document: its pieces.
        tokenizer: a fast tokenizer.

    Returns:
        An end-of-text token and the ids, each with its bit; whole where the loss skips a part.
    """
    parts = [np.array([tokenizer.eos_token_id], dtype=np.uint16)]
    texts = [segment.text for segment in document]
    batch = tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    for segment, encoding in zip(document, batch, strict=True):
        ids = np.array(encoding.ids, dtype=np.uint16)
        parts.append(ids | SUPERVISED if segment.supervised else ids)
    whole = not all(segment.supervised for segment in document)
    if not whole:  # after prose, that a text ends is something to learn as well
        parts[0] = parts[0] | SUPERVISED
    return Tokens(np.concatenate(parts), whole)


def fill_rows(documents: Iterator[Tokens], row_tokens: int) -> Iterator[np.ndarray]:
    """Pack documents into rows.

    Args:
        documents: whole ones and others.
        row_tokens: T.

    Yields:
        Rows (T,) in which the loss sees at least one token.
    """
    waiting: deque[np.ndarray] = deque()
    row = np.empty(0, dtype=np.uint16)
    while True:
        room = row_tokens - len(row)
        if waiting and len(waiting[0]) <= room:
            piece = waiting.popleft()
        else:
            document = next(documents)
            piece = document.ids[:row_tokens] if document.whole else document.ids
            if document.whole and len(piece) > room and len(waiting) < 100:
                waiting.append(piece)
                continue
        row = np.concatenate([row, piece])
        while len(row) >= row_tokens:
            if (row[1:row_tokens] & SUPERVISED).any():  # the first token is predicted by nothing
                yield row[:row_tokens]
            row = row[row_tokens:]


def mixed_documents(
    corpus: Corpus,
    mix: Mapping[str, float],
    *,
    most_episode_chars: int,
    seed: str,
    families: Mapping[str, float] | None = None,
) -> Iterator[Document]:
    """Draw documents without end, so that each source keeps its share of the characters.

    Args:
        corpus: the texts.
        mix: share by source: a prose source, "questions" or "episodes".
        most_episode_chars: about how long an episode may get.
        seed: equal seeds give equal documents.
        families: weights of the families of tasks; default their own.

    Yields:
        Documents.
    """
    sources = {name: _texts(corpus, name, f"{seed}/{name}") for name in mix if name != EPISODES}
    if EPISODES in mix:
        generator = random.Random(f"{seed}/{EPISODES}")  # noqa: S311 - a reproducible draw
        sources[EPISODES] = _episodes(corpus, most_episode_chars, families or {}, generator)
    written = dict.fromkeys(mix, 0)
    while True:
        name = min(mix, key=lambda name: written[name] / mix[name])
        document = next(sources[name])
        written[name] += sum(len(segment.text) for segment in document)
        yield document


def _episodes(
    corpus: Corpus, most_chars: int, weights: Mapping[str, float], generator: random.Random
) -> Iterator[Document]:
    pools = make_pools(
        {source: sentences_of(texts) for source, texts in corpus.prose.items()},
        {group: [one.text for one in part] for group, part in corpus.questions.items() if part},
        [table for table in corpus.intents if len(table) > 1],
    )
    families = training_families(pools)
    chosen = {name: (weight, families[name][1]) for name, weight in weights.items()} or families
    writer = EpisodeWriter(chosen, corpus.label_words, generator)
    while True:
        yield writer.write(int(generator.uniform(0.25, 1) * most_chars))


def _texts(corpus: Corpus, name: str, seed: str) -> Iterator[Document]:
    generator = random.Random(seed)  # noqa: S311 - a reproducible draw, no secret
    documents: list[Document]
    if name == QUESTIONS:
        documents = [
            _question_document(one, generator) for part in corpus.questions.values() for one in part
        ]
    else:
        documents = [(Segment(text, True),) for text in corpus.prose[name]]
    if not documents:
        raise CorpusError(f"The texts give no document of {name}: the data folder is too small")
    while True:
        generator.shuffle(documents)
        yield from documents


def _question_document(question: Question, generator: random.Random) -> Document:
    answer = question.answer
    if question.reasons and generator.random() < 0.5:
        answer = f"{question.reasons}\nThe answer is {answer}."
    prompt = f"{question.text}{DEFAULT_SEPARATOR}"
    return (
        Segment(prompt, True),
        Segment(f"{COMPLETION_PREFIX}{answer}{DEFAULT_STOP}", True),
    )
