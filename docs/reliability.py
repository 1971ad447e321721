"""Makes docs/reliability.md from the marks of the tests: `python -m docs.reliability`."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reliability.md"
_HEAD = """# What may go wrong, and what happens then

> Kill anything at any instant: what was shown as saved is resumable, the resumed run ends with the
> same bits (on a CPU, same machine and threads), and no partial file is ever offered.

Long work runs in processes of its own, and what is true about it lies in files: `jobs/<id>/`
holds what was asked for, what each attempt reported, and what came of it. A state is never stored.
Readers derive it from the last event and from whether the worker still lives (its process id, the
instant it was started, and the boot in which that was). So every page, verb and restart reads the
same.

Each row below is a fault that a test injects into real processes, files and clocks. The table is
made from those tests by `python -m docs.reliability`, and a test keeps it fresh. Numbers group
rows of one kind.

| no. | fault | what happens | test |
|---|---|---|---|
"""
# Kinds of fault that cannot be injected yet, and why.
NOT_YET = {
    16: "One of several devices' processes ends: training on several devices does not exist yet.",
}


class Fault(NamedTuple):
    """A fault and the test that injects it."""

    number: int
    injected: str
    outcome: str
    test: str


def faults() -> list[Fault]:
    """Read the marks of all tests.

    Returns:
        By number, then as they stand in the files.
    """
    found = [
        Fault(*(ast.literal_eval(argument) for argument in mark.args), test=f"{path}::{name}")
        for path, name, mark in _marks()
    ]
    return sorted(found, key=lambda fault: (fault.number, fault.test))


def page() -> str:
    """Write the page.

    Returns:
        Markdown.
    """
    rows = [
        f"| {fault.number} | {fault.injected} | {fault.outcome} | `{fault.test}` |\n"
        for fault in faults()
    ]
    not_yet = "".join(f"* {number}: {why}\n" for number, why in NOT_YET.items())
    return _HEAD + "".join(rows) + "\nNot injected yet:\n\n" + not_yet


def _marks() -> Iterator[tuple[str, str, ast.Call]]:
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            for mark in getattr(node, "decorator_list", []):
                if isinstance(mark, ast.Call) and getattr(mark.func, "id", "") == "fault":
                    name = getattr(node, "name", "")
                    yield path.relative_to(ROOT).as_posix(), name, mark


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
