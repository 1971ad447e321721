"""A weighted sum of LoRA adapters changes every weight by the weighted sum of their changes."""

from pathlib import Path

import pytest
import torch

from engine.adapter_combination import combine_loras
from engine.adapter_exchange import AdapterExchange
from engine.adapter_import import ImportedAdapter
from engine.language_model import LanguageModel
from engine.layers import modules_of
from engine.methods.lora import LoraLinear
from templates.errors import PlanError
from tests.engine.methods.low_rank import logits_of
from tests.engine.test_adapter_bank import learned
from tests.engine.tiny import ARCHITECTURES, tiny_model


def changes_of(base: LanguageModel, adapter: ImportedAdapter) -> dict[str, torch.Tensor]:
    exchange = AdapterExchange(base)
    model = exchange.use(adapter).model
    changes = {path: layer.update() for path, layer in modules_of(model, LoraLinear)}
    exchange.use(None)
    return changes


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_sum_is_exact_for_other_ranks_scales_and_layers(
    tmp_path: Path, architecture: str
) -> None:
    base = tiny_model(tmp_path, architecture)
    last = {"llama": "down_proj", "qwen3": "down_proj", "gpt2": "c_proj"}[architecture]
    adapters = [
        learned(base, "lora", rank=4),
        learned(base, "rslora", rank=3, alpha=5, targets=(last,)),
        learned(base, "pissa", rank=2, top_blocks=1),
    ]
    weights = [0.5, -2.0, 1.5]
    before = logits_of(base.model)
    combined = combine_loras(base, adapters, weights)
    assert torch.equal(logits_of(base.model), before)
    wanted: dict[str, torch.Tensor] = {}
    for adapter, weight in zip(adapters, weights, strict=True):
        for path, change in changes_of(base, adapter).items():
            wanted[path] = wanted.get(path, 0) + weight * change
    found = changes_of(base, combined)
    assert found.keys() == wanted.keys()
    for path, change in wanted.items():
        torch.testing.assert_close(found[path], change, atol=1e-5, rtol=1e-5)
    assert {len(value) for name, value in combined.tensors.items() if "lora_A" in name} >= {4, 7}


def test_ranks_that_exceed_a_layers_width_together_add_up_exactly_within_it(tmp_path: Path) -> None:
    base = tiny_model(tmp_path, "llama")
    adapters = [learned(base, "lora", rank=14), learned(base, "lora", rank=13)]
    combined = combine_loras(base, adapters, [1.0, -0.5])
    first, second = (changes_of(base, adapter) for adapter in adapters)
    found = changes_of(base, combined)
    for path, change in found.items():
        torch.testing.assert_close(change, first[path] - 0.5 * second[path], atol=1e-5, rtol=1e-5)
    ranks = {len(value) for name, value in combined.tensors.items() if name.endswith("lora_A")}
    assert min(ranks) == 16 and max(ranks) == 27


def test_what_cannot_be_added_is_refused(tmp_path: Path) -> None:
    base = tiny_model(tmp_path, "llama")
    lora = learned(base, "lora", rank=4)
    for adapters, weights, sentence in [
        ([], [], "0 adapters have the weights"),
        ([lora], [1.0, 2.0], "1 adapters have the weights"),
        ([lora], [float("nan")], "have the weights"),
        (
            [lora, learned(base, "dora", rank=4)],
            [1.0, 1.0],
            "DoRA with these settings is no low-rank",
        ),
        (
            [learned(base, "prompt_tuning", num_tokens=3)],
            [1.0],
            "Prompt tuning with these settings is no low-rank",
        ),
    ]:
        with pytest.raises(PlanError, match=sentence):
            combine_loras(base, adapters, weights)
        assert not modules_of(base.model, LoraLinear)
