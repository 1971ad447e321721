"""The client with its real child: what hangs, explodes or dies costs one sentence."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from typer.testing import CliRunner, Result

from data_prep.recipe import PrepRecipe
from engine.jobs import Job
from engine.liveness import find_process
from studio.engine_service import EngineService
from studio.verbs import app
from templates.builtin import TEMPLATES
from templates.errors import DataError, ModelError, RunError
from templates.memory import memory_bytes
from tests.engine.tiny import save_tiny
from tests.engine.tried import dataset_for, trained_run, with_chat_template
from tests.faults import fault
from tests.studio.watching import in_background, is_gone

ROOT = Path(__file__).parents[2]
LOOP = "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}"
DOUBLING = (
    "{% set ns = namespace(x='a' * 1000000) %}"
    "{% for i in range(30) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}"
)
PARENT = """
import sys, threading, time
from studio.engine_service import EngineService
engine = EngineService()
assert "lora" in engine.call("methods")["methods"]
heavy = {"torch", "transformers", "numpy", "safetensors", "tokenizers"} & set(sys.modules)
assert not heavy, heavy
arguments = {"dataset_folder": sys.argv[1], "base": sys.argv[2]}
threading.Thread(target=engine.call, args=("preview", arguments), daemon=True).start()
time.sleep(0.5)
print(engine.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[EngineService]:
    # 1.2 GB: twice what the child holds when it starts.
    with EngineService(memory_ratio=1.2e9 / memory_bytes()[1]) as service:
        yield service


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data, a sound base, and bases that are foreign code."""
    folder = tmp_path_factory.mktemp("place")
    dataset_for(folder / "ds-1", "classification")
    save_tiny(folder / "sound", "llama")
    with_chat_template(folder / "looping", LOOP)
    with_chat_template(folder / "doubling", DOUBLING)
    _write_exploding_tokenizer(save_tiny(folder / "exploding", "llama"))
    return folder


def _write_exploding_tokenizer(folder: Path) -> None:
    """Each of the replacements makes a text a thousand times as long."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    step = {"type": "Replace", "pattern": {"String": "e"}, "content": "e" * 1000}
    content["normalizer"] = {"type": "Sequence", "normalizers": [step] * 4}
    path.write_text(json.dumps(content))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return trained_run(tmp_path_factory.mktemp("run"), "generation")


def preview_of(place: Path, base: str) -> dict[str, Any]:
    return {"dataset_folder": place / "ds-1", "base": place / base}


def wait_until_busy(engine: EngineService) -> int:
    """Give the child's id, once the looping template has used some processor time."""
    pid = engine.pid
    before = sum(psutil.Process(pid).cpu_times()[:2])
    while sum(psutil.Process(pid).cpu_times()[:2]) < before + 0.3:
        time.sleep(0.05)
    return pid


def test_results_and_errors_come_back_as_they_are(engine: EngineService, place: Path) -> None:
    found = engine.call("preview", preview_of(place, "sound"))
    assert len(found["items"]) == 3
    with pytest.raises(DataError, match=r"no prepared data here \(nothing\). Run prepare first"):
        engine.call("preview", {"dataset_folder": place / "nothing"})
    with pytest.raises(RunError, match="no operation 'fly'"):
        engine.call("fly")


def test_a_try_comes_in_parts(engine: EngineService, run: dict[str, Any]) -> None:
    answer = engine.stream("try", {**run, "fields": {"input": "my parcel"}, "max_new_tokens": 20})
    said = {"base": "", "tuned": ""}
    for part in answer:
        said[part["arm"]] += part["text"]
    assert said == {arm: found["answer"] for arm, found in answer.result.items()}
    assert next(answer, None) is None and answer.result, "the end is the end"


def test_a_try_that_nobody_reads_on_is_stopped(engine: EngineService, run: dict[str, Any]) -> None:
    pid = engine.pid
    answer = engine.stream("try", {**run, "fields": {"input": "my parcel"}, "max_new_tokens": 60})
    assert next(answer)["arm"] == "base"
    answer.close()
    assert engine.call("ping")["pid"] == pid and answer.result is None


def test_a_busy_device_is_a_sentence(engine: EngineService, run: dict[str, Any]) -> None:
    run["device_lock"].parent.mkdir(parents=True, exist_ok=True)
    with run["device_lock"].open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RunError, match=r"The device is busy with a job. Wait until it ends"):
            engine.call("try", {**run, "fields": {"input": "my parcel"}})
    assert engine.call("try", {**run, "fields": {"input": "my parcel"}, "max_new_tokens": 2})


@fault(23, "A chat template that never ends", "A sentence; the engine restarts once")
@pytest.mark.slow
def test_a_looping_chat_template_costs_one_restart(engine: EngineService, place: Path) -> None:
    pid = engine.call("ping")["pid"]
    started = time.monotonic()
    with pytest.raises(RunError, match=r"longer than 1 s and was restarted \(preview\)\. Try less"):
        engine.call("preview", preview_of(place, "looping"), timeout_seconds=1)
    assert time.monotonic() - started < 5 and is_gone(pid, 0)
    assert engine.call("ping")["pid"] != pid


