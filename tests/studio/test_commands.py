"""The lines that pages show: typed into a shell, they do what the page did."""

import json
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from data_prep.recipe import propose_recipe
from data_prep.upload import load_upload
from engine.plan import read_plan
from engine.planning.choices import EstimateRequest
from engine.service import describe_methods, estimate
from studio.commands import (
    compare_command,
    inside_command,
    plan_command,
    predict_command,
    prepare_command,
    publish_command,
    train_command,
    try_command,
    upload_command,
)
from studio.home import Home
from studio.verbs import app
from tests.engine.tiny import save_tiny
from tests.studio.jobs.running import with_workers_at_once
from tests.studio.tables import write_table

DESCRIBED = describe_methods()


def choices(**changes: object) -> EstimateRequest:
    return EstimateRequest.model_validate({"dataset_folder": Path("home/ds-1"), **changes})


def words(line: str) -> list[str]:
    parts = shlex.split(line)
    assert parts[:2] == ["python", "app.py"]
    return parts[2:]


def test_only_what_differs_is_written() -> None:
    assert plan_command(choices()) == "python app.py plan ds-1"
    every_default = {
        "options": {"rank": 8, "alpha": 16.0, "dropout": 0.0, "targets": ["all-linear"]},
        "schedule": {"epochs": 6, "shape": "cosine"},
        "limits": {"max_length_tokens": 0, "too_long": "drop"},
    }
    assert plan_command(choices(**every_default), DESCRIBED) == "python app.py plan ds-1"
    changed = choices(
        base="org/name", revision="main", method="lora", precision="bf16", seed=3,
        options={"rank": 4, "alpha": 16, "targets": ["q_proj", "v_proj"]},
        schedule={"epochs": 2, "learning_rate": 2e-4, "micro_batch_tokens": 16},
        limits={"too_long": "cut"},
    )  # fmt: skip
    assert words(plan_command(changed, DESCRIBED)) == [
        "plan", "--base", "org/name", "--revision", "main", "--precision", "bf16", "--seed", "3",
        "--option", "rank=4", "--option", "targets=q_proj,v_proj", "--option", "epochs=2",
        "--option", "learning_rate=0.0002", "--option", "micro_batch_tokens=16",
        "--option", "too_long=cut", "ds-1",
    ]  # fmt: skip


def test_text_of_a_person_stays_one_word() -> None:
    nasty = '\'; rm -rf ~; echo $(id) `id` \n"x" é'
    tuned = choices(method="prompt_tuning", options={"start": "text", "text": nasty})
    assert f"text={nasty}" in words(plan_command(tuned, DESCRIBED))
    assert words(upload_command(Path("my table;.csv"), name=nasty, delimiter="\t")) == [
        "upload", "--name", nasty, "--delimiter", "tab", "my table;.csv",
    ]  # fmt: skip
    assert words(upload_command(Path("-x.csv"), name="-n")) == [
        "upload", "--name=-n", "--", "-x.csv",
    ]  # fmt: skip
    assert words(upload_command(Path("my upload.xlsx"), has_header=False, sheet="Q 1")) == [
        "upload", "--sheet", "Q 1", "--no-header", "my upload.xlsx",
    ]  # fmt: skip


def test_the_other_steps_have_a_line() -> None:
    assert prepare_command("up-1") == "python app.py prepare up-1"
    recipe = prepare_command("up-1", Path("recipe.json"), "org/name")
    assert recipe == "python app.py prepare --recipe recipe.json --base org/name up-1"
    assert train_command("plan-1") == "python app.py train plan-1"
    assert train_command("plan-1", resume="train-2") == "python app.py train --resume train-2"
    assert compare_command("train-2") == "python app.py compare train-2"
    assert words(compare_command("train-2", seed=1, max_new_tokens=9)) == [
        "compare", "--seed", "1", "--max-new-tokens", "9", "train-2",
    ]  # fmt: skip
    published = publish_command("train-2", Path("a b"), form="merged", name="N", zipped=True)
    assert words(published) == [
        "publish", "--to", "a b", "--form", "merged", "--name", "N", "train-2", "--zip",
    ]  # fmt: skip
    sent = publish_command("train-2", repo_id="alice/x")
    assert words(sent) == ["publish", "--hub", "alice/x", "train-2"]
    assert words(publish_command("train-2", repo_id="alice/x", private=False)) == [
        "publish", "--hub", "alice/x", "--confirm", "alice/x", "train-2", "--public",
    ]  # fmt: skip


@pytest.mark.slow
def test_the_lines_do_what_the_page_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_HOME", str(tmp_path / "home"))
    with_workers_at_once(Home())
    base = save_tiny(tmp_path / "a base", "llama")
    table = write_table(tmp_path / "my table.csv")

    def run(line: str) -> None:
        result = CliRunner().invoke(app, words(line))
        assert result.exit_code == 0, result.stderr

    run(upload_command(table, name="it's mine", delimiter=","))
    home = Home()
    upload = home.find("upload", "latest")
    assert json.loads((upload / "upload.json").read_text())["name"] == "it's mine"
    recipe = propose_recipe(load_upload(upload), seed=7)
    (tmp_path / "recipe.json").write_text(recipe.model_dump_json())
    run(prepare_command(upload.name, tmp_path / "recipe.json", str(base)))
    folder = home.find("dataset", "latest")
    assert json.loads((folder / "recipe.json").read_text())["seed"] == 7
    chosen = EstimateRequest(
        dataset_folder=folder, base=str(base), method="prompt_tuning", precision="bf16", seed=5,
        options={"num_tokens": 5, "start": "text", "text": "it's a 'test', or \"not\""},
        schedule={"epochs": 2, "batch_size": 4, "learning_rate": 1e-2},
        limits={"max_length_tokens": 90},
    )  # fmt: skip
    run(plan_command(chosen, DESCRIBED))
    written = read_plan(home.find("plan", "latest"))
    assert written.model_dump(mode="json") == estimate(chosen)["plan"]


def test_a_text_is_quoted_and_further_fields_are_named() -> None:
    line = try_command("train-1", {"premise": "it's $HOME; rm -rf", "other": "a=b"})
    assert words(line) == [
        "try", "--run", "train-1", "--field", "other=a=b", "it's $HOME; rm -rf"
    ]  # fmt: skip
    assert words(try_command("train-1", {"text": "--json"}))[-2:] == ["--", "--json"]
    assert words(inside_command("train-1")) == ["jobs", "inside", "--to", "inside.html", "train-1"]
    line = predict_command("train-1", Path("my table.csv"))
    assert words(line) == ["predict", "--run", "train-1", "my table.csv"]
