import math
from pathlib import Path

import pytest
import torch

from engine.inside import LayerChange, PromptVector, effective_rank, look_inside, singular_values
from engine.layers import linear_layers, weight_of
from engine.method import attach_method, parse_options, trainable
from engine.methods import get_method
from tests.engine.architectures import random_model
from tests.engine.methods.test_contract import SMALL, train_steps
from tests.engine.tiny import ARCHITECTURES, tiny_model

BESIDE_LAYERS = (
    "adalora", "dora", "ia3", "loha", "lokr", "lora", "lora_bitfit", "lora_plus", "pissa",
    "qlora", "random_rank", "rslora",
)  # fmt: skip


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("method", [*BESIDE_LAYERS, "full", "attn"])
def test_the_change_is_what_a_merge_makes_of_the_weight(
    tmp_path: Path, method: str, architecture: str
) -> None:
    spec = get_method(method)
    precision = spec.precisions[0]
    base = tiny_model(tmp_path, architecture, precision)
    before = {layer.path: weight_of(layer.module).float() for layer in linear_layers(base.model)}
    tuned = attach_method(
        tiny_model(tmp_path, architecture, precision), spec,
        parse_options(spec, SMALL.get(method, {})), seed=7,
    )  # fmt: skip
    train_steps(tuned, spec, 3)
    tuned.model.eval()
    found = {part.path: part for part in look_inside(base, tuned) if isinstance(part, LayerChange)}
    assert spec.merge
    spec.merge(tuned.model)
    after = {layer.path: weight_of(layer.module).float() for layer in linear_layers(tuned.model)}
    moved = {path for path in before if not torch.equal(before[path], after[path])}
    assert moved and moved <= found.keys()
    for path in moved:
        change = after[path] - before[path]
        assert found[path].change_ratio == pytest.approx(
            float(change.norm() / before[path].norm()), rel=1e-2, abs=1e-6
        )
        assert found[path].singular_values[0] == pytest.approx(
            float(torch.linalg.svdvals(change)[0]), rel=1e-2, abs=1e-5
        )


def test_a_lora_has_as_many_directions_as_its_rank(tmp_path: Path) -> None:
    spec = get_method("lora")
    base = tiny_model(tmp_path, "llama")
    tuned = attach_method(
        tiny_model(tmp_path, "llama"), spec, parse_options(spec, {"rank": 3}), seed=1
    )
    draw = torch.Generator().manual_seed(0)
    for value in trainable(tuned.model).values():
        value.data += torch.randn(value.shape, generator=draw)
    for part in look_inside(base, tuned):
        assert isinstance(part, LayerChange)
        assert 1 < part.effective_rank <= 3 + 1e-3
        assert sum(value > 1e-4 * part.singular_values[0] for value in part.singular_values) == 3


def test_the_effective_rank_of_known_spectra() -> None:
    assert effective_rank(torch.ones(4)) == pytest.approx(4)
    assert effective_rank(torch.tensor([5.0, 0, 0])) == pytest.approx(1)
    halves = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert effective_rank(torch.tensor([3.0, 1.0])) == pytest.approx(math.exp(halves))
    assert effective_rank(torch.zeros(3)) == 0


def test_the_largest_values_of_a_wide_update_are_found_without_all_of_them() -> None:
    draw = torch.Generator().manual_seed(0)
    wide = torch.randn(1500, 8, generator=draw) @ torch.randn(8, 1200, generator=draw)
    state = torch.random.get_rng_state()
    found = singular_values(wide)
    assert len(found) == 64 and torch.equal(torch.random.get_rng_state(), state)
    torch.testing.assert_close(found[:8], torch.linalg.svdvals(wide)[:8], rtol=1e-3, atol=0)
    assert float(found[8]) < 1e-3 * float(found[0])


