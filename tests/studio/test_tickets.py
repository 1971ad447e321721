"""The promise, on the sample that ships: never better by mistake.

That tuning is better where it is, the journey through the page shows on the same sample.
"""

import csv
import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from data_prep.prepare import prepare
from data_prep.recipe import propose_recipe
from data_prep.upload import load_upload, read_upload
from engine.comparing.classical import train_classical
from engine.comparing.comparison import Comparison
from engine.comparing.metrics import score
from studio.home import Home
from studio.verbs import app
from templates.dataset import read_split
from tests.engine.tiny import save_tiny
from tests.studio.jobs.running import with_workers_at_once

pytestmark = pytest.mark.slow
TICKETS = Path(__file__).parents[2] / "data_prep" / "samples" / "tickets.csv"


def run_json(*arguments: object) -> dict:
    result = CliRunner().invoke(app, [*(str(argument) for argument in arguments), "--json"])
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def compared(*options: str, base: Path | str = "starter") -> Comparison:
    """Plan, train and compare the latest dataset."""
    extra = [part for option in options for part in ("-o", option)]
    plan = run_json("plan", "--base", base, *extra)
    run = run_json("train", plan["id"])
    return Comparison.model_validate(run_json("compare", run["run"])["comparison"])


def write_csv(path: Path, rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a fifth of the sample: enough rows to be mistaken about."""
    folder = tmp_path_factory.mktemp("tickets")
    home = with_workers_at_once(Home(folder / "home")).root
    with TICKETS.open(newline="", encoding="utf-8") as file:
        heading, *rows = csv.reader(file)
    write_csv(folder / "tickets.csv", [heading, *rows[::5]])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDIO_HOME", str(home))
        run_json("upload", folder / "tickets.csv")
        run_json("prepare")
    return home


@pytest.fixture(autouse=True)
def _home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_HOME", str(home))


def test_the_sample_is_neither_trivial_nor_hopeless(tmp_path: Path) -> None:
    read_upload(TICKETS, tmp_path / "up-1")
    found = []
    for seed in range(3):
        recipe = propose_recipe(load_upload(tmp_path / "up-1"), seed=seed)
        dataset = prepare(tmp_path / "up-1", recipe, tmp_path / "datasets")
        parts = [read_split(tmp_path / "datasets" / dataset.id, split)
                 for split in ("train", "validation", "test")]  # fmt: skip
        model = train_classical(*parts[:2], dataset.template, dataset.labels, metric="accuracy")
        answers = model.predict(parts[2])
        expected = [(example.label or "",) for example in parts[2]]
        found.append(score("accuracy", answers, expected).value)
    assert 65 <= sum(found) / 3 <= 90, found


def test_a_base_against_itself_is_never_better(home: Path, tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base", "llama")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 2048}))
    comparison = compared("learning_rate=1e-9", "max_steps=1", base=base)
    assert comparison.outcome != "better"


def test_a_model_trained_on_shuffled_labels_is_never_better(tmp_path: Path, home: Path) -> None:
    dataset = max((home / "datasets").glob("ds-*"), key=lambda path: path.stat().st_mtime)
    rows = []
    for split in ("train", "validation", "test"):
        examples = read_split(dataset, split)
        labels = [example.label for example in examples]
        if split == "train":
            random.Random(5).shuffle(labels)
        rows += [(example.fields["text"], label, split)
                 for example, label in zip(examples, labels, strict=True)]  # fmt: skip
    write_csv(tmp_path / "shuffled.csv", [("text", "team", "split"), *rows])
    run_json("upload", tmp_path / "shuffled.csv")
    run_json("prepare", "--split", "split")
    comparison = compared("epochs=1")
    assert comparison.outcome != "better", comparison.primary
