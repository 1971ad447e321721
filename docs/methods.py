"""Write the method table into the README: `python -m docs.methods`."""

from pathlib import Path

from engine.method import MethodSpec
from engine.methods import all_methods

README = Path(__file__).parents[1] / "README.md"
_TESTS = README.parent / "tests" / "engine" / "methods"
_BEGIN, _END = "<!-- methods:", "<!-- /methods -->"


def table() -> str:
    """Build the table from the registry.

    Returns:
        Markdown, one row per method.
    """
    lines = [
        "| method | family | what it does | holds the base in | publishes | paper | tests |",
        "|---|---|---|---|---|---|---|",
    ]
    for spec in all_methods().values():
        forms = [
            *(["`peft` adapter"] if spec.export else []),
            *(["whole model"] if spec.merge else []),
        ]
        cells = (
            f"`{spec.name}`",
            spec.family,
            spec.summary,
            ", ".join(spec.precisions),
            ", ".join(forms),
            spec.paper,
            _tests(spec),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _tests(spec: MethodSpec) -> str:
    family = "soft_prompts" if spec.num_virtual_tokens else "contract"
    own = _TESTS / f"test_{spec.name}.py"
    path = own if own.exists() else _TESTS / f"test_{family}.py"
    return f"[{path.stem.removeprefix('test_')}]({path.relative_to(README.parent)})"


def with_table(text: str) -> str:
    """Put the table between its marks.

    Args:
        text: the README.

    Returns:
        The README with a fresh table.
    """
    before, rest = text.split(_BEGIN, 1)
    mark, rest = rest.split("\n", 1)
    _, after = rest.split(_END, 1)
    return f"{before}{_BEGIN}{mark}\n{table()}{_END}{after}"


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
