"""Norm tuning: all norms are found, and peft's LN_TUNING is read and written."""

from pathlib import Path

import pytest
import torch
from peft import LNTuningConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from engine.adapter_import import open_adapter
from engine.base_model import locate_base
from engine.layers import modules_of, norm_layers
from engine.method import attach_method, count_parameters, parse_options, trainable
from engine.methods import get_method, ln
from engine.publishing.publish import publish
from engine.runs import load_run
from templates.errors import PlanError
from tests.engine.architectures import PACKED, PADDED, random_model
from tests.engine.publishing.published import finished_run
from tests.engine.publishing.test_publish import in_peft, logits_elsewhere, logits_of
from tests.engine.tiny import ARCHITECTURES, tiny_model

SPEC, OPTIONS = get_method("ln"), ln.Options()
# peft 0.21.2 does not know the norms' widths, and asks transformers 5.23 by a name on its way out.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Unsupported layer type"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
]
NUM_LEARNED = {"llama": 5 * 32, "gpt2": 5 * 2 * 32, "qwen3": 5 * 32 + 2 * 2 * 16}
in_all_architectures = pytest.mark.parametrize("architecture", ARCHITECTURES)


@pytest.mark.parametrize("model_type", [*PACKED, *PADDED])
def test_the_norms_are_all_that_has_one_value_a_channel(model_type: str) -> None:
    model = random_model(model_type).model
    scales = {
        name for name, value in model.named_parameters()
        if value.dim() == 1 and name.endswith(".weight")
    }  # fmt: skip
    assert scales == {f"{path}.weight" for path, _ in norm_layers(model)}


@in_all_architectures
def test_peft_computes_what_we_measured(tmp_path: Path, architecture: str) -> None:
    run = finished_run(tmp_path, "ln", architecture)
    publication = publish(run, tmp_path / "out", form="adapter")
    tuned = load_run(run.plan, run.checkpoints)
    theirs = logits_elsewhere(in_peft(run, tmp_path / "out"), tmp_path / "out")
    assert torch.allclose(logits_of(tuned), theirs, atol=1e-4)
    assert publication.parity == 0 and publication.effect > 0.1
    assert count_parameters(trainable(tuned.model).values()) == NUM_LEARNED[architecture]


@in_all_architectures
def test_we_compute_what_peft_learned(tmp_path: Path, architecture: str) -> None:
    bare = attach_method(tiny_model(tmp_path / "base", architecture), SPEC, OPTIONS, seed=0)
    own = ln.export(bare, OPTIONS)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    config = LNTuningConfig(
        target_modules=own.config["target_modules"], task_type="CAUSAL_LM"
    )  # fmt: skip
    peft = get_peft_model(plain, config)
    learned = [value for value in peft.parameters() if value.requires_grad]
    assert sum(value.numel() for value in learned) == NUM_LEARNED[architecture]
    for value in learned:
        value.data += 0.3 * torch.randn(value.shape)
    peft.save_pretrained(tmp_path / "adapter")
    theirs = load_file(tmp_path / "adapter/adapter_model.safetensors")
    assert own.tensors.keys() == theirs.keys()
    tuned = open_adapter(tmp_path / "adapter", locate_base(str(tmp_path / "base")), "fp32")
    theirs_say = logits_elsewhere(peft.eval(), tmp_path / "base")
    assert torch.allclose(logits_of(tuned), theirs_say, atol=1e-4)


def test_in_16_bits_the_merged_norms_compute_what_was_measured(tmp_path: Path) -> None:
    tuned = attach_method(tiny_model(tmp_path, "llama", "bf16"), SPEC, OPTIONS, seed=0)
    draw = torch.Generator().manual_seed(3)
    for value in trainable(tuned.model).values():
        value.data += 0.3 * torch.randn(value.shape, generator=draw)
    measured = logits_of(tuned)
    ln.merge(tuned.model)
    assert not modules_of(tuned.model, ln.TunedNorm)
    assert torch.equal(measured, logits_of(tuned))


def test_norms_without_learned_values_are_refused() -> None:
    model = random_model("llama").model
    for _, norm in norm_layers(model):
        del norm.weight
    with pytest.raises(PlanError, match="hold nothing that could learn") as problem:
        SPEC.attach(model, parse_options(SPEC, {}))
    assert problem.value.where == "method ln" and problem.value.fix