@pytest.mark.parametrize("method", ["prompt_tuning", "ptuning", "prefix"])
def test_a_prompt_made_of_words_resembles_them(tmp_path: Path, method: str) -> None:
    spec = get_method(method)
    base = tiny_model(tmp_path, "llama")
    options = {"num_tokens": 4} | ({} if method == "ptuning" else {"start": "text", "text": "in"})
    tuned = attach_method(tiny_model(tmp_path, "llama"), spec, parse_options(spec, options), seed=1)
    found = list(look_inside(base, tuned))
    if method == "prefix":
        assert not found, "keys and values stand for no words"
        return
    assert all(isinstance(part, PromptVector) for part in found) and len(found) == 4
    for part in found:
        assert isinstance(part, PromptVector)
        cosines = [near.cosine for near in part.nearest]
        assert cosines == sorted(cosines, reverse=True) and len(cosines) == 5
    if method == "prompt_tuning":
        words = [tuned.decode([id_]) for id_ in (tuned.encode("in") * 4)[:4]]
        assert [part.nearest[0].token for part in found] == words  # type: ignore[union-attr]
        assert all(part.nearest[0].cosine == pytest.approx(1, abs=1e-4) for part in found)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("ln", {}),
        ("bitfit", {"add_biases": True}),
        ("lora_bitfit", {"rank": 2}),
        ("full", {}),
        ("attn", {}),
    ],
)
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_biases_and_norms_are_looked_at_as_well(
    tmp_path: Path, method: str, options: dict[str, object], architecture: str
) -> None:
    spec = get_method(method)
    base = tiny_model(tmp_path, architecture)
    before = {name: value.clone() for name, value in base.model.named_parameters()}
    tuned = attach_method(
        tiny_model(tmp_path, architecture), spec, parse_options(spec, options), seed=7
    )
    draw = torch.Generator().manual_seed(0)
    for value in trainable(tuned.model).values():
        value.data += 0.1 * torch.randn(value.shape, generator=draw)
    parts = [part for part in look_inside(base, tuned) if isinstance(part, LayerChange)]
    found = {part.path: part.change_ratio for part in parts}
    assert len(found) == len(parts)
    assert spec.merge
    spec.merge(tuned.model)
    for name, value in tuned.model.named_parameters():
        change = value - before.get(name, torch.zeros(()))
        if float(change.norm()):
            layer, _, kind = name.rpartition(".")
            length = before[f"{layer}.weight"].norm()
            place = name if kind == "bias" else layer
            assert found[place] == pytest.approx(float(change.norm() / length), rel=1e-3)


def test_experts_that_learn_in_place_are_looked_at() -> None:
    spec = get_method("full")
    base, tuned = (random_model("mixtral") for _ in range(2))
    tuned = attach_method(tuned, spec, parse_options(spec, {}), seed=1)
    for value in trainable(tuned.model).values():
        value.data *= 1.5
    parts = [part for part in look_inside(base, tuned) if isinstance(part, LayerChange)]
    found = {part.path.rpartition(".")[2]: part.change_ratio for part in parts}
    assert found["gate_up_proj"] == found["down_proj"] == pytest.approx(0.5, rel=1e-3)


def test_experts_are_looked_at_as_well() -> None:
    spec = get_method("lora")
    options = parse_options(spec, {"rank": 3, "targets": ["experts"]})
    base, tuned = (random_model("mixtral") for _ in range(2))
    tuned = attach_method(tuned, spec, options, seed=1)
    draw = torch.Generator().manual_seed(0)
    for value in trainable(tuned.model).values():
        value.data += torch.randn(value.shape, generator=draw)
    parts = list(look_inside(base, tuned))
    assert len(parts) == 2 * 2  # two weights in each of two layers
    for part in parts:
        assert isinstance(part, LayerChange)
        assert part.change_ratio > 0 and 1 < part.effective_rank <= 3 + 1e-3
        assert sum(value > 1e-4 * part.singular_values[0] for value in part.singular_values) == 3
