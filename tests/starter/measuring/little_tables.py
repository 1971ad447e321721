"""Tiny tables in the place of the real ones, and a bench that measures on them."""

import random
from pathlib import Path

from starter import measure
from starter.measuring.bench import Bench
from starter.tasks import REAL_TASKS

MODEL = Path(measure.__file__).parent / "model"
GOOD, BAD = ("lovely", "fine", "warm", "bright"), ("awful", "grim", "cold", "dull")


def reviews(generator: random.Random, num_rows: int) -> list[tuple[str, str]]:
    """A family whose rule a single word gives away."""
    rows = []
    for number in range(num_rows):
        words = GOOD if number % 2 else BAD
        text = f"a {generator.choice(words)} film about number {generator.randrange(10_000)}"
        rows.append((text, "basket" if number % 2 else "window"))
    generator.shuffle(rows)
    return rows


def write_table(path: Path, rows: list[tuple[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{text},{label}" for text, label in rows]
    path.write_text("\n".join(["text,label", *lines]) + "\n", encoding="utf-8")


def bench_on(folder: Path) -> Bench:
    """Write six tables, and open the model that ships."""
    data = folder / "data"
    for name in REAL_TASKS:
        words = {"basket": "ham", "window": "spam"} if name == "sms_spam" else {}
        rows = [(text, words.get(label, label)) for text, label in reviews(random.Random(name), 90)]
        write_table(data / "tasks" / name / "train.csv", rows[:60])
        if name != "sms_spam":
            write_table(data / "tasks" / name / "test.csv", rows[60:])
    return Bench(MODEL, folder / "out", data, quick=True, families={"reviews": reviews})
