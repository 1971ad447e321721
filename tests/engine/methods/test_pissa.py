"""PiSSA: it begins with the principal part, learns what the paper's residual form learns, and is
published as a LoRA of twice the rank."""

from pathlib import Path

import pytest
import torch
from torch import nn

from engine.layers import LinearLayer, modules_of
from engine.method import attach_method, parse_options
from engine.methods import get_method
from engine.methods.lora import LoraLinear, Update
from engine.methods.pissa import PissaLinear, principal_part
from engine.publishing.adapter_folder import load_adapter
from engine.publishing.publish import publish
from engine.runs import load_run, open_planned_base
from templates.errors import PlanError
from tests.engine.methods.low_rank import exported, in_peft, logits_of, tuned_model
from tests.engine.publishing.published import finished_run
from tests.engine.tiny import ARCHITECTURES, tiny_model

FALLING = torch.tensor([9.0, 7.0, 5.0, 1.0, 0.5, 0.2])


def weight_of_known_values() -> torch.Tensor:
    torch.manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(size, 6)).Q for size in (10, 8))
    return left @ FALLING.diag() @ right.T


def test_the_principal_part_is_that_of_the_whole_decomposition() -> None:
    weight = weight_of_known_values()
    left, right = principal_part(weight, 3, torch.Generator().manual_seed(5))
    exact = torch.linalg.svd(weight, full_matrices=False)
    best = exact.U[:, :3] @ exact.S[:3].diag() @ exact.Vh[:3]
    torch.testing.assert_close(left @ right, best, atol=1e-4, rtol=0)
    for factor in (left.T @ left, right @ right.T):  # both sides carry the same share
        torch.testing.assert_close(factor, FALLING[:3].diag(), atol=1e-3, rtol=0)


def test_equal_singular_values_leave_the_part_as_sure_as_others() -> None:
    weight = torch.eye(8) + 1e-7 * torch.randn(8, 8)
    one, other = (
        torch.mm(*principal_part(part, 3, torch.Generator().manual_seed(5)))
        for part in (weight, torch.eye(8))
    )
    torch.testing.assert_close(one, other, atol=1e-4, rtol=0)


def test_it_learns_what_a_stored_residual_learns() -> None:
    base = nn.Linear(8, 10)
    base.weight.data = weight_of_known_values()
    base.requires_grad_(False)
    layer = PissaLinear(LinearLayer("", base, 8, 10), Update(3, 6, 2.0, 0.0))
    left, right = principal_part(base.weight, 3, torch.Generator().manual_seed(5))
    for name, value in (("A", right), ("B", left)):
        getattr(layer, f"start_{name}").data.copy_(value / 2**0.5)
        getattr(layer, f"lora_{name}").data.copy_(value / 2**0.5)
    x = torch.randn(4, 8)
    torch.testing.assert_close(layer(x), base(x))
    layer.lora_A.data += 0.1
    residual = base.weight - left @ right
    theirs = x @ (residual + 2 * layer.lora_B @ layer.lora_A).T + base.bias
    torch.testing.assert_close(layer(x), theirs)
    learned = [layer.lora_A, layer.lora_B]
    found, expected = (torch.autograd.grad(y.square().sum(), learned) for y in (layer(x), theirs))
    for own, other in zip(found, expected, strict=True):
        torch.testing.assert_close(own, other)
    layer(x).sum().backward()
    assert layer.start_A.grad is None and layer.start_B.grad is None


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_on_the_stock_base_it_is_a_lora_of_twice_the_rank(
    tmp_path: Path, architecture: str
) -> None:
    tuned = (
        tuned_model(tmp_path, architecture, "pissa", rank=4, rank_pattern="c_attn=3")
        if (architecture == "gpt2")
        else tuned_model(tmp_path, architecture, "pissa", rank=4)
    )
    folder = exported(tmp_path, tuned, "pissa", rank=4)
    model = in_peft(tmp_path, architecture)
    config = model.peft_config["default"]
    assert (config.r, config.lora_alpha) == (8, 32) and folder.name == "adapter"
    assert config.rank_pattern == ({"c_attn": 6} if architecture == "gpt2" else {})
    assert torch.allclose(logits_of(tuned.model), logits_of(model), atol=1e-4)


def test_its_published_adapter_is_read_back_as_a_lora(tmp_path: Path) -> None:
    run = finished_run(tmp_path, "pissa", rank=4)
    assert publish(run, tmp_path / "out", form="adapter").parity < 1e-4
    again = load_adapter(
        tmp_path / "out", open_planned_base(run.plan), run.plan, get_method("pissa")
    )
    assert {layer.rank for _, layer in modules_of(again.model, LoraLinear)} == {8}
    ours = logits_of(load_run(run.plan, run.checkpoints).model)
    assert torch.allclose(ours, logits_of(again.model), atol=1e-4)


def test_a_4_bit_base_is_refused(tmp_path: Path) -> None:
    spec = get_method("pissa")
    with pytest.raises(PlanError, match="PiSSA does not train on nf4 weights"):
        attach_method(tiny_model(tmp_path, "llama", "nf4"), spec, parse_options(spec, {}), seed=0)
