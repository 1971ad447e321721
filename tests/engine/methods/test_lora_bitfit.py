"""LoRA together with BitFit: what learns, and that `peft` and a stock model compute the same."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from engine.adapter_import import open_adapter
from engine.base_model import load_base, locate_base
from engine.layers import modules_of
from engine.method import parse_options, trainable
from engine.methods import bitfit, get_method
from engine.methods.lora_bitfit import BiasedLoraLinear
from engine.publishing.publish import publish
from engine.runs import load_run
from templates.errors import ModelError, PlanError
from tests.engine.methods.low_rank import NAMES, exported, in_peft, made_by_peft, tuned_model
from tests.engine.methods.low_rank import logits_of as logits_of_ids
from tests.engine.publishing.published import finished_run
from tests.engine.publishing.test_publish import in_peft as in_peft_of_run
from tests.engine.publishing.test_publish import logits_elsewhere, logits_of
from tests.engine.tiny import tiny_model

SPEC = get_method("lora_bitfit")
# peft 0.21.2 warns that it could not merge, takes a bias for a torn tensor when it saves one, and
# asks transformers 5.23 by a name on its way out.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`lora_bias=True` was passed but"),
    pytest.mark.filterwarnings("ignore:Adapter .* have invalid shape"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
]


def test_updates_and_biases_learn_together(tmp_path: Path) -> None:
    learned = trainable(tuned_model(tmp_path, "gpt2", "lora_bitfit", rank=2).model)
    ends = {name.rpartition(".")[2] for name in learned}
    assert ends == {"lora_A", "lora_B", "shift", "bias"}
    assert sum(name.endswith("shift") for name in learned) == 2 * 4
    assert sum(name.endswith(".bias") for name in learned) == 2 * 2 + 1  # of the norms
    tops = tuned_model(tmp_path, "gpt2", "lora_bitfit", rank=2, top_blocks=1).model
    assert not [name for name in trainable(tops) if ".h.0." in name]
    assert [name for name in trainable(tops) if ".h.1.ln_1" in name]
    alone = trainable(tuned_model(tmp_path, "gpt2", "lora_bitfit", rank=2, norms=False).model)
    assert not any(name.endswith(".bias") for name in alone)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox"])
def test_the_two_add_up(tmp_path: Path, architecture: str) -> None:
    """What the pair computes is LoRA's layer and BitFit's shift, one on the other."""
    tuned = tuned_model(tmp_path, architecture, "lora_bitfit", rank=2, norms=False)
    together = logits_of_ids(tuned.model)
    layers = modules_of(tuned.model, BiasedLoraLinear)
    shifts = {path: layer.shift.detach().clone() for path, layer in layers}
    for _, layer in layers:
        layer.shift.data.zero_()
    only_lora = logits_of_ids(tuned.model)
    assert not torch.allclose(together, only_lora, atol=1e-2)
    get_method("lora").merge(tuned.model)
    bitfit.add_to_biases(tuned.model, shifts)
    assert torch.allclose(together, logits_of_ids(tuned.model), atol=1e-4)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox"])
def test_peft_computes_what_we_learned(tmp_path: Path, architecture: str) -> None:
    options = {"rank": 3, "alpha": 5, "targets": NAMES[architecture]}
    tuned = tuned_model(tmp_path, architecture, "lora_bitfit", **options)
    exported(tmp_path, tuned, "lora_bitfit", **options)
    ours = logits_of_ids(tuned.model)
    assert torch.allclose(ours, logits_of_ids(in_peft(tmp_path, architecture)), atol=1e-4)
    base = locate_base(str(tmp_path / "base"))
    again = open_adapter(tmp_path / "adapter", base, "fp32")
    assert torch.allclose(ours, logits_of_ids(again.model), atol=1e-4)
    bare = logits_of_ids(load_base(base, "fp32").model)
    assert float((ours - bare).abs().max()) > 0.1


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_what_is_published_is_what_was_measured(tmp_path: Path, architecture: str) -> None:
    run = finished_run(tmp_path, "lora_bitfit", architecture)
    publication = publish(run, tmp_path / "out", form="adapter")
    ours = logits_of(load_run(run.plan, run.checkpoints))
    theirs = logits_elsewhere(in_peft_of_run(run, tmp_path / "out"), tmp_path / "out")
    assert torch.allclose(ours, theirs, atol=1e-4)
    assert publication.parity < 1e-5 and publication.effect > 0.1


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_we_compute_what_peft_learned(tmp_path: Path, architecture: str) -> None:
    theirs = made_by_peft(tmp_path, architecture, lora_bias=True)
    base = locate_base(str(tmp_path / "base"))
    ours = open_adapter(tmp_path / "adapter", base, "fp32")
    assert len(modules_of(ours.model, BiasedLoraLinear))
    assert torch.allclose(logits_of_ids(ours.model), logits_of_ids(theirs), atol=1e-4)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_an_adapter_of_bitfit_is_one_whose_update_is_zero(
    tmp_path: Path, architecture: str
) -> None:
    tuned = tuned_model(tmp_path, architecture, "bitfit", add_biases=True)
    exported(tmp_path, tuned, "bitfit", add_biases=True)
    again = open_adapter(tmp_path / "adapter", locate_base(str(tmp_path / "base")), "fp32")
    assert len(modules_of(again.model, BiasedLoraLinear))
    assert torch.allclose(logits_of_ids(tuned.model), logits_of_ids(again.model), atol=1e-4)


def test_a_damaged_bias_is_refused(tmp_path: Path) -> None:
    tuned = tuned_model(tmp_path, "gpt2", "lora_bitfit", rank=2)
    for name, value in trainable(tuned.model).items():
        if "ln_f" in name:
            value.data[0] = float("nan")
    exported(tmp_path, tuned, "lora_bitfit", rank=2)
    with pytest.raises(ModelError, match="no numbers"):
        open_adapter(tmp_path / "adapter", locate_base(str(tmp_path / "base")), "fp32")


@pytest.mark.parametrize("precision", ["fp32", "nf4"])
def test_a_stock_model_holds_updates_and_biases(tmp_path: Path, precision: str) -> None:
    run = finished_run(tmp_path, "lora_bitfit", "llama", precision)
    publish(run, tmp_path / "out", form="merged")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    ours = logits_of(load_run(run.plan, run.checkpoints))
    near = 1e-4 if precision == "fp32" else 0.05
    assert torch.allclose(ours, logits_elsewhere(model, tmp_path / "out"), atol=near)
    assert model.config.attention_bias and model.config.mlp_bias


def test_experts_are_refused(tmp_path: Path) -> None:
    base = tiny_model(tmp_path, "mixtral")
    with pytest.raises(PlanError, match="no form for experts"):
        SPEC.attach(base.model, parse_options(SPEC, {"targets": ["experts"]}))


def test_no_server_is_promised() -> None:
    assert SPEC.adapter_servers(parse_options(SPEC, {})) == ("transformers + peft",)
    with pytest.raises(PlanError, match="not served by"):
        parse_options(SPEC, {"portable": True})
