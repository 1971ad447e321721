"""What all parts share: the model and its machine, and cells that are measured only once."""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from engine.base_model import load_base, locate_base
from engine.language_model import LanguageModel
from engine.methods import get_method
from engine.planning.estimate import Hardware
from engine.planning.hardware import measure_hardware
from starter.families import HELD_OUT_FAMILIES
from starter.tasks import Family, Task, balanced_accuracy, real_task
from templates.files import sha256_of_bytes, sha256_of_file

Values = dict[str, Any]


@dataclass
class Cells:
    """The finished cells of one part, one JSON line each; the last line of a name counts.

    Attributes:
        path: the file.
        fingerprint: of the weights that are measured; lines of others stay and are not read.
        quick: whether these are trials with few rows; they never stand for full ones.
    """

    path: Path
    fingerprint: str
    quick: bool = False
    _keys: set[str] = field(default_factory=set)
    _values: dict[str, Values] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Read what is there; a line that was cut off by a crash is not a cell."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.path.is_file():
            return
        content = self.path.read_text(encoding="utf-8")
        if content and not content.endswith("\n"):
            self._append("")
        for line in content.splitlines():
            try:
                cell = json.loads(line)
            except ValueError:
                continue
            if cell["fingerprint"] == self.fingerprint and cell["quick"] == self.quick:
                self._keys.add(cell["key"])
                self._values[cell["name"]] = cell

    @property
    def values(self) -> dict[str, Values]:
        """The newest cell of each name."""
        return dict(self._values)

    def measure(self, name: str, digest: str, work: Callable[[], Values]) -> None:
        """Measure a cell, unless it is there.

        Args:
            name: says which cell, such as "sst2/8/0".
            digest: of what it was measured on.
            work: measures it.
        """
        size = "quick" if self.quick else "full"
        key = f"{self.fingerprint}/{size}/{self.path.stem}/{name}/{digest}"
        if key in self._keys:
            return
        begun = time.perf_counter()
        values = work()
        head = {"key": key, "name": name, "fingerprint": self.fingerprint, "quick": self.quick}
        cell = {**head, **values, "seconds": round(time.perf_counter() - begun, 2)}
        self._append(json.dumps(cell, ensure_ascii=False))
        self._keys.add(key)
        self._values[name] = cell
        told = [f"{key} {value:.4g}" for key, value in values.items() if isinstance(value, float)]
        told += ["does not fit"] if values.get("fits") is False else []
        told += [str(values["text"])] if "text" in values else []
        where = f"{self.path.stem} {name}"
        print(f"{where}: {', '.join(told)}  ({cell['seconds']:.1f} s)", flush=True)

    def _append(self, line: str) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())


@dataclass
class Bench:
    """What all parts share: opened when first needed.

    Attributes:
        model: the folder to measure.
        out: where the cells go.
        data: the folder with `text/` and `tasks/`.
        first: the folder of the first version, to compare prose with; None leaves it out.
        quick: few rows, steps and tokens.
        families: the held-out families by name.
    """

    model: Path
    out: Path
    data: Path
    first: Path | None = None
    quick: bool = False
    families: Mapping[str, Family] = field(default_factory=lambda: HELD_OUT_FAMILIES)

    @cached_property
    def language_model(self) -> LanguageModel:
        """The model in the precision that plans choose by default."""
        return load_base(locate_base(str(self.model)), get_method("lora").precisions[0])

    @cached_property
    def fingerprint(self) -> str:
        """Says which weights these are."""
        return weights_fingerprint(self.model)

    @cached_property
    def hardware(self) -> Hardware:
        """This machine, as plans see it."""
        return measure_hardware()

    def cells(self, part: str) -> Cells:
        """Open the cells of a part.

        Args:
            part: one of PARTS.

        Returns:
            What was measured of this model so far.
        """
        return Cells(self.out / f"{part}.jsonl", self.fingerprint, self.quick)

    def real_task(self, name: str) -> Task:
        """Open a real table.

        Args:
            name: one of REAL_TASKS.

        Returns:
            The task.
        """
        most = {"most_test_rows": 40} if self.quick else {}
        return real_task(self.data / "tasks", name, **most)


def weights_fingerprint(folder: Path) -> str:
    """Hash the weights of a model folder.

    Args:
        folder: holds .safetensors files.

    Returns:
        64 hexadecimal digits.
    """
    hashes = [sha256_of_file(path) for path in sorted(folder.glob("*.safetensors"))]
    return hashes[0] if len(hashes) == 1 else sha256_of_bytes("\n".join(hashes).encode())


def scored(task: Task, answers: Sequence[str]) -> Values:
    """Compare answers with the labels of the test rows.

    Args:
        task: the rows.
        answers: one a row.

    Returns:
        balanced_accuracy, and by row expected (the label's place) and hits (1 or 0).
    """
    expected = [task.labels.index(str(row.label)) for row in task.test]
    hits = [int(a == row.label) for a, row in zip(answers, task.test, strict=True)]
    return {
        "balanced_accuracy": balanced_accuracy(expected, hits),
        "expected": expected,
        "hits": hits,
    }
