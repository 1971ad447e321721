import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from engine.base_model import load_base, load_reader, load_skeleton, locate_base
from templates.errors import ModelError
from tests.engine.tiny import save_tiny, tiny_tokenizer


def change_config(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def pickle_weights(folder: Path) -> None:
    no_weights(folder)
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02")


def no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def broken_header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{}")


def truncated(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def index_outside(folder: Path) -> None:
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "../../etc/passwd"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def big_tokenizer(folder: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([f"<extra{number}>" for number in range(50)])
    tokenizer.save_pretrained(folder)


def code_in_the_tokenizer(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    content = json.loads(path.read_text()) | {"auto_map": {"AutoTokenizer": ["t.T", None]}}
    path.write_text(json.dumps(content))


def deep_config(folder: Path) -> None:
    (folder / "config.json").write_text("[" * 100_000)


BAD = [
    (no_weights, "no .safetensors weights", "complete model folder"),
    (pickle_weights, "pickle format", "revision that has .safetensors"),
    (no_tokenizer, "no tokenizer", "Copy tokenizer.json"),
    (change_config(auto_map={"AutoModel": "m.M"}), "run its own code", "part of transformers"),
    (change_config(_attn_implementation_internal="org/kernel"), "run its own code", "part of"),
    (change_config(text_config={"auto_map": {"A": "b"}}), "run its own code", "part of"),
    (code_in_the_tokenizer, "run its own code", "part of transformers"),
    (index_outside, "'../../etc/passwd'", "Download the base again"),
    (broken_header, "cannot be opened", "Download it again"),
    (truncated, "cannot be opened", "Download it again"),
    (change_config(model_type="t5"), "not a model that continues text", "causal language model"),
    (change_config(model_type="gemma3"), "reads more than text", "reads text alone"),
    (change_config(model_type="unheard"), "config cannot be read", "part of transformers"),
    (deep_config, "no readable config.json", "complete Hugging Face model folder"),
    (big_tokenizer, "the model only 320", "belongs to this model"),
]


@pytest.mark.parametrize(
    ("damage", "what", "fix"), BAD, ids=lambda value: getattr(value, "__name__", value)[:30]
)
def test_a_bad_folder_is_refused_with_what_and_fix(
    tmp_path: Path, damage: Callable[[Path], None], what: str, fix: str
) -> None:
    damage(save_tiny(tmp_path / "base", "llama"))
    with pytest.raises(ModelError) as caught:
        load_base(locate_base(str(tmp_path / "base")), "fp32")
    assert what in str(caught.value) and fix in str(caught.value)


@pytest.mark.parametrize("reference", ["nowhere", "../x/y", "/no/such/folder", "a/b/c", ""])
def test_a_name_that_is_no_model_is_refused(reference: str) -> None:
    with pytest.raises(ModelError, match=r"There is no base model .*Give \"starter\""):
        locate_base(reference)


def test_an_unknown_hub_id_without_network_is_a_sentence() -> None:
    with pytest.raises(ModelError, match=r"Hub cannot be reached.*local model folder"):
        locate_base("nobody/no-such-model-here")


def test_the_fingerprint_changes_with_the_weights(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "base", "llama")
    before = locate_base(str(folder))
    assert before == locate_base(str(folder))
    tensors = load_file(folder / "model.safetensors")
    tensors["model.norm.weight"][0] += 1
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert locate_base(str(folder)).fingerprint != before.fingerprint


def test_the_licence_comes_from_the_card(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "base", "llama")
    assert locate_base(str(folder)).licence == "unknown"
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    assert locate_base(str(folder)).licence == "apache-2.0"


def test_a_skeleton_has_the_shapes_of_the_real_model(tmp_path: Path) -> None:
    folder = locate_base(str(save_tiny(tmp_path / "base", "qwen3")))
    real, skeleton = load_base(folder, "fp32").model, load_skeleton(folder)
    shapes = {name: value.shape for name, value in real.named_parameters()}
    assert shapes == {name: value.shape for name, value in skeleton.named_parameters()}
    assert not any(value.requires_grad for value in real.parameters())
    reader = load_reader(folder)
    assert reader.encode("the parcel") == load_base(folder, "fp32").encode("the parcel")


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_precision_is_how_weights_are_held(
    tmp_path: Path, precision: str, dtype: torch.dtype
) -> None:
    folder = locate_base(str(save_tiny(tmp_path / "base", "llama")))
    assert {value.dtype for value in load_base(folder, precision).model.parameters()} == {dtype}


def test_a_token_is_not_sent_in_the_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://mirror.invalid")
    with pytest.raises(ModelError, match="not a safe one"):
        locate_base("org/name", token="hf_secret")
