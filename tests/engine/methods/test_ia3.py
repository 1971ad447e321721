import warnings
from pathlib import Path

import peft
import pytest
import torch
from peft.utils.constants import (
    TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING as PEFT_FEEDFORWARD,
)
from peft.utils.constants import TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING as PEFT_TARGETS
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from engine.layers import LinearLayer, modules_of
from engine.method import attach_method, count_parameters, parse_options, trainable
from engine.methods import get_method
from engine.methods.ia3 import ScaledLinear, ffn_ends, keys_and_values, merge
from templates.errors import PlanError
from tests.engine.architectures import PACKED, PADDED, random_model
from tests.engine.methods.peft_twin import loaded_from_peft, logits, opened_by_peft, spread_out
from tests.engine.tiny import ARCHITECTURES, save_tiny

SPEC = get_method("ia3")
in_all_architectures = pytest.mark.parametrize("architecture", ARCHITECTURES)
# Where experts are no linear layers there is no FFN's last layer to be found.
FUSED_EXPERTS = ("mixtral", "qwen3_moe", "gpt_oss")
# Of OPT peft scales queries and keys and leaves the values alone, unlike the paper.
LIKE_PEFT = sorted({*PACKED, *PADDED} & PEFT_TARGETS.keys() - {"mixtral", "opt"})


def chosen(model_type: str) -> tuple[set[str], set[str]]:
    model = random_model(model_type).model
    found = (keys_and_values(model), ffn_ends(model))
    at_output, at_input = ({layer.path for layer in layers} for layers in found)
    return at_output, at_input


def of_peft(model_type: str) -> tuple[set[str], set[str]]:
    model = random_model(model_type).model
    config = peft.IA3Config(
        target_modules=PEFT_TARGETS[model_type],
        feedforward_modules=PEFT_FEEDFORWARD[model_type],
        fan_in_fan_out=model_type == "gpt2",
    )
    wrapped = peft.tuners.ia3.IA3Model(model, config, "default")
    layers = {
        path.removeprefix("model."): module.is_feedforward
        for path, module in wrapped.named_modules()
        if isinstance(module, peft.tuners.ia3.IA3Layer)
    }
    at_input = {path for path, feedforward in layers.items() if feedforward}
    return layers.keys() - at_input, at_input


@pytest.mark.parametrize("model_type", LIKE_PEFT)
def test_the_layers_are_those_that_peft_takes(model_type: str) -> None:
    (ours, our_ends), (theirs, their_ends) = chosen(model_type), of_peft(model_type)
    assert ours and our_ends == their_ends
    # For some types peft scales queries in place of keys, or beside them; the paper scales keys.
    queries = {path for path in theirs if path.endswith("q_proj")}
    assert ours == theirs - queries | {path.replace("q_proj", "k_proj") for path in queries}


@pytest.mark.parametrize("model_type", ["phi3", "olmo2", "granite", "cohere", "qwen2_moe", "opt"])
def test_types_that_peft_does_not_know_or_takes_otherwise(model_type: str) -> None:
    at_output, at_input = chosen(model_type)
    names = {path.rpartition(".")[2] for path in at_output}
    assert names == ({"qkv_proj"} if model_type == "phi3" else {"k_proj", "v_proj"})
    ends = {path.rpartition(".")[2] for path in at_input}
    assert ends == ({"fc2"} if model_type == "opt" else {"down_proj"})
    assert len(at_output) == 2 * len(names) and len(at_input) == 2


@pytest.mark.parametrize("model_type", FUSED_EXPERTS)
def test_experts_that_are_no_linear_layers_are_refused(model_type: str) -> None:
    model = random_model(model_type).model
    with pytest.raises(PlanError, match="No linear layer of this base gives the FFN's") as problem:
        SPEC.attach(model, parse_options(SPEC, {}))
    assert problem.value.where == "option targets" and "k_proj" in (problem.value.fix or "")
    SPEC.attach(model, parse_options(SPEC, {"targets": ["k_proj", "v_proj"]}))
    assert len(modules_of(model, ScaledLinear)) == 4


def test_names_beside_the_usual_layers_are_taken_once() -> None:
    model = random_model("llama").model
    SPEC.attach(model, parse_options(SPEC, {"targets": ["keys-values-ffn", "q_proj", "k_proj"]}))
    names = [path.rpartition(".")[2] for path, _ in modules_of(model, ScaledLinear)]
    assert sorted(names) == sorted(2 * ["q_proj", "k_proj", "v_proj", "down_proj"])


@pytest.mark.parametrize("targets", [["wq"], [], ["keys-values-ffn", "wq"]])
def test_layers_that_are_not_there_are_refused(targets: list[str]) -> None:
    model = random_model("llama").model
    with pytest.raises(PlanError, match=r"no linear layer called 'wq'|No layer chosen") as problem:
        SPEC.attach(model, parse_options(SPEC, {"targets": targets}))
    assert problem.value.where == "option targets" and problem.value.fix


