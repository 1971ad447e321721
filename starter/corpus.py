"""The text the starter model learns from: readers, house-format documents, the mix.

Only sources whose licence allows weights that ship are read here: public-domain books, OpenStax
(CC BY 4.0), African Storybook (CC BY), TinyStories (CDLA-Sharing-1.0), CLINC150 (CC BY 3.0),
Snips (CC0), GSM8K (MIT) and the chain-of-thought collection (Apache-2.0).
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

END_OF_TEXT = "<|endoftext|>"
SEPARATOR = "\n\n###\n\n"
STOP = " END"
HELD_OUT_EVERY = 100  # one document in a hundred is kept out of training,
HELD_OUT_EVERY_SMALL = 25  # one in 25 of the two small sources
SMALL_SOURCES = ("tinystories", "african_storybook")
PASSAGE_CHARS = 1800  # close to one context of 512 tokens

# Share of the training tokens per source.
MIX = {
    "tinystories": 0.16,
    "african_storybook": 0.02,
    "openstax": 0.28,
    "gutenberg": 0.24,
    "labels": 0.06,
    "few_shot": 0.15,
    "questions": 0.09,
}
TEXT_FILES = ("tinystories", "african_storybook", "openstax", "gutenberg")
COT_SETS = ("aqua", "creak", "ecqa", "gsm8k", "qasc", "sensemaking", "strategyqa")

# Story-tellers in plain prose; the named books are by others who died after 1954.
AUTHORS = re.compile(
    r"(alcott|andersen|baum|burnett|carroll|grimm|lang|london|montgomery|nesbit|potter)-"
)
CREDITS = re.compile(r"^\* (License|Text|Illustration|Translation|Language).*$", re.M)
LEFT_OUT = re.compile(r"magical-mimics|shaggy-man|symbolic-logic|game-of-logic|letter-writing")
INSTRUCTIONS = (
    "Classify the text. Labels: {}.",
    "Choose the label that fits the text: {}.",
    "Which label fits? Options: {}.",
    "Give each text one of these labels: {}.",
)
PLAIN = str.maketrans({"\u2018": "'", "\u2019": "'", "\u201c": '"', "\u201d": '"', "\r": None})

Row = tuple[str, str]  # text, label


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


def read_rows(path: Path) -> list[Row]:
    """Return (text, intent) rows of a table, without repeats and out-of-scope rows."""
    with path.open(encoding="utf-8", newline="") as stream:
        rows = ((row["text"].strip(), row["intent"]) for row in csv.DictReader(stream))
        return list(dict.fromkeys(row for row in rows if row[1] != "oos"))


def read_questions(tasks: Path) -> list[tuple[str, str]]:
    """Return (question, document) pairs: rationale and answer, or the answer alone."""
    pairs = []
    for folder in ("gsm8k", *(f"cot_{name}" for name in COT_SETS)):
        path = next((tasks / folder).glob("train.jsonl*"))
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8") as stream:
            records = [json.loads(line) for line in stream]
        for number, record in enumerate(records):
            fields = {k: v.replace("\\n", "\n").translate(PLAIN).strip() for k, v in record.items()}
            reason, answer = fields.get("rationale", ""), fields["answer"]
            if folder == "gsm8k":
                reason, answer = re.sub(r"<<.*?>>", "", answer).split("\n#### ")
            target = answer if number % 2 else f"{reason}\nThe answer is {answer}."
            pairs.append((fields["question"], f"{fields['question']}{SEPARATOR} {target}{STOP}"))
    return pairs


def plain_label(name: str) -> str:
    """Write a label as words: `AddToPlaylist` and `add_to_playlist` become `add to playlist`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).replace("_", " ").lower()


def _pick(generator: np.random.Generator, items: list[str], count: int) -> list[str]:
    """Return `count` different items in random order."""
    return [items[i] for i in generator.permutation(len(items))[:count]]


