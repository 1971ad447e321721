"""The verbs through the command line: what a person types, and what comes back."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.models import CommandInfo
from typer.testing import CliRunner, Result

from engine.events import Stepped
from engine.jobs import Job
from studio.home import Home
from studio.verbs import app
from tests.engine.tiny import save_tiny
from tests.studio.jobs.running import (
    with_started_workers,
    with_workers_at_once,
    working_here,
)
from tests.studio.tables import write_table

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("base") / "tiny", "llama")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STUDIO_HOME", str(tmp_path / "home"))
    return with_workers_at_once(Home(tmp_path / "home")).root


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def run_json(*arguments: object) -> dict:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def planned(tmp_path: Path, base: Path, *options: str) -> str:
    """Upload, prepare and plan a small table; gives the id of the plan."""
    run_json("upload", write_table(tmp_path / "table.csv"))
    with working_here():
        run_json("prepare", "--base", base, "--skip", "mask_personal_data")
    extra = [part for option in options for part in ("-o", option)]
    return run_json("plan", "--base", base, "-o", "epochs=4", "-o", "rank=4", *extra)["id"]


def test_the_whole_journey_with_every_verb(tmp_path: Path, home: Path, base: Path) -> None:
    upload = run("upload", write_table(tmp_path / "table.csv"))
    assert "60 rows, csv, utf-8, delimiter ','" in upload.stdout
    prepare = run("prepare", "--base", base, "--augment", "word_noise", "--export", tmp_path / "x")
    assert "Splits: train" in prepare.stdout and "the loss sees" in prepare.stdout
    assert (tmp_path / "x" / "train.prompt_completion.jsonl").is_file()
    assert (tmp_path / "x" / "test.messages.jsonl").is_file()
    plan = run("plan", "--base", base, "-o", "rank=4", "-o", "epochs=3", "--save",
               tmp_path / "plan.json")  # fmt: skip
    assert "Estimated memory" in plan.stdout and "peak" in plan.stdout
    assert "can be served unmerged by transformers + peft, vLLM, LoRAX, llama.cpp" in plan.stdout
    train = run("train", tmp_path / "plan.json")
    assert train.exit_code == 0, train.stderr
    assert "best validation loss" in train.stdout
    compare = run("compare")
    assert compare.exit_code == 0, compare.stderr
    assert "looked at 1 time." in compare.stdout
    assert "looked at 2 times." in run("compare").stdout
    publish = run("publish", "--to", tmp_path / "model", "--zip")
    assert publish.exit_code == 0, publish.stderr
    assert (tmp_path / "model" / "adapter_config.json").is_file()
    assert (tmp_path / "model.zip").is_file()
    card = (tmp_path / "model" / "README.md").read_text()
    assert "TF-IDF" in card and "have been scored 2 times" in card
    merged = run("publish", "--to", tmp_path / "merged", "--form", "merged")
    assert merged.exit_code == 0 and (tmp_path / "merged" / "model.safetensors").is_file()
    (tmp_path / "new.csv").write_text("text\n=1+1 the box arrived\nwhere is my refund\n")
    predict = run("predict", tmp_path / "new.csv", "--to", tmp_path / "answers.csv")
    assert predict.exit_code == 0, predict.stderr
    lines = (tmp_path / "answers.csv").read_text().splitlines()
    assert lines[0] == "row,text,prediction" and len(lines) == 3
    assert lines[1].startswith("1,'=1+1 the box"), "a formula is neutralised"


def test_a_recipe_replays_to_identical_bytes(tmp_path: Path, home: Path, base: Path) -> None:
    run_json("upload", write_table(tmp_path / "table.csv"))
    first = run_json("prepare", "--base", base, "--augment", "word_noise", "--seed", 4)
    folder = home / "datasets" / first["id"]
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    recipe = tmp_path / "recipe.json"
    recipe.write_bytes(before["recipe.json"])
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    again = run_json("prepare", "--base", base, "--recipe", recipe)
    assert again == first
    assert before == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_stopped_by_a_signal_it_saves_and_says_how_to_go_on(
    tmp_path: Path, home: Path, base: Path
) -> None:
    plan = planned(tmp_path, base, "batch_size=2", "epochs=200", "patience=1000")
    process = subprocess.Popen(
        [sys.executable, "app.py", "train", plan], cwd=ROOT, env=dict(os.environ),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    jobs: list[Job] = []
    while time.monotonic() < deadline:
        jobs = [Job(path) for path in (home / "jobs").glob("train-*")]
        if jobs and any(isinstance(event, Stepped) for event in jobs[0].events()):
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert f"--resume {jobs[0].id}" in out and jobs[0].status().state == "stopped"


def test_changed_data_or_base_stop_the_run(tmp_path: Path, home: Path, base: Path) -> None:
    own = save_tiny(tmp_path / "own", "llama")
    plan = planned(tmp_path, own)
    config = own / "config.json"
    config.write_text(config.read_text().replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-05'))
    result = run("train", plan)
    assert result.exit_code == 1
    assert "base model's files changed" in result.stderr and "Run plan again" in result.stderr
    plan = planned(tmp_path, base)
    for path in (home / "datasets").glob("*/train.jsonl"):
        path.write_text(path.read_text() + "\n")
    result = run("train", plan)
    assert result.exit_code == 1 and "changed since it was prepared" in result.stderr


BAD = [
    (("upload", "nothing.csv"), "nothing.csv"),
    (("prepare", "up-nothing"), "There is no upload yet. Run upload first"),
    (("prepare",), "There is no upload yet"),
    (("plan", "ds-nothing"), "There is no dataset yet. Run prepare first"),
    (("plan", "--method", "magic"), "There is no method called 'magic'"),
    (("train", "plan-nothing"), "There is no plan yet. Run plan first"),
    (("train", "--resume", "train-x"), "There is no run yet. Run train first"),
    (("compare", "train-x"), "There is no run yet. Run train first"),
    (("publish", "train-x"), "There is no run yet. Run train first"),
    (("predict", "table.csv", "--run", "train-x"), "There is no run yet. Run train first"),
    (("predict", "table.csv", "--to", "answers.exe"), "cannot be written as .exe"),
    (("predict", "table.csv", "--temperature", "1", "--beams", "2"), "not both"),
]


@pytest.mark.parametrize(("arguments", "sentence"), BAD, ids=lambda value: " ".join(value)[:40])
def test_a_failing_verb_says_one_sentence(
    home: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    result = run(*arguments)
    assert result.exit_code == 1
    assert sentence in result.stderr and "Traceback" not in result.stderr
    assert result.stderr.strip().count("\n") == 0
    result = run(*arguments, "--json")
    error = json.loads(result.stderr)["error"]
    assert error["what"] and error["fix"] and not result.stdout


OPTIONS = [
    ("colour=red", "no setting called 'colour'"),
    ("rank", "has no value"),
    ("learning_rate=0", "learning_rate"),
    ("learning_rate=-1", "learning_rate"),
    ("learning_rate=nan", "learning_rate"),
    ("learning_rate=fast", "learning_rate"),
    ("learning_rate=", "learning_rate"),
    ("rank=0", "rank"),
    ("rank=33", "above the width"),
    ("targets=nothing", "no linear layer called 'nothing'"),
    ("batch_size=0", "batch_size"),
]


def test_wrong_options_name_their_field(tmp_path: Path, home: Path, base: Path) -> None:
    run_json("upload", write_table(tmp_path / "table.csv"))
    with working_here():
        run_json("prepare", "--base", base)
    for option, sentence in OPTIONS:
        result = run("plan", "--base", base, "-o", option)
        assert result.exit_code == 1, option
        assert sentence in result.stderr, option
        assert result.stderr.strip().count("\n") == 0, result.stderr


def test_an_unforeseen_error_is_kept_but_not_shown(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studio.home.Home.find", lambda *_: 1 / 0)
    result = run("compare")
    assert result.exit_code == 70 and "Traceback" not in result.stderr
    assert "did not foresee" in result.stderr
    log = next(home.glob("error-*.log"))
    assert "ZeroDivisionError" in log.read_text() and log.name in result.stderr


def test_a_full_disk_is_a_sentence(
    tmp_path: Path, home: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(tmp_path, base)
    with_started_workers(Home(home))  # which inherit the limit
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (12000, 12000)); "
        "from studio.verbs import app; app(['train', sys.argv[1]])"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, plan], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 1, result.stderr
    assert "The disk is full: a checkpoint of" in result.stderr
    assert "Free some space" in result.stderr and "Traceback" not in result.stderr


def verb_name(command: CommandInfo) -> str:
    return command.name or command.callback.__name__


@pytest.mark.parametrize("command", app.registered_commands, ids=verb_name)
def test_every_verb_explains_itself(command: object) -> None:
    result = run(verb_name(command), "--help")
    assert result.exit_code == 0 and "Usage" in result.stdout
    assert command.callback.__doc__.splitlines()[0][:40] in result.stdout


def test_methods_are_listed() -> None:
    result = run("plan", "--list")
    assert all(name in result.stdout for name in ("full", "lora", "qlora", "prompt_tuning"))
