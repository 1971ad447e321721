"""The texts the starter model learns from: readers of the sources, and what is held out.

Only sources whose licence allows weights that ship are read here: public-domain books, OpenStax
(CC BY 4.0), African Storybook (CC BY), TinyStories (CDLA-Sharing-1.0), CLINC150 (CC BY 3.0),
Snips (CC0), GSM8K (MIT) and the chain-of-thought collection (Apache-2.0).
"""

import csv
import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

END_OF_TEXT = "<|endoftext|>"
HELD_OUT_EVERY = 100  # one document in a hundred is kept out of training,
HELD_OUT_EVERY_SMALL = 25  # one in 25 of the two small sources
SMALL_SOURCES = ("tinystories", "african_storybook")
INTENTS_HELD_OUT_EVERY = 8  # whole intents, for validation only
PASSAGE_CHARS = 1800
SENTENCE_CHARS = (25, 170)
SENTENCE_END = re.compile(r'(?<=[.!?]"|[a-z][.!?]) (?=["A-Z])')

TEXT_FILES = ("tinystories", "african_storybook", "openstax", "gutenberg")
COT_SETS = ("aqua", "creak", "ecqa", "gsm8k", "qasc", "sensemaking", "strategyqa")

# Story-tellers in plain prose; the named books are by others who died after 1954.
AUTHORS = re.compile(
    r"(alcott|andersen|baum|burnett|carroll|grimm|lang|london|montgomery|nesbit|potter)-"
)
CREDITS = re.compile(r"^\* (License|Text|Illustration|Translation|Language).*$", re.M)
LEFT_OUT = re.compile(r"magical-mimics|shaggy-man|symbolic-logic|game-of-logic|letter-writing")
PLAIN = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\r": None})


@dataclass(frozen=True)
class Question:
    """A question with the reasons for its answer, which may be "", and the answer."""

    text: str
    reasons: str
    answer: str


@dataclass(frozen=True)
class Corpus:
    """One part of all the texts.

    Attributes:
        prose: documents by source.
        questions: by the set they come from.
        intents: for each data set of commands, the texts by intent.
        label_words: common words that can stand for a class.
    """

    prose: dict[str, list[str]]
    questions: dict[str, list[Question]]
    intents: list[dict[str, list[str]]]
    label_words: tuple[str, ...]


class CorpusError(Exception):
    """The data folder is missing or incomplete; the message says what to do."""


def check_data(data: Path) -> None:
    """Make sure that every file the corpus needs is there.

    Args:
        data: the folder with `text/` and `tasks/`.

    Raises:
        CorpusError: a file is missing. Fix: point STUDIO_DATA or --data at the data folder.
    """
    needed = [data / "text" / f"{name}.txt.gz" for name in TEXT_FILES]
    needed += [data / "tasks" / name / "train.csv" for name in ("clinc150", "snips")]
    missing = [str(path.relative_to(data)) for path in needed if not path.exists()]
    folders = ["gsm8k", *(f"cot_{name}" for name in COT_SETS)]
    missing += [
        f"tasks/{f}/train.jsonl[.gz]"
        for f in folders
        if not any((data / "tasks" / f).glob("train.jsonl*"))
    ]
    if missing:
        raise CorpusError(
            f"The training text is incomplete: {data} lacks {', '.join(missing)}. Set the "
            "environment variable STUDIO_DATA (or --data) to a folder with text/ and tasks/."
        )


def held_out(key: str, source: str = "") -> bool:
    """Tell whether a document belongs to the held-out part; the same on every machine."""
    every = HELD_OUT_EVERY_SMALL if source in SMALL_SOURCES else HELD_OUT_EVERY
    return zlib.crc32(key.encode()) % every == 0


