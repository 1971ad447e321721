"""What was measured: one JSON line a heat, kept with the code; the report reads nothing else.

Whatever is finished is not measured again, until what it runs of the product's engine changes.
"""

import ast
import json
import platform
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.workload import Case
from engine.planning.hardware import measure_hardware

ROOT = Path(__file__).parents[1]
MEASURED = ROOT / "benchmarks" / "measured"  # a file for each machine
MODELS_FOLDER = ROOT / "build" / "benchmarks" / "models"
LOGS_FOLDER = ROOT / "build" / "benchmarks" / "logs"
_LIBRARIES = ("torch", "transformers")
_OURS, _ANSWERING = "ours.py", Path("engine/answering")


@dataclass(frozen=True)
class Record:
    """One heat: a case, and what each contestant did with it.

    Attributes:
        case: the case as plain values.
        machine: what it ran on.
        product: hash over the engine's code that it ran.
        contestants: by name: "ready", "warm", "turns" and "account" as they were answered, or
            "error".
    """

    case: dict[str, Any]
    machine: dict[str, Any]
    product: str
    contestants: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def opened(self) -> Case:
        """The case."""
        return Case(**self.case)


@cache
def this_machine() -> dict[str, Any]:
    """Name the machine and the libraries.

    Returns:
        Plain values.
    """
    hardware = measure_hardware()
    return {
        "processor": hardware.name,
        "cores": hardware.num_cores,
        "memory_gib": round(hardware.memory_total_bytes / 2**30),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: version(name) for name in _LIBRARIES},
    }


@cache
def product_digest(method: str, start: str = _OURS) -> str:
    """Hash the engine's code that is run, so that what was measured with other code is known.

    That is what our contestant and the method import, whatever they import, and so on; other
    methods may come and change. Training here asks for no sample answers, so with a method our
    contestant runs nothing that answers. Comments and layout do not count.

    Args:
        method: the tuning method; "" for none.
        start: the file of this folder that runs it.

    Returns:
        Twelve digits.
    """
    waiting = [ROOT / "benchmarks" / start]
    if method:
        waiting.append(ROOT / "engine" / "methods" / f"{method}.py")
    not_run = _ANSWERING if method and start == _OURS else None
    trees: dict[Path, str] = {}
    while waiting:
        path = waiting.pop()
        if path not in trees and path.parent.relative_to(ROOT) != not_run:
            tree = ast.parse(path.read_text(encoding="utf-8"))
            trees[path] = ast.dump(tree)
            waiting += _imported_from_engine(tree)
    digest = sha256()
    for path in sorted(trees):
        digest.update(f"{path.relative_to(ROOT)}\n{trees[path]}\n".encode())
    return digest.hexdigest()[:12]


def _imported_from_engine(tree: ast.Module) -> Iterator[Path]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "engine":
            place = ROOT.joinpath(*str(node.module).split("."))
            files = [place.with_suffix(".py"), place / "__init__.py"]
            files += [place / f"{alias.name}.py" for alias in node.names]
            yield from (file for file in files if file.is_file())


def records_path(machine: dict[str, Any]) -> Path:
    """Say where the lines of a machine stand.

    Args:
        machine: from `this_machine`.

    Returns:
        A file that may not exist yet.
    """
    name = f"{machine['processor']} {machine['cores']} cores {machine['memory_gib']} GiB"
    return MEASURED / f"{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}.jsonl"


def read_records(path: Path) -> list[Record]:
    """Read all heats, in the order in which they were measured.

    Args:
        path: a file of lines; a last line cut short by a kill is left out.

    Returns:
        The records.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    return [Record(**json.loads(line)) for line in lines]


def add_record(path: Path, record: Record) -> None:
    """Write one heat behind the others.

    Args:
        path: the file.
        record: what was measured.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.truncate(path.read_bytes().rfind(b"\n") + 1)  # what a kill cut short goes
        file.write(json.dumps(vars(record), allow_nan=False).encode() + b"\n")


def finished(records: Sequence[Record], case: Case) -> set[str]:
    """List who has been measured in a case with the code as it is now.

    Args:
        records: of this machine.
        case: the case.

    Returns:
        Names of contestants; also of those that could not do it.
    """
    product, plain = product_digest(case.method), vars(case)
    return {
        name
        for record in records
        if record.product == product and record.case == plain
        for name in record.contestants
    }
