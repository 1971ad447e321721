import warnings
from pathlib import Path

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from engine.layers import LinearLayer, modules_of
from engine.method import parse_options
from engine.methods import get_method
from engine.methods.loha import HadamardLinear, Options, merge
from templates.errors import PlanError
from tests.engine.architectures import random_model
from tests.engine.methods.peft_twin import loaded_from_peft, logits, opened_by_peft, spread_out
from tests.engine.tiny import save_tiny

SPEC = get_method("loha")
# peft 0.21.2 has no LoHa for Conv1D, so for GPT-2 there is nothing to compare with.
in_both = pytest.mark.parametrize("architecture", ["llama", "qwen3"])


def layer_of(rank: int, width_in: int = 24, width_out: int = 20) -> HadamardLinear:
    torch.manual_seed(1)
    base = torch.nn.Linear(width_in, width_out).requires_grad_(False)
    options = Options(rank=rank, alpha=3)
    layer = HadamardLinear(LinearLayer("one", base, width_in, width_out), options)
    for factor in layer.factors:
        torch.nn.init.normal_(factor)
    return layer


@pytest.mark.parametrize("rank", [2, 3, 5, 9])
def test_outputs_and_gradients_are_those_of_the_multiplied_out_update(rank: int) -> None:
    layer = layer_of(rank).double()
    x = torch.randn(2, 7, 24, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 7, 20, dtype=torch.float64)
    inputs = (x, *layer.factors)
    ours = torch.autograd.grad((layer(x) * weights).sum(), inputs)
    a1, b1, a2, b2 = layer.factors
    weight = layer.base.weight + 3 / rank * (a1 @ b1) * (a2 @ b2)
    plain = torch.nn.functional.linear(x, weight, layer.base.bias)
    theirs = torch.autograd.grad((plain * weights).sum(), inputs)
    assert torch.allclose(layer(x), plain)
    assert all(torch.allclose(mine, other) for mine, other in zip(ours, theirs, strict=True))
    # The cheaper way is taken: R^2 (D_in + D_out) products, or D_in D_out.
    assert layer.products_per_token == min(rank**2 * 44, 480)


def test_the_rank_is_the_square_from_as_many_values_as_lora_of_twice_the_rank() -> None:
    # Hyeon-Woo et al. 2021, proposition 1: rank up to R^2 from 2 R (m + n) values.
    layer = layer_of(3)
    assert int(torch.linalg.matrix_rank(layer.update())) == 9
    assert sum(factor.numel() for factor in layer.factors) == 2 * 3 * (24 + 20)


def test_the_large_product_is_not_kept_for_the_backward_pass() -> None:
    for rank in (2, 9):
        layer, kept = layer_of(rank, 64, 64), []
        x = torch.randn(3, 64, requires_grad=True)
        with torch.autograd.graph.saved_tensors_hooks(
            lambda value, kept=kept: kept.append(value.numel()) or value, lambda value: value
        ):
            layer(x)
        learned = [size for size in kept if size == 64 * 64]
        assert len(learned) == 1, "the frozen weight alone"


@in_both
def test_peft_computes_what_we_compute(tmp_path: Path, architecture: str) -> None:
    tuned = spread_out(tmp_path, "loha", architecture, spread=0.05, rank=2)
    theirs = logits(opened_by_peft(tmp_path, tuned, "loha", rank=2))
    assert torch.allclose(logits(tuned.model), theirs, atol=1e-4)
    merge(tuned.model)
    assert torch.allclose(logits(tuned.model), theirs, atol=1e-4)


@in_both
def test_we_compute_what_peft_computes(tmp_path: Path, architecture: str) -> None:
    folder = save_tiny(tmp_path / "base", architecture)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    start = logits(base)
    torch.manual_seed(2)
    config = peft.LoHaConfig(
        task_type="CAUSAL_LM", r=3, alpha=12, target_modules=["q_proj", "up_proj"],
        init_weights=False,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        theirs = peft.get_peft_model(base, config).eval()
    ours = loaded_from_peft(tmp_path, theirs, "loha")
    assert (logits(theirs) - start).abs().max() > 0.01
    assert torch.allclose(logits(ours.model), logits(theirs), atol=1e-4)


def test_gpt2_is_published_merged_only(tmp_path: Path) -> None:
    assert SPEC.export is not None
    tuned = spread_out(tmp_path, "loha", "gpt2", rank=2)
    with pytest.raises(PlanError, match="peft has no LoHa for layers") as problem:
        SPEC.export(tuned, parse_options(SPEC, {"rank": 2}))
    assert problem.value.where and problem.value.fix == "Publish it as merged"


@pytest.mark.parametrize(
    ("options", "words"),
    [({"targets": ["wq"]}, "no linear layer called 'wq'"), ({"rank": 17}, "above the width 16")],
)
def test_options_that_do_not_fit_the_base(options: dict[str, object], words: str) -> None:
    model = random_model("llama").model
    with pytest.raises(PlanError, match=words) as problem:
        SPEC.attach(model, parse_options(SPEC, options))
    assert problem.value.where and problem.value.fix
    assert not modules_of(model, HadamardLinear)


@pytest.mark.parametrize("options", [{"rank": 0}, {"rank": 257}, {"alpha": 0}])
def test_options_out_of_range(options: dict[str, object]) -> None:
    with pytest.raises(PlanError, match="method loha"):
        parse_options(SPEC, options)