def label_documents(rows: list[Row], generator: np.random.Generator) -> list[str]:
    """Return one document per row: text, separator, label; half name some possible labels first."""
    names = sorted({name for _, name in rows})
    documents = []
    for text, name in rows:
        style = plain_label if generator.random() < 0.5 else str
        head = ""
        if generator.random() < 0.5:
            choice = {name, *_pick(generator, names, int(generator.integers(2, 8)))}
            options = _pick(generator, [style(n) for n in sorted(choice)], len(choice))
            head = INSTRUCTIONS[generator.integers(len(INSTRUCTIONS))].format(", ".join(options))
            head += "\n\n"
        documents.append(f"{head}{text}{SEPARATOR} {style(name)}{STOP}")
    return documents


def few_shot_documents(
    tables: list[list[Row]], words: list[str], count: int, generator: np.random.Generator
) -> list[str]:
    """Return documents of several demonstrations with 3 to 8 labels each.

    In half of them the labels are arbitrary words, letters or numbers, so that only the
    demonstrations tell what a label means.

    Args:
        tables: the rows of each classification set.
        words: common words that can stand in for a label.
        count: how many documents.
        generator: the source of randomness.

    Returns:
        The documents, each about one context long.
    """
    groups: list[dict[str, list[str]]] = []
    for rows in tables:
        group: dict[str, list[str]] = {}
        for text, name in rows:
            group.setdefault(name, []).append(text)
        groups.append(group)
    documents = []
    for _ in range(count):
        group = groups[generator.integers(len(groups))]
        names = _pick(generator, list(group), int(generator.integers(3, 9)))
        kind = generator.random()
        if kind < 0.25:
            shown = list(names)
        elif kind < 0.5:
            shown = [plain_label(name) for name in names]
        elif kind < 0.85:
            shown = _pick(generator, words, len(names))
        else:
            shown = _pick(
                generator, list("ABCDEFGH") if kind < 0.93 else list("12345678"), len(names)
            )
        head = ""
        if generator.random() < 0.5:
            head = INSTRUCTIONS[generator.integers(len(INSTRUCTIONS))]
            head = head.format(", ".join(_pick(generator, shown, len(shown)))) + "\n\n"
        shots: list[str] = []
        num_chars = generator.integers(900, 1800)
        while sum(map(len, shots)) < num_chars:
            which = int(generator.integers(len(names)))
            texts = group[names[which]]
            text = texts[generator.integers(len(texts))]
            shots.append(f"{text}{SEPARATOR} {shown[which]}{STOP}")
        documents.append(head + "\n\n".join(shots))
    return documents


def common_words(stories: list[str], count: int = 500) -> list[str]:
    """Return the most frequent words of four to eight letters."""
    counts = Counter(word for story in stories for word in re.findall(r"\b[a-z]{4,8}\b", story))
    return [word for word, _ in counts.most_common(count)]


def load_documents(data: Path, seed: int) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Read every source and split it.

    Args:
        data: the folder with `text/` and `tasks/`.
        seed: decides the made-up few-shot documents.

    Returns:
        Training documents and held-out documents, both by the source names of MIX.
    """
    check_data(data)
    generator = np.random.default_rng(seed)
    keyed: dict[str, list[tuple[str, str]]] = {}
    readers = (read_tinystories, read_storybooks, read_openstax, read_gutenberg)
    for name, reader in zip(TEXT_FILES, readers, strict=True):
        keyed[name] = [(text, text) for text in reader(data / "text" / f"{name}.txt.gz")]
    keyed["questions"] = read_questions(data / "tasks")
    tables = [read_rows(data / "tasks" / name / "train.csv") for name in ("snips", "clinc150")]
    words = common_words([text for _, text in keyed["tinystories"]])
    parts: list[dict[str, list[str]]] = []
    for wanted, num_few_shot in ((False, 6000), (True, 200)):
        part = {
            name: [document for key, document in pairs if held_out(key, name) == wanted]
            for name, pairs in keyed.items()
        }
        rows = [[row for row in table if held_out(row[0]) == wanted] for table in tables]
        part["labels"] = [d for table in rows for d in label_documents(table, generator)]
        part["few_shot"] = few_shot_documents(rows, words, num_few_shot, generator)
        parts.append(part)
    return parts[0], parts[1]