def test_the_size_is_that_of_the_paper() -> None:
    # Keys, values and FFN: (d_k + d_v + d_ff) of each block. Liu et al. 2022, section 3.3.
    tuned = attach_method(random_model("llama"), SPEC, parse_options(SPEC, {}), seed=0)
    assert count_parameters(trainable(tuned.model).values()) == 2 * (16 + 16 + 48)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("scales_input", [False, True])
def test_merged_weights_and_biases_by_hand(transposed: bool, scales_input: bool) -> None:
    layer = Conv1D(2, 3) if transposed else torch.nn.Linear(3, 2)
    layer.weight.data.copy_(torch.arange(6.0).view_as(layer.weight))
    layer.bias.data.copy_(torch.tensor([1.0, 10.0]))
    weight = layer.weight.T.clone() if transposed else layer.weight.clone()
    model = torch.nn.ModuleDict(
        {"one": ScaledLinear(LinearLayer("one", layer, 3, 2), scales_input=scales_input)}
    )
    scale = torch.tensor([2.0, 3.0, 5.0]) if scales_input else torch.tensor([2.0, 3.0])
    model["one"].ia3_l.data.copy_(scale)
    x = torch.tensor([[1.0, -2.0, 0.5]])
    expected = (
        weight @ (scale * x[0]) + torch.tensor([1.0, 10.0])
        if scales_input
        else scale * (weight @ x[0] + torch.tensor([1.0, 10.0]))
    )
    assert torch.allclose(model["one"](x)[0], expected)
    merge(model)
    assert model["one"] is layer
    assert torch.allclose(layer(x)[0], expected)


def test_small_steps_are_not_lost_in_bf16() -> None:
    layer = torch.nn.Linear(1, 64).to(torch.bfloat16)
    layer.bias.data.copy_(torch.linspace(-2, 2, 64))
    scaled = ScaledLinear(LinearLayer("one", layer, 1, 64), scales_input=False)
    scaled.ia3_l.data.fill_(1.003)  # in bf16 this is 1
    x = torch.zeros(8, 1, dtype=torch.bfloat16)
    assert 10 < int((scaled(x)[0] != layer(x)[0]).sum()) < 60


@in_all_architectures
@pytest.mark.parametrize("targets", [["keys-values-ffn"], ["all-linear"]], ids=["usual", "all"])
def test_peft_computes_what_we_compute(
    tmp_path: Path, architecture: str, targets: list[str]
) -> None:
    tuned = spread_out(tmp_path, "ia3", architecture, targets=targets)
    theirs = logits(opened_by_peft(tmp_path, tuned, "ia3", targets=targets))
    assert torch.allclose(logits(tuned.model), theirs, atol=1e-4)
    merge(tuned.model)
    assert torch.allclose(logits(tuned.model), theirs, atol=1e-4)


@in_all_architectures
def test_we_compute_what_peft_computes(tmp_path: Path, architecture: str) -> None:
    names = ["c_attn"] if architecture == "gpt2" else ["k_proj", "v_proj"]
    ends = ["mlp.c_proj"] if architecture == "gpt2" else ["down_proj"]
    folder = save_tiny(tmp_path / "base", architecture)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    config = peft.IA3Config(
        task_type="CAUSAL_LM", target_modules=names + ends, feedforward_modules=ends,
        fan_in_fan_out=architecture == "gpt2",
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        theirs = peft.get_peft_model(base, config).eval()
    start = logits(theirs)
    torch.manual_seed(2)
    for name, value in theirs.named_parameters():
        if "ia3_l" in name:
            value.data += 0.3 * torch.randn_like(value)
    ours = loaded_from_peft(tmp_path, theirs, "ia3")
    assert (logits(theirs) - start).abs().max() > 0.1
    assert torch.allclose(logits(ours.model), logits(theirs), atol=1e-4)


def test_the_adapter_has_exactly_these_keys_and_tensors(tmp_path: Path) -> None:
    assert SPEC.export is not None
    tuned = spread_out(tmp_path, "ia3", "gpt2")
    adapter = SPEC.export(tuned, parse_options(SPEC, {}))
    assert adapter.config == {
        "peft_type": "IA3",
        "target_modules": ["c_attn", "mlp.c_proj"],
        "feedforward_modules": ["mlp.c_proj"],
        "fan_in_fan_out": True,
        "init_ia3_weights": True,
    }
    assert {name: tuple(value.shape) for name, value in adapter.tensors.items()} == {
        f"base_model.model.transformer.h.{layer}.{path}.ia3_l": shape
        for layer in (0, 1)
        for path, shape in (("attn.c_attn", (96, 1)), ("mlp.c_proj", (1, 128)))
    }
