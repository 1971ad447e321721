"""BitFit: which biases learn, what peft and a stock model make of them."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config

from engine.base_model import load_base, locate_base, stock_shapes
from engine.layers import modules_of
from engine.method import attach_method, count_parameters, parse_options, trainable
from engine.methods import bitfit, get_method
from engine.publishing.publish import publish
from engine.runs import load_run
from templates.errors import PlanError, RunError
from tests.engine.publishing.published import finished_run
from tests.engine.publishing.test_publish import in_peft, logits_elsewhere, logits_of
from tests.engine.tiny import ARCHITECTURES, tiny_config, tiny_folder, tiny_model

SPEC = get_method("bitfit")
# peft 0.21.2 warns that it could not merge, takes a bias for a torn tensor when it saves one, and
# asks transformers 5.23 by a name on its way out.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`lora_bias=True` was passed but"),
    pytest.mark.filterwarnings("ignore:Adapter .* have invalid shape"),
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
]
in_all_architectures = pytest.mark.parametrize("architecture", ARCHITECTURES)


def meta(config: object, **options: object) -> torch.nn.Module:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config).requires_grad_(False)
    SPEC.attach(model, parse_options(SPEC, options))
    return model


def test_about_a_thousandth_of_gpt2_learns() -> None:
    model = meta(GPT2Config())
    num_learned = count_parameters(trainable(model).values())
    # A block's linear layers have 9 widths of bias, its norms 2, the last norm 1.
    assert num_learned == 12 * (9 + 2) * 768 + 768
    assert num_learned / (count_parameters(model.parameters()) - num_learned) < 0.001


def test_the_subset_of_the_paper_is_half_of_that() -> None:
    shape = AutoConfig.for_model(
        "opt", vocab_size=96, hidden_size=768, ffn_dim=3072, num_hidden_layers=12,
        num_attention_heads=12, word_embed_proj_dim=768,
    )  # fmt: skip
    model = meta(shape, targets=["q_proj", "fc1"])
    assert count_parameters(trainable(model).values()) == 12 * (768 + 3072)
    assert {name.split(".")[-2] for name in trainable(model)} == {"q_proj", "fc1"}


@pytest.mark.parametrize(
    ("options", "where", "words"),
    [
        ({}, "option add_biases", "no biases that could learn.*Set add_biases to true"),
        ({"targets": ["q_proj"]}, "option add_biases", "layers q_proj of this base have no biases"),
        ({"targets": ["norm"], "add_biases": True}, "option targets", "called 'norm'.*q_proj"),
        ({"targets": [], "add_biases": True}, "option targets", "No layer chosen"),
    ],
)
def test_what_has_no_bias_is_refused(options: dict[str, object], where: str, words: str) -> None:
    with pytest.raises(PlanError, match=words) as problem:
        meta(tiny_config("llama"), **options)
    assert problem.value.where == where


def test_layers_without_a_bias_are_left_out_where_others_have_one() -> None:
    """Qwen2 has biases at queries, keys and values alone."""
    config = AutoConfig.for_model(
        "qwen2", vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=2,
    )  # fmt: skip
    found = {name.split(".")[-2] for name in trainable(meta(config))}
    assert found == {"q_proj", "k_proj", "v_proj"}
    with pytest.raises(PlanError, match="layers o_proj of this base have no biases"):
        meta(config, targets=["q_proj", "o_proj"])
    assert len(trainable(meta(config, add_biases=True))) == 7


@in_all_architectures
def test_peft_computes_what_we_measured(tmp_path: Path, architecture: str) -> None:
    run = finished_run(tmp_path, "bitfit", architecture)
    publication = publish(run, tmp_path / "out", form="adapter")
    ours = logits_of(load_run(run.plan, run.checkpoints))
    theirs = logits_elsewhere(in_peft(run, tmp_path / "out"), tmp_path / "out")
    assert torch.allclose(ours, theirs, atol=1e-4)
    assert publication.parity == 0 and publication.effect > 0.1


def test_peft_opens_an_adapter_of_norms_alone(tmp_path: Path) -> None:
    run = finished_run(tmp_path, "bitfit", "gpt2", targets=["ln_1"], add_biases=False)
    assert publish(run, tmp_path / "out", form="adapter").effect > 0.05
    ours = logits_of(load_run(run.plan, run.checkpoints))
    theirs = logits_elsewhere(in_peft(run, tmp_path / "out"), tmp_path / "out")
    assert torch.allclose(ours, theirs, atol=1e-4)


@in_all_architectures
def test_we_compute_what_peft_learned(tmp_path: Path, architecture: str) -> None:
    base = tiny_model(tmp_path / "base", architecture)
    name = "c_attn" if architecture == "gpt2" else "q_proj"
    options = parse_options(SPEC, {"targets": [name], "add_biases": True})
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    config = LoraConfig(
        r=1, lora_alpha=1, lora_bias=True, target_modules=[name], task_type="CAUSAL_LM",
        fan_in_fan_out=architecture == "gpt2",
    )  # fmt: skip
    peft = get_peft_model(plain, config)
    for key, value in peft.named_parameters():
        if key.endswith("lora_B.default.bias"):
            value.data.normal_(std=0.1)
        elif "lora_A" in key:
            value.data.zero_()
    peft.save_pretrained(tmp_path / "adapter")
    tuned = attach_method(base, SPEC, options, seed=0)
    own, theirs = (
        bitfit.export(tuned, options).tensors,
        load_file(tmp_path / "adapter/adapter_model.safetensors"),
    )
    assert {key: value.shape for key, value in own.items()} == {
        key: value.shape for key, value in theirs.items()
    }
    for key, value in own.items():
        value.copy_(theirs[key])
    theirs_say = logits_elsewhere(peft.eval(), tmp_path / "base")
    assert torch.allclose(logits_of(tuned), theirs_say, atol=1e-4)


@pytest.mark.parametrize(
    ("architecture", "targets", "switches"),
    [
        ("llama", ["q_proj", "v_proj"], {"attention_bias": True, "mlp_bias": False}),
        ("llama", ["all"], {"attention_bias": True, "mlp_bias": True}),
        ("qwen3", ["k_proj"], {"attention_bias": True}),
        ("gpt2", ["all"], {}),
    ],
)
def test_a_stock_model_holds_the_biases(
    tmp_path: Path, architecture: str, targets: list[str], switches: dict[str, bool]
) -> None:
    run = finished_run(tmp_path, "bitfit", architecture, targets=targets)
    publication = publish(run, tmp_path / "out", form="merged")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    ours = logits_of(load_run(run.plan, run.checkpoints))
    assert torch.allclose(ours, logits_elsewhere(model, tmp_path / "out"), atol=1e-4)
    assert {switch: getattr(model.config, switch) for switch in switches} == switches
    assert publication.effect > 0.1


def test_what_no_stock_model_can_hold_is_not_published_as_one(tmp_path: Path) -> None:
    run = finished_run(tmp_path, "bitfit", "qwen3", targets=["up_proj"])
    with pytest.raises(RunError, match=r"A qwen3 model has no place for .*up_proj.bias.*adapter"):
        publish(run, tmp_path / "out", form="merged")
    assert not (tmp_path / "out").exists()


def test_a_4_bit_base_is_published_with_its_biases(tmp_path: Path) -> None:
    run = finished_run(tmp_path, "bitfit", "llama", "nf4")
    assert publish(run, tmp_path / "out", form="merged").effect > 0.1
    names = stock_shapes(AutoConfig.from_pretrained(tmp_path / "out")).keys()
    assert "model.layers.0.mlp.up_proj.bias" in names
    assert load_base(locate_base(str(tmp_path / "out")), "bf16").model.config.mlp_bias


def test_attaching_leaves_no_trace_when_refused(tmp_path: Path) -> None:
    base = load_base(tiny_folder(tmp_path, "llama"), "fp32")
    with pytest.raises(PlanError):
        SPEC.attach(base.model, parse_options(SPEC, {}))
    assert not modules_of(base.model, bitfit.ShiftedLinear)
