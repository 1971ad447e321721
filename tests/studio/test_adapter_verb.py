"""The verb that opens an adapter from anywhere: what it says, and what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from studio.verbs import app
from tests.engine.methods.low_rank import exported, made_by_peft, tuned_model
from tests.engine.tiny import save_tiny, tiny_tokenizer

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_HOME", str(tmp_path / "home"))


def run(folder: Path, base: Path, *arguments: object) -> Result:
    words = ["adapter", folder, "--base", base, *arguments]
    return CliRunner().invoke(app, [str(word) for word in words])


def test_what_peft_made_is_described_and_answers(tmp_path: Path) -> None:
    theirs = made_by_peft(tmp_path, "llama", rank_pattern={"down_proj": 6}, lora_alpha=128)
    found = json.loads(run(tmp_path / "adapter", tmp_path / "base", "--json").stdout)
    assert found["method"] == "lora" and found["options"]["targets"] == ["down_proj", "q_proj"]
    q_proj, down_proj = sorted(found["learned"], key=lambda part: part["layer"], reverse=True)
    assert q_proj["layer"] == "q_proj" and q_proj["num_layers"] == 2
    assert q_proj["shapes"] == {"lora_A": [4, 32], "lora_B": [32, 4]}
    assert down_proj["num_values"] == 2 * 6 * (48 + 32)
    assert found["num_values"] == q_proj["num_values"] + down_proj["num_values"]
    assert found["file_bytes"] == (tmp_path / "adapter" / TENSORS).stat().st_size
    ask = ("--prompt", "the parcel", "--max-new-tokens", "8")
    answered = json.loads(run(tmp_path / "adapter", tmp_path / "base", *ask, "--json").stdout)
    tokenizer = tiny_tokenizer()
    read = tokenizer("the parcel", return_tensors="pt")
    written = theirs.eval().generate(**read, max_new_tokens=8, do_sample=False)[0]
    expected = tokenizer.decode(written[read["input_ids"].shape[1] :], skip_special_tokens=True)
    assert answered["answers"]["adapter"] == expected.strip() != answered["answers"]["base"]
    shown = run(tmp_path / "adapter", tmp_path / "base", *ask)
    assert shown.exit_code == 0, shown.stderr
    assert "LoRA: 1,472 learned values" in shown.stdout and "lora_A 4 x 32" in shown.stdout
    assert "With the adapter:" in shown.stdout


@pytest.mark.parametrize(
    ("method", "options"),
    [("prompt_tuning", {"num_tokens": 5}), ("prefix", {"num_tokens": 5}), ("dora", {"rank": 4})],
)
def test_every_kind_answers_a_chat_too(tmp_path: Path, method: str, options: dict) -> None:
    tuned = tuned_model(tmp_path, "llama", method, **options)
    folder = exported(tmp_path, tuned, method, **options)
    base = save_tiny(tmp_path / "chat", "llama", chat=True)
    ask = ("--prompt", "where is it", "--max-new-tokens", "4", "--json")
    done = run(folder, base, *ask)
    assert done.exit_code == 0, done.stderr
    assert json.loads(done.stdout)["method"] == method


def test_a_rank_above_the_width_of_its_layers_is_brought_down(tmp_path: Path) -> None:
    made_by_peft(tmp_path, "llama", r=40)
    done = run(tmp_path / "adapter", tmp_path / "base", "--json")
    assert done.exit_code == 0, done.stderr
    [part] = [p for p in json.loads(done.stdout)["learned"] if p["layer"] == "q_proj"]
    assert part["shapes"] == {"lora_A": [32, 32], "lora_B": [32, 32]}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    made_by_peft(folder, "llama")
    return folder


def truncated(folder: Path) -> None:
    content = (folder / TENSORS).read_bytes()
    (folder / TENSORS).write_bytes(content[: len(content) // 2])


def corrupted(folder: Path) -> None:
    (folder / TENSORS).write_bytes(b"\xff" * 64)


def pickled(folder: Path) -> None:
    (folder / TENSORS).rename(folder / "adapter_model.bin")


def without_config(folder: Path) -> None:
    (folder / CONFIG).unlink()


def configured(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        (folder / CONFIG).write_text(json.dumps(config | changes), encoding="utf-8")

    return change


def with_a_wrong_shape(folder: Path) -> None:
    tensors = load_file(folder / TENSORS)
    name = next(iter(tensors))
    save_file(tensors | {name: torch.zeros(4, 7)}, folder / TENSORS)


BAD = [
    (truncated, "tensors cannot be read", "Download the adapter again"),
    (corrupted, "tensors cannot be read", "Download the adapter again"),
    (pickled, "pickle format, which can run code", "Save it again as safetensors"),
    (without_config, "no readable adapter_config.json", "complete adapter folder"),
    (with_a_wrong_shape, "has shape (4, 7)", "base it was made for"),
    (configured(r=6), "instead of (6, 48)", "base it was made for"),
    (configured(auto_map={"x": "y.py"}), "run its own code", "needs no code of its own"),
    (configured(peft_type="OFT"), "'OFT' cannot be opened", "Choose an adapter of"),
    (configured(peft_type=["LORA"]), "cannot be opened", "Choose an adapter of"),
    (configured(r=[4]), "no rank and no alpha", ""),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "words", "fix"), BAD)
def test_what_is_not_sound_is_refused_in_one_sentence(
    sound: Path, tmp_path: Path, spoil: Callable[[Path], None], words: str, fix: str
) -> None:
    folder = tmp_path / "adapter"
    folder.mkdir()
    for name in (CONFIG, TENSORS):
        (folder / name).write_bytes((sound / "adapter" / name).read_bytes())
    spoil(folder)
    refused = run(folder, sound / "base", "--prompt", "hello", "--json")
    assert refused.exit_code == 1, refused.stderr
    assert not refused.stdout, "nothing was answered"
    error = json.loads(refused.stderr)["error"]
    assert words in refused.stderr and fix in error["fix"] and error["fix"]


@pytest.mark.parametrize(
    ("architecture", "words"),
    [("gpt2", "has no such linear layer"), ("qwen3", "has shape (32, 4) instead of (64, 4)")],
)
def test_an_adapter_of_another_base_is_refused(
    sound: Path, tmp_path: Path, architecture: str, words: str
) -> None:
    base = save_tiny(tmp_path / "other", architecture)
    refused = run(sound / "adapter", base, "--prompt", "hello")
    assert refused.exit_code == 1 and not refused.stdout
    assert words in refused.stderr and "Open the adapter with the base it was" in refused.stderr
    assert "Traceback" not in refused.stderr and refused.stderr.strip().count("\n") == 0


def test_a_folder_that_is_none_and_a_missing_base(sound: Path, tmp_path: Path) -> None:
    nothing = run(tmp_path / "nothing", sound / "base")
    assert nothing.exit_code == 1 and "no readable adapter_config.json" in nothing.stderr
    no_base = run(sound / "adapter", tmp_path / "nothing")
    assert no_base.exit_code == 1 and "Traceback" not in no_base.stderr
