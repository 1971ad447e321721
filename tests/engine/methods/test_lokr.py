import warnings
from pathlib import Path

import peft
import pytest
import torch
from peft.tuners.lokr.layer import factorization
from transformers import AutoModelForCausalLM

from engine.layers import LinearLayer, modules_of
from engine.method import parse_options
from engine.methods import get_method
from engine.methods.lokr import KroneckerLinear, Options, factorised, merge
from templates.errors import PlanError
from tests.engine.architectures import random_model
from tests.engine.methods.peft_twin import loaded_from_peft, logits, opened_by_peft, spread_out
from tests.engine.tiny import save_tiny

SPEC = get_method("lokr")
# peft 0.21.2 has no LoKr for Conv1D, so for GPT-2 there is nothing to compare with.
in_both = pytest.mark.parametrize("architecture", ["llama", "qwen3"])
SHAPES = [
    pytest.param({"rank": 2}, {"lokr_w1": (4, 4), "lokr_w2_a": (5, 2), "lokr_w2_b": (2, 6)},
                 id="second decomposed"),
    pytest.param({"rank": 3}, {"lokr_w1": (4, 4), "lokr_w2": (5, 6)}, id="both whole"),
    pytest.param({"rank": 1, "decompose_both": True},
                 {"lokr_w1_a": (4, 1), "lokr_w1_b": (1, 4), "lokr_w2_a": (5, 1),
                  "lokr_w2_b": (1, 6)}, id="both decomposed"),
    pytest.param({"rank": 2, "decompose_factor": 2},
                 {"lokr_w1": (2, 2), "lokr_w2_a": (10, 2), "lokr_w2_b": (2, 12)}, id="factor 2"),
    pytest.param({"rank": 2, "decompose_factor": 12},
                 {"lokr_w1": (4, 12), "lokr_w2_a": (5, 2), "lokr_w2_b": (2, 2)}, id="factor 12"),
]  # fmt: skip


def layer_of(options: dict[str, object]) -> KroneckerLinear:
    torch.manual_seed(1)
    base = torch.nn.Linear(24, 20).requires_grad_(False)
    layer = KroneckerLinear(LinearLayer("one", base, 24, 20), Options(alpha=3, **options))
    for name in layer.factor_names:
        torch.nn.init.normal_(layer.get_parameter(name))
    return layer


@pytest.mark.parametrize("factor", [-1, 1, 2, 3, 8, 16, 100])
def test_widths_are_split_as_peft_splits_them(factor: int) -> None:
    for width in (1, 2, 12, 36, 127, 128, 768, 896, 3072, 4096, 11008):
        assert factorised(width, factor) == factorization(width, factor)


@pytest.mark.parametrize(("options", "shapes"), SHAPES)
def test_outputs_and_gradients_are_those_of_the_multiplied_out_update(
    options: dict[str, object], shapes: dict[str, tuple[int, int]]
) -> None:
    layer = layer_of(options).double()
    assert {name: tuple(layer.get_parameter(name).shape) for name in layer.factor_names} == shapes
    x = torch.randn(2, 7, 24, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(2, 7, 20, dtype=torch.float64)
    learned = {name: layer.get_parameter(name) for name in layer.factor_names}
    inputs = (x, *learned.values())
    ours = torch.autograd.grad((layer(x) * weights).sum(), inputs)
    first, second = (
        learned[name] if name in learned else learned[f"{name}_a"] @ learned[f"{name}_b"]
        for name in ("lokr_w1", "lokr_w2")
    )
    update = 3 / options["rank"] * torch.kron(first, second)
    plain = torch.nn.functional.linear(x, layer.base.weight + update, layer.base.bias)
    theirs = torch.autograd.grad((plain * weights).sum(), inputs)
    assert torch.allclose(layer(x), plain)
    assert torch.allclose(layer.update().double(), update, atol=1e-5)
    assert all(torch.allclose(mine, other) for mine, other in zip(ours, theirs, strict=True))


def test_the_work_of_a_token_is_counted() -> None:
    layer = layer_of({"rank": 2})
    # x as (4, 6): B2 gives (4, 2), W1 (4, 2), A2 (4, 5).
    assert layer.products_per_token == 4 * 6 * 2 + 4 * 4 * 2 + 4 * 2 * 5
    whole = layer_of({"rank": 3})
    assert whole.products_per_token == 4 * 4 * 6 + 4 * 6 * 5


def test_the_large_matrix_is_not_made_for_a_batch() -> None:
    layer, kept = layer_of({"rank": 2}), []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda value: kept.append(value.numel()) or value, lambda value: value
    ):
        layer(torch.randn(3, 24, requires_grad=True))
    assert sum(size == 20 * 24 for size in kept) == 1, "the frozen weight alone"


@in_both
@pytest.mark.parametrize(
    "options", [{"rank": 2}, {"rank": 1, "decompose_both": True}, {"decompose_factor": 2}],
    ids=["usual", "both", "factor"],
)  # fmt: skip
def test_peft_computes_what_we_compute(
    tmp_path: Path, architecture: str, options: dict[str, object]
) -> None:
    tuned = spread_out(tmp_path, "lokr", architecture, **options)
    theirs = logits(opened_by_peft(tmp_path, tuned, "lokr", **options))
    assert torch.allclose(logits(tuned.model), theirs, atol=1e-4)
    merge(tuned.model)
    assert torch.allclose(logits(tuned.model), theirs, atol=1e-4)


@in_both
def test_we_compute_what_peft_computes(tmp_path: Path, architecture: str) -> None:
    folder = save_tiny(tmp_path / "base", architecture)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    start = logits(base)
    torch.manual_seed(2)
    config = peft.LoKrConfig(
        task_type="CAUSAL_LM", r=2, alpha=12, target_modules=["q_proj", "up_proj"],
        init_weights=False,
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        theirs = peft.get_peft_model(base, config).eval()
    ours = loaded_from_peft(tmp_path, theirs, "lokr")
    assert (logits(theirs) - start).abs().max() > 0.01
    assert torch.allclose(logits(ours.model), logits(theirs), atol=1e-4)


def test_gpt2_is_published_merged_only(tmp_path: Path) -> None:
    assert SPEC.export is not None
    tuned = spread_out(tmp_path, "lokr", "gpt2", rank=2)
    with pytest.raises(PlanError, match="peft has no LoKr for layers") as problem:
        SPEC.export(tuned, parse_options(SPEC, {"rank": 2}))
    assert problem.value.where and problem.value.fix == "Publish it as merged"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"targets": ["wq"]}, "no linear layer called 'wq'"),
        ({"decompose_factor": 0}, "No width is a multiple of 0"),
    ],
)
def test_options_that_do_not_fit_the_base(options: dict[str, object], words: str) -> None:
    model = random_model("llama").model
    with pytest.raises(PlanError, match=words) as problem:
        SPEC.attach(model, parse_options(SPEC, options))
    assert problem.value.where and problem.value.fix
    assert not modules_of(model, KroneckerLinear)


@pytest.mark.parametrize("options", [{"rank": 0}, {"decompose_factor": -2}, {"alpha": 0}])
def test_options_out_of_range(options: dict[str, object]) -> None:
    with pytest.raises(PlanError, match="method lokr"):
        parse_options(SPEC, options)
