"""A small clean table, for tests that are about something else."""

from pathlib import Path

_TEXTS = {
    "billing": "the invoice for order {n} shows a fee that i did not expect",
    "shipping": "parcel number {n} has not arrived at my house yet",
    "returns": "item {n} does not fit and i want to send it back",
}


def write_table(path: Path, rows_per_label: int = 20) -> Path:
    lines = ["text,team"]
    for number in range(rows_per_label):
        for label, text in _TEXTS.items():
            lines.append(f"{text.format(n=f'{label[0]}{number}')},{label}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
