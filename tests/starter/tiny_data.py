"""A data folder of a few kilobytes, in the form the starter is made from."""

import csv
import gzip
import json
import random
from pathlib import Path

from starter.corpus import COT_SETS

WORDS = (
    "the a dog cat man woman walked saw and then under over house tree happily slowly Anna Ben"
).split()


def _sentence(draw: random.Random) -> str:
    words = [draw.choice(WORDS) for _ in range(draw.randint(7, 14))]
    return " ".join(words).capitalize() + draw.choice(".?!")


def _paragraph(draw: random.Random, *, spoken: bool = False) -> str:
    text = " ".join(_sentence(draw) for _ in range(6))
    return f'"{text}" said Anna.' if spoken else text


def write_tiny_data(folder: Path) -> Path:
    """Write text/ and tasks/ with all the files that `starter.corpus` asks for."""
    draw = random.Random(0)
    texts = {
        "tinystories": [("a.txt", "\n\n\n".join(_paragraph(draw) for _ in range(60)))],
        "african_storybook": [
            (f"{n}.md", f"# Title\n\n##\n{_paragraph(draw)}\n\n##\n{_paragraph(draw)}\n"
             f"* License: x\n* Text: Anna Author\n") for n in range(40)
        ],
        "openstax": [
            (f"book-{n}.txt", "\n".join(_paragraph(draw) for _ in range(60))) for n in range(2)
        ],
        "gutenberg": [
            ("london-a.txt", "\n\n".join(_paragraph(draw, spoken=True) for _ in range(150)))
        ],
    }  # fmt: skip
    (folder / "text").mkdir(parents=True)
    for name, parts in texts.items():
        with gzip.open(folder / "text" / f"{name}.txt.gz", "wt", encoding="utf-8") as stream:
            for title, text in parts:
                stream.write(f"<<<DOC {title}>>>\n{text}\n")
    for name, intents in (
        ("snips", ("PlayMusic", "RateBook", "GetWeather")),
        ("clinc150", tuple(f"intent_{n}" for n in range(16))),
    ):
        table = folder / "tasks" / name / "train.csv"
        table.parent.mkdir(parents=True)
        with table.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["text", "intent"])
            for intent in intents:
                writer.writerows([f"{intent} {_sentence(draw)}", intent] for _ in range(8))
    for name in ("gsm8k", *(f"cot_{name}" for name in COT_SETS)):
        path = folder / "tasks" / name / "train.jsonl"
        path.parent.mkdir(parents=True)
        rows = [
            {"question": f"{name} {_sentence(draw)}", "rationale": "Because.", "answer": "yes"}
            if name != "gsm8k"
            else {"question": _sentence(draw), "answer": "2 + 2 = <<2+2=4>>4\n#### 4"}
            for _ in range(60)
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder
