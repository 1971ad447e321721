"""The house plan as data: who may import whom, who owns which library, what stays light."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("templates", "data_prep", "engine", "studio")
MAY_IMPORT = {
    "templates": set(),
    "data_prep": {"templates"},
    "engine": {"templates"},
    "studio": {"templates", "data_prep", "engine"},
}
# A library and the only places that may import it.
OWNERS = {
    "gradio": ("studio/",),
    "duckdb": ("data_prep/database.py",),
    "python_calamine": ("data_prep/workbook.py",),
    "torch": ("engine/", "starter/"),
    "transformers": ("engine/", "starter/"),
    "bitsandbytes": ("engine/quantise.py",),
    "sklearn": ("engine/",),
    "huggingface_hub": (
        "engine/base_model.py",
        "engine/bases.py",
        "engine/publishing/hub_upload.py",
        "data_prep/hub_tables.py",
    ),
    "httpx2": ("engine/bases.py", "engine/publishing/hub_upload.py", "data_prep/hub_tables.py"),
    "markdown_it": ("studio/pages/publish_card.py",),
    "typer": ("studio/",),
    "rich": ("studio/",),
}
FORBIDDEN = {"peft", "trl", "pickle", "marshal", "shelve", "dill", "joblib"}
# Engine files that a light process may import: nothing they reach imports torch.
TORCH_FREE = (
    "plan", "events", "attempts", "job_status", "jobs", "liveness", "model_folder",
    "checkpoints", "prompt_sources",
    "planning/estimate", "planning/shown", "planning/choices", "planning/advice", "bases",
    "comparing/comparison",
    "publishing/publication", "publishing/card", "publishing/snippet",
    "publishing/hub_upload", "publishing/published_files",
)  # fmt: skip
# Folders whose `__init__.py` is a sign that names every file.
SIGNS = (
    *ROOMS, "engine/answering", "engine/planning", "engine/comparing", "engine/publishing",
    "studio/jobs", "studio/runs", "studio/work",
)  # fmt: skip
# The only files with imports inside functions: so that --help is instant, or a slow library waits.
LAZY = ("app.py", "engine/quantise.py", "studio/verbs/")


def product_files() -> list[Path]:
    files = [ROOT / "app.py"]
    for room in ROOMS:
        files += sorted((ROOT / room).rglob("*.py"))
    return files


def place(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path, *, top_only: bool = False) -> Iterator[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if top_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{place(path)}: say the whole path of an import"
            yield node.module or ""
            yield from (f"{node.module}.{name.name}" for name in node.names)


@pytest.mark.parametrize("path", product_files(), ids=place)
def test_rooms_import_only_downwards(path: Path) -> None:
    room = place(path).split("/")[0]
    for module in imports(path):
        other = module.split(".")[0]
        if other in ROOMS and room in ROOMS and other != room:
            assert other in MAY_IMPORT[room], f"{place(path)} imports {module}"


@pytest.mark.parametrize("path", product_files(), ids=place)
def test_libraries_stay_with_their_owners(path: Path) -> None:
    for module in imports(path):
        library = module.split(".")[0]
        assert library not in FORBIDDEN, f"{place(path)} imports {module}"
        assert "Trainer" not in module.split("."), f"{place(path)} imports {module}"
        owners = OWNERS.get(library)
        assert owners is None or place(path).startswith(owners), f"{place(path)} imports {module}"


@pytest.mark.parametrize("path", product_files(), ids=place)
def test_imports_stand_at_the_top(path: Path) -> None:
    if place(path).startswith(LAZY):
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = [
        node
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    assert not inside, f"{place(path)}, line {inside[0].lineno}: import inside a function"


def reached(path: Path, seen: set[Path]) -> set[str]:
    """Every library that importing this file imports, through our own files too."""
    libraries = set()
    for module in imports(path, top_only=True):
        parts = module.split(".")
        if parts[0] not in ROOMS:
            libraries.add(parts[0])
            continue
        for depth in range(1, len(parts) + 1):
            for candidate in (
                ROOT.joinpath(*parts[:depth]).with_suffix(".py"),
                ROOT.joinpath(*parts[:depth], "__init__.py"),
            ):
                if candidate.is_file() and candidate not in seen:
                    seen.add(candidate)
                    libraries |= reached(candidate, seen)
    return libraries


@pytest.mark.parametrize("name", TORCH_FREE)
def test_light_engine_files_reach_no_torch(name: str) -> None:
    assert not reached(ROOT / "engine" / f"{name}.py", set()) & {"torch", "transformers"}


def test_the_verbs_start_without_the_heavy_libraries() -> None:
    heavy = {"torch", "transformers", "duckdb", "sklearn", "bitsandbytes", "scipy"}
    assert not reached(ROOT / "studio" / "verbs" / "__init__.py", set()) & heavy


def test_no_two_files_import_each_other() -> None:
    edges = set()
    for path in product_files():
        own = place(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        edges |= {(own, module) for module in imports(path)}
    assert not [pair for pair in edges if pair[::-1] in edges and pair[0] != pair[1]]


@pytest.mark.parametrize("room", SIGNS)
def test_a_room_sign_names_every_file(room: str) -> None:
    sign = ast.get_docstring(ast.parse((ROOT / room / "__init__.py").read_text())) or ""
    for path in (ROOT / room).iterdir():
        if path.name.startswith("__"):
            continue
        name = path.name if path.suffix == ".py" else f"{path.name}/"
        assert name in sign, f"{room}/__init__.py does not mention {name}"


def test_no_file_is_called_utils_or_helpers() -> None:
    vague = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert not [place(path) for path in product_files() if path.stem in vague]
