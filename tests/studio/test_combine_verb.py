"""The verb that adds up LoRA adapters: the sum is that of `peft`, and mistakes are told."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner, Result

from studio.verbs import app
from tests.engine.methods.low_rank import (
    exported,
    in_peft,
    logits_of,
    made_by_peft,
    plain_base,
    tuned_model,
)

# peft 0.21.2 asks transformers 5.23 by a name on its way out.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_HOME", str(tmp_path / "home"))


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """Adapters of one base: one made by the library, one by ours."""
    made_by_peft(tmp_path, "llama")
    first = shutil.move(tmp_path / "adapter", tmp_path / "first")
    tuned = tuned_model(tmp_path, "llama", "rslora", rank=2, targets=("q_proj", "o_proj"))
    exported(tmp_path, tuned, "rslora", rank=2, targets=("q_proj", "o_proj"))
    return first, Path(shutil.move(tmp_path / "adapter", tmp_path / "second"))


def run(tmp_path: Path, *words: object) -> Result:
    base = ("--base", tmp_path / "base", "--out", tmp_path / "adapter")
    return CliRunner().invoke(app, ["combine", *map(str, (*words, *base))])


def test_the_sum_is_that_of_peft(tmp_path: Path, two: tuple[Path, Path]) -> None:
    done = run(tmp_path, f"{two[0]}=0.7", f"{two[1]}=-0.4", "--json")
    assert done.exit_code == 0, done.stderr
    about = json.loads(done.stdout)
    assert about["method"] == "lora"
    theirs = PeftModel.from_pretrained(plain_base(tmp_path, "llama"), two[0], adapter_name="a")
    before = logits_of(theirs)
    theirs.load_adapter(two[1], adapter_name="b")
    theirs.add_weighted_adapter(["a", "b"], [0.7, -0.4], "sum", combination_type="cat")
    theirs.set_adapter("sum")
    expected = logits_of(theirs)
    assert not torch.allclose(expected, before, atol=1e-2)
    assert torch.allclose(logits_of(in_peft(tmp_path, "llama")), expected, atol=1e-4)


def test_a_sum_is_opened_on_its_own_base_alone(tmp_path: Path, two: tuple[Path, Path]) -> None:
    done = run(tmp_path, f"{two[0]}=0.5", two[1])
    assert done.exit_code == 0, done.stderr
    record = json.loads((tmp_path / "adapter" / "studio_run.json").read_text())
    assert record["parts"] == [["first", 0.5], ["second", 1.0]]
    assert str(tmp_path) not in json.dumps(record)
    other = tmp_path / "other" / "base"
    shutil.copytree(tmp_path / "base", other)
    weights = load_file(other / "model.safetensors")
    save_file(
        {name: 2 * value for name, value in weights.items()},
        other / "model.safetensors",
        metadata={"format": "pt"},
    )
    opened = CliRunner().invoke(app, ["adapter", str(tmp_path / "adapter"), "--base", str(other)])
    assert opened.exit_code == 1 and "other weights of it" in opened.stderr, opened.stderr


def test_without_a_weight_it_is_one(tmp_path: Path, two: tuple[Path, Path]) -> None:
    done = run(tmp_path, two[0])
    assert done.exit_code == 0 and "LoRA of rank 4" in done.stdout, done.stderr
    alone = PeftModel.from_pretrained(plain_base(tmp_path, "llama"), two[0])
    assert torch.allclose(logits_of(in_peft(tmp_path, "llama")), logits_of(alone), atol=1e-4)


def test_mistakes_are_told_and_nothing_is_left(tmp_path: Path, two: tuple[Path, Path]) -> None:
    tuned = tuned_model(tmp_path, "llama", "ia3")
    scales = exported(tmp_path, tuned, "ia3")
    third = shutil.move(scales, tmp_path / "third")
    for words, said in [
        ((f"{two[0]}=much",), "'much' is no weight"),
        ((f"{two[0]}=inf",), "'inf' is no weight"),
        ((f"{two[0]}=1", two[0]), "named twice"),
        ((two[0], f"{two[1]}/../first"), "named twice"),
        ((f"{two[0]}=1e39",), "too large to be written"),
        ((two[0], third), "no low-rank change"),
        ((two[0], tmp_path / "nowhere"), "adapter_config.json"),
    ]:
        done = run(tmp_path, *words)
        assert done.exit_code == 1 and said in done.stderr, (words, done.stderr)
        assert "Traceback" not in done.stderr
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "mine.txt").write_text("mine")
    done = run(tmp_path, two[0])
    assert done.exit_code == 1 and "something at the place" in done.stderr
    left = {path.name for path in tmp_path.iterdir()} - {"home"}
    assert left == {"base", "first", "second", "third", "adapter"}
    assert [path.name for path in (tmp_path / "adapter").iterdir()] == ["mine.txt"]