@fault(23, "A chat template that eats memory", "A sentence; the engine lives on")
@pytest.mark.slow
def test_a_memory_hungry_chat_template_is_an_error(engine: EngineService, place: Path) -> None:
    pid = engine.call("ping")["pid"]
    with pytest.raises(ModelError, match="chat template refuses"):
        engine.call("preview", preview_of(place, "doubling"))
    assert engine.call("ping")["pid"] == pid


@fault(23, "A tokenizer that eats memory", "A sentence; the engine restarts once")
@pytest.mark.slow
def test_a_memory_hungry_tokenizer_costs_one_restart(engine: EngineService, place: Path) -> None:
    pid = engine.call("ping")["pid"]
    with pytest.raises(RunError, match="memory"):
        engine.call("preview", preview_of(place, "exploding"))
    assert len(engine.call("preview", preview_of(place, "sound"))["items"]) == 3
    assert is_gone(pid, 0)


@fault(6, "SIGKILL of the engine while it answers", "A sentence; the next question starts it again")
@pytest.mark.slow
def test_a_child_killed_at_work_is_a_sentence(engine: EngineService, place: Path) -> None:
    engine.call("ping")
    working, found = in_background(lambda: engine.call("preview", preview_of(place, "looping")))
    pid = wait_until_busy(engine)
    waiting, error = in_background(lambda: engine.call("ping", timeout_seconds=0.1))
    waiting.join()
    assert "busy with another request" in str(error[0])
    os.kill(pid, signal.SIGKILL)
    working.join()
    assert "ended in the middle of its work and was restarted" in str(found[0])
    assert engine.call("ping")["pid"] != pid


@fault(24, "SIGKILL of the server while the engine works", "The engine ends with it")
@pytest.mark.slow
def test_a_parent_is_light_and_killed_it_takes_the_child_with_it(place: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(place / "ds-1"), str(place / "looping")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as parent:
        pid = int(parent.stdout.readline())
        assert find_process(pid)
        parent.kill()
    assert is_gone(pid, 5)


def tried(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["try", *arguments])


def put_run(home: Path, method: str = "lora") -> None:
    """Train a run of a method, and put it with its data where the verbs look."""
    made = trained_run(home.parent / "made", "classification", method)
    (home / "jobs").mkdir(exist_ok=True, parents=True)
    (home / "datasets").mkdir(exist_ok=True)
    made["run_folder"].rename(home / "jobs" / "train-1")
    made["dataset_folder"].rename(home / "datasets" / "ds-1")


@pytest.mark.slow
def test_the_verb_shows_which_words_a_soft_prompt_resembles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUDIO_HOME", str(tmp_path / "home"))
    put_run(tmp_path / "home", "prompt_tuning")
    for name in ("inside.json", "inside.html"):
        inside = ["jobs", "inside", "train-1", "--to", str(tmp_path / name)]
        looked = CliRunner().invoke(app, inside)
        assert looked.exit_code == 0, looked.stderr
    written = json.loads((tmp_path / "inside.json").read_text(encoding="utf-8"))
    assert written["prompt"] and not written["layers"]
    for place, vector in enumerate(written["prompt"]):
        cosines = [near["cosine"] for near in vector["nearest"]]
        assert vector["place"] == place and cosines == sorted(cosines, reverse=True)
    nearest = written["prompt"][0]["nearest"][0]["token"].strip()
    assert nearest in looked.stdout
    assert nearest in (tmp_path / "inside.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_verb_shows_both_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("STUDIO_HOME", str(home))
    assert "There is no run yet" in tried("a text").stderr
    put_run(home)
    recipe = {"template": TEMPLATES["classification"], "mapping": {"fields": {"text": "text"}}}
    text = PrepRecipe.model_validate(recipe).to_json()
    (home / "datasets" / "ds-1" / "recipe.json").write_text(text, encoding="utf-8")
    shown = tried("where is my parcel, mail jo@example.org")
    assert shown.exit_code == 0, shown.stderr
    assert "Base, task described:" in shown.stdout and "How likely each label is" in shown.stdout
    found = json.loads(tried("where is it", "--run", "train-1", "--json").stdout)
    assert found["run"] == "train-1" and len(found["tuned"]["labels"]) == 3
    for arguments, words in (
        (("a", "--field", "colour"), "missing its value"),
        (("a", "--field", "text=b"), "no field left for the text"),
    ):
        failed = tried(*arguments)
        assert failed.exit_code == 1 and words in failed.stderr
    inside = ["jobs", "inside", "train-1", "--to", str(tmp_path / "inside.json")]
    looked = CliRunner().invoke(app, inside)
    assert looked.exit_code == 0, looked.stderr
    assert "What moved most" in looked.stdout and "effective rank" in looked.stdout
    written = json.loads((tmp_path / "inside.json").read_text(encoding="utf-8"))
    assert written["run"] == "train-1" and not written["prompt"]
    assert all(layer["change_ratio"] > 0 for layer in written["layers"])
    assert all(1 < layer["effective_rank"] <= 4.001 for layer in written["layers"]), "of rank 4"
    request = Job(home / "jobs" / "train-1").folder / "request.json"
    (home / "jobs" / "train-2").mkdir()
    (home / "jobs" / "train-2" / "request.json").write_text(request.read_text())
    assert "has not begun" in tried("a", "--run", "train-2").stderr
