"""Adapters that the real `peft` made compute the same here, or are refused in words."""

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.adapter_import import open_adapter, read_adapter
from engine.base_model import BaseFolder, locate_base
from engine.layers import modules_of
from engine.methods.lora import LoraLinear
from engine.publishing.publication import RECORD
from engine.publishing.publish import publish
from engine.runs import load_run, open_planned_base
from templates.errors import ModelError
from tests.engine.methods.low_rank import NAMES, exported, logits_of, made_by_peft, tuned_model
from tests.engine.publishing.published import finished_run
from tests.engine.tiny import ARCHITECTURES, save_tiny

SETTINGS = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
}


@pytest.mark.parametrize(
    ("kind", "architecture"),
    [*product(SETTINGS, ARCHITECTURES), ("lora", "phi3"), ("lora", "gpt_neox")],
)
def test_what_peft_made_computes_the_same_here(
    tmp_path: Path, kind: str, architecture: str
) -> None:
    name = NAMES[architecture][1]
    patterns = {"rank_pattern": {name: 6}, "alpha_pattern": {name: 3}}
    theirs = logits_of(made_by_peft(tmp_path, architecture, **SETTINGS[kind], **patterns))
    base = locate_base(str(tmp_path / "base"))
    adapter = read_adapter(tmp_path / "adapter", base)
    assert adapter.method == kind
    ours = open_adapter(tmp_path / "adapter", base, "fp32").model
    assert {layer.rank for path, layer in modules_of(ours, LoraLinear) if path.endswith(name)} == {
        6
    }
    assert torch.allclose(logits_of(ours), theirs, atol=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"use_dora": True, "use_rslora": True}, id="both"),
        pytest.param({"layers_to_transform": [1]}, id="one-block"),
        pytest.param({"target_modules": r".*\.1\..*(q|v)_proj"}, id="by-expression"),
        pytest.param({"target_modules": "all-linear", "init_lora_weights": "gaussian"}, id="all"),
        pytest.param({"rank_pattern": {r"^model\.layers\.0\.self_attn\.q_proj": 2}}, id="path"),
    ],
)
def test_other_ways_of_choosing_layers(tmp_path: Path, settings: dict[str, Any]) -> None:
    theirs = logits_of(made_by_peft(tmp_path, "llama", **settings))
    base = locate_base(str(tmp_path / "base"))
    ours = open_adapter(tmp_path / "adapter", base, "fp32").model
    assert torch.allclose(logits_of(ours), theirs, atol=1e-4)


@pytest.mark.filterwarnings("ignore:Adapter .* have invalid shape")  # its own biases
@pytest.mark.parametrize("setting", ["use_rslora", "use_dora", "lora_bias", "none"])
def test_a_rank_above_a_layers_width_is_brought_down_to_it(tmp_path: Path, setting: str) -> None:
    """Where a shared expert has a gate of one output, the library gives it the rank of all."""
    settings: dict[str, Any] = {} if setting == "none" else {setting: True}
    theirs = made_by_peft(tmp_path, "qwen2_moe", target_modules="all-linear", **settings)
    base = locate_base(str(tmp_path / "base"))
    ours = open_adapter(tmp_path / "adapter", base, "fp32").model
    ranks = {path.rpartition(".")[2]: layer.rank for path, layer in modules_of(ours, LoraLinear)}
    assert ranks["shared_expert_gate"] == 1 and ranks["q_proj"] == 4
    assert torch.allclose(logits_of(ours), logits_of(theirs), atol=1e-4)


def test_a_lora_opens_on_a_4_bit_base_too(tmp_path: Path) -> None:
    made_by_peft(tmp_path, "llama")
    opened = open_adapter(tmp_path / "adapter", locate_base(str(tmp_path / "base")), "nf4")
    assert torch.isfinite(logits_of(opened.model)).all() and opened.precision == "nf4"


def test_what_we_published_is_opened_like_any_other(tmp_path: Path) -> None:
    run = finished_run(tmp_path, "random_rank", rank=8)
    publish(run, tmp_path / "out", form="adapter")
    opened = open_adapter(tmp_path / "out", open_planned_base(run.plan), "fp32")
    ours = logits_of(load_run(run.plan, run.checkpoints).model)
    assert torch.allclose(ours, logits_of(opened.model), atol=1e-4)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound")
    made_by_peft(folder, "llama")
    return folder


class Copy:
    """A copy of the sound adapter, to be spoiled."""

    def __init__(self, sound: Path, folder: Path) -> None:
        self.folder, self.base = folder, locate_base(str(sound / "base"))
        self.config = json.loads((sound / "adapter/adapter_config.json").read_text())
        self.tensors = load_file(sound / "adapter/adapter_model.safetensors")

    def refused(self, base: BaseFolder | None = None) -> str:
        (self.folder / "adapter_config.json").write_text(json.dumps(self.config))
        if self.tensors:
            save_file(self.tensors, self.folder / "adapter_model.safetensors")
        with pytest.raises(ModelError) as raised:
            read_adapter(self.folder, base or self.base)
        return str(raised.value)


@pytest.fixture
def copy(sound: Path, tmp_path: Path) -> Copy:
    return Copy(sound, tmp_path)