def _files(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (name, text) of each `<<<DOC name>>>` part, with quotation marks made plain."""
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        parts = re.split(r"^<<<DOC (.+?)>>>\n", stream.read().translate(PLAIN), flags=re.M)
    yield from zip(parts[1::2], parts[2::2], strict=True)


def _passages(paragraphs: list[str]) -> Iterator[str]:
    """Join paragraphs into passages of about PASSAGE_CHARS characters."""
    passage = ""
    for paragraph in paragraphs:
        if passage and len(passage) + len(paragraph) > PASSAGE_CHARS:
            yield passage.strip()
            passage = ""
        passage += paragraph + "\n\n"
    if passage.strip():
        yield passage.strip()


def read_tinystories(path: Path) -> list[str]:
    """Return the stories, without exact repeats and without cut-off ends."""
    stories: dict[str, str] = {}
    for _, text in _files(path):
        for story in re.split(r"<\|endoftext\|>|\n\n\n+", text):
            lines = [line.strip() for line in story.strip().splitlines() if line.strip()]
            for passage in _passages(lines):
                if len(passage) > 150:
                    stories.setdefault(passage[:120], passage)
    return list(stories.values())


def read_storybooks(path: Path) -> list[str]:
    """Return the picture-book stories, one paragraph a page, without page marks and credits."""
    stories: list[str] = []
    for _, text in _files(path):
        body = CREDITS.sub("", text)
        pages = [" ".join(page.split()) for page in re.split(r"^##.*$", body, flags=re.M)]
        stories.extend(_passages([page.removeprefix("# ") for page in pages if page]))
    return stories


def read_storybook_authors(data: Path) -> list[str]:
    """Return the names of the story-writers, whom the CC BY licence asks us to credit."""
    path = data / "text" / "african_storybook.txt.gz"
    texts = "\n".join(text for _, text in _files(path))
    lines = re.findall(r"^\* Text: (.+)$", texts, re.M)
    return sorted({name.strip() for line in lines for name in line.split(",") if name.strip()})


def read_openstax(path: Path) -> list[str]:
    """Return textbook passages: full paragraphs of prose, no lists, links or references."""
    passages: list[str] = []
    for _, text in _files(path):
        for module in text.split(END_OF_TEXT):
            prose = [
                line
                for line in module.split("\n")
                if len(line) > 200
                and line[0].isalpha()
                and line[-1] in '.!?"'
                and not re.search(r"https?:|www\.|\(\w+ \d{4}\):", line)
            ]
            passages.extend(_passages(prose))
    return passages


def read_gutenberg(path: Path) -> list[str]:
    """Return dialogue-rich prose passages of the chosen authors."""
    passages: list[str] = []
    for name, text in _files(path):
        if not AUTHORS.match(name) or LEFT_OUT.search(name):
            continue
        for passage in list(_passages([p.strip() for p in text.split("\n\n") if p.strip()]))[2:]:
            paragraphs = passage.split("\n\n")
            spoken = sum('"' in paragraph for paragraph in paragraphs) / len(paragraphs)
            capitals = sum(c.isupper() for c in passage) / len(passage)
            verse = len(passage) / len(paragraphs) < 70 or "gutenberg" in passage.lower()
            if spoken >= 0.4 and capitals < 0.06 and not verse and "_" not in passage:
                passages.append(passage)
    return passages


def read_intents(path: Path) -> dict[str, list[str]]:
    """Return the texts of each intent, without repeats and out-of-scope rows."""
    texts: dict[str, dict[str, None]] = {}
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            if row["intent"] != "oos":
                texts.setdefault(plain_label(row["intent"]), {})[row["text"].strip()] = None
    return {intent: list(found) for intent, found in texts.items()}


def read_questions(tasks: Path) -> dict[str, list[Question]]:
    """Return the questions of each set; GSM8K occurs in two of them."""
    questions: dict[str, list[Question]] = {}
    for folder in ("gsm8k", *(f"cot_{name}" for name in COT_SETS)):
        path = next((tasks / folder).glob("train.jsonl*"))
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8") as stream:
            records = [json.loads(line) for line in stream]
        for record in records:
            fields = {k: v.replace("\\n", "\n").translate(PLAIN).strip() for k, v in record.items()}
            reason, answer = fields.get("rationale", ""), fields["answer"]
            if folder == "gsm8k":
                reason, answer = re.sub(r"<<.*?>>", "", answer).split("\n#### ")
            question = Question(fields["question"], reason, answer)
            questions.setdefault(folder.removeprefix("cot_"), []).append(question)
    return questions


def plain_label(name: str) -> str:
    """Write a label as words: `AddToPlaylist` and `add_to_playlist` become `add to playlist`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).replace("_", " ").lower()


def sentences_of(documents: Iterable[str]) -> list[str]:
    """Cut prose into sentences of a length that fits a demonstration."""
    fewest, most = SENTENCE_CHARS
    pieces = (
        piece.strip()
        for document in documents
        for piece in SENTENCE_END.split(" ".join(document.split()))
    )
    return [piece for piece in pieces if fewest <= len(piece) <= most]


def common_words(stories: list[str], count: int = 500) -> list[str]:
    """Return the most frequent words of four to eight letters."""
    counts = Counter(word for story in stories for word in re.findall(r"\b[a-z]{4,8}\b", story))
    return [word for word, _ in counts.most_common(count)]


def load_prose(data: Path) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Read the prose and split it.

    Args:
        data: the folder with `text/` and `tasks/`.

    Returns:
        Training documents and held-out documents, both by source.
    """
    readers = (read_tinystories, read_storybooks, read_openstax, read_gutenberg)
    train: dict[str, list[str]] = {}
    kept_out: dict[str, list[str]] = {}
    for name, reader in zip(TEXT_FILES, readers, strict=True):
        documents = reader(data / "text" / f"{name}.txt.gz")
        train[name] = [text for text in documents if not held_out(text, name)]
        kept_out[name] = [text for text in documents if held_out(text, name)]
    return train, kept_out


def load_corpus(data: Path) -> tuple[Corpus, Corpus]:
    """Read every source and split it.

    Args:
        data: the folder with `text/` and `tasks/`.

    Returns:
        The training part and the held-out part: other documents, other questions, other intents.

    Raises:
        CorpusError: a file is missing.
    """
    check_data(data)
    prose = load_prose(data)
    questions = read_questions(data / "tasks")
    tables = [read_intents(data / "tasks" / name / "train.csv") for name in ("snips", "clinc150")]
    words = tuple(common_words(prose[0]["tinystories"]))
    parts = []
    for wanted in (False, True):
        parts.append(
            Corpus(
                prose=prose[wanted],
                questions={
                    name: [one for one in part if held_out(one.text) == wanted]
                    for name, part in questions.items()
                },
                intents=[
                    {
                        intent: texts
                        for intent, texts in table.items()
                        if (zlib.crc32(intent.encode()) % INTENTS_HELD_OUT_EVERY == 0) == wanted
                    }
                    for table in tables
                ],
                label_words=words,
            )
        )
    return parts[0], parts[1]