LAYER = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"peft_type": "OFT"}, "type 'OFT' cannot be opened (adapter_config.json, peft_type)"),
        ({"peft_type": None}, "type None cannot be opened"),
        ({"auto_map": {"x": "y.py"}}, "wants to run its own code"),
        ({"init_lora_weights": "pissa"}, "started with 'pissa', which changes the base too"),
        ({"modules_to_save": ["lm_head"]}, "uses 'modules_to_save', which cannot be taken over"),
        ({"bias": "all"}, "uses 'bias', which cannot be taken over"),
        ({"something_new": 1}, "uses 'something_new'"),
        ({"rank_pattern": {"(q|v)_proj": 4}}, "a regular expression, '(q|v)_proj'"),
        ({"rank_pattern": {"q_proj": 3}}, "has shape (4, 32) instead of (3, 32)"),
        ({"r": "4"}, "'4' is no rank and no alpha"),
        ({"lora_alpha": 0}, "0 is no rank and no alpha"),
        ({"use_dora": True}, "lacks a tensor"),
        ({"target_modules": ["q_proj", "k_proj", "down_proj"]}, "lacks the tensors of a layer"),
    ],
)
def test_a_setting_that_cannot_be_taken_over(
    copy: Copy, changes: dict[str, Any], words: str
) -> None:
    copy.config |= changes
    assert words in copy.refused()


@pytest.mark.parametrize(
    ("name", "shape", "words"),
    [
        (f"{LAYER}.lora_B.weight", None, "lacks a tensor"),
        (f"{LAYER}.lora_A.weight", (4, 31), "has shape (4, 31) instead of (4, 32)"),
        (f"{LAYER}.lora_magnitude_vector", (32,), "a tensor too many"),
        (f"{LAYER}.weight", (32, 32), "none of a LoRA layer"),
        ("base_model.model.model.layers.9.q_proj.lora_A.weight", (4, 32), "no such linear layer"),
    ],
)
def test_a_tensor_that_is_missing_strange_or_of_another_shape(
    copy: Copy, name: str, shape: tuple[int, ...] | None, words: str
) -> None:
    copy.tensors.pop(name, None)
    if shape:
        copy.tensors[name] = torch.zeros(shape)
    assert words in copy.refused()


def test_values_that_are_no_numbers(copy: Copy) -> None:
    copy.tensors[f"{LAYER}.lora_A.weight"][0, 0] = float("nan")
    assert "values that are no numbers" in copy.refused()


def test_a_pickle_is_never_opened(copy: Copy) -> None:
    copy.tensors = {}
    assert "holds no adapter_model.safetensors" in copy.refused()
    (copy.folder / "adapter_model.bin").write_bytes(b"cos\nsystem\n(S'exit 3'\ntR.")
    assert "pickle format, which can run code when opened (adapter_model.bin)" in copy.refused()


def test_a_damaged_file(copy: Copy) -> None:
    copy.tensors = {}
    (copy.folder / "adapter_model.safetensors").write_bytes(b"\xff" * 40)
    assert "tensors cannot be read" in copy.refused()
    (copy.folder / "adapter_config.json").write_text("{")
    with pytest.raises(ModelError, match=r"no readable adapter_config\.json"):
        read_adapter(copy.folder, copy.base)


def test_a_base_of_another_name(copy: Copy) -> None:
    copy.config["base_model_name_or_path"] = "org/other"
    named = BaseFolder("org/base", copy.base.path, "", "0", "mit")
    assert "made for another base, org/other (org/base)" in copy.refused(named)


def test_a_base_of_the_same_shape_with_other_weights(tmp_path: Path) -> None:
    run = finished_run(tmp_path, "lora", rank=4)
    publish(run, tmp_path / "out", form="adapter")
    folder = save_tiny(tmp_path / "other" / "base", "llama")
    same = locate_base(str(folder))
    assert read_adapter(tmp_path / "out", same).method == "lora", "only the weights count"
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] += 1
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    other = locate_base(str(folder))
    with pytest.raises(ModelError, match="another base or other weights of it") as raised:
        read_adapter(tmp_path / "out", other)
    assert raised.value.where == other.id and RECORD in raised.value.fix
    for record in ("{", "[]", '{"base": 1}'):  # of another program: it says nothing
        (tmp_path / "out" / RECORD).write_text(record)
        assert read_adapter(tmp_path / "out", other).method == "lora"


@pytest.mark.parametrize(
    ("method", "options", "end"),
    [
        ("ia3", {}, "k_proj.ia3_l"),
        ("loha", {"rank": 2}, "q_proj.hada_w1_b"),
        ("lokr", {"rank": 2}, "down_proj.lokr_w1"),
        ("ln", {}, "input_layernorm.ln_tuning_layers.weight"),
    ],
)
def test_other_kinds_are_looked_through_as_well(
    tmp_path: Path, method: str, options: dict[str, Any], end: str
) -> None:
    tuned = tuned_model(tmp_path, "llama", method, **options)
    exported(tmp_path, tuned, method, **options)
    spoiled = tmp_path / "spoiled"
    spoiled.mkdir()

    def fresh() -> Copy:
        return Copy(tmp_path, spoiled)

    base = locate_base(str(tmp_path / "base"))
    ours = open_adapter(tmp_path / "adapter", base, "fp32").model
    assert torch.allclose(logits_of(ours), logits_of(tuned.model), atol=1e-4)
    name = next(name for name in fresh().tensors if name.endswith(end))
    for change, words in [
        (lambda copy: copy.tensors.pop(name), "lacks"),
        (lambda copy: copy.tensors.update({name: copy.tensors[name][..., :-1]}), "has shape"),
        (lambda copy: copy.tensors[name].fill_(float("inf")), "no numbers"),
        (lambda copy: copy.tensors.update(stray=torch.zeros(1)), "belongs to no layer"),
        (lambda copy: copy.tensors.update({name.replace(".1.", ".7.").replace(".0.", ".7."):
                                           copy.tensors[name]}), "has no such layer"),
        (lambda copy: copy.config.update(modules_to_save=["lm_head"]), "'modules_to_save'"),
    ]:  # fmt: skip
        copy = fresh()
        change(copy)
        copy.tensors = {key: value.clone().contiguous() for key, value in copy.tensors.items()}
        assert words in copy.refused()
