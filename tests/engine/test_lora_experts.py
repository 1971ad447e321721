"""Updates of experts: what they compute, learn and cost, here and in the real `peft`."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.adapter_import import open_adapter, read_adapter
from engine.base_model import load_skeleton, locate_base
from engine.experts import experts_of
from engine.layers import modules_of
from engine.lora_experts import EXPERTS, ExpertUpdate, LoraExperts
from engine.method import attach_method, count_parameters, parse_options, trainable
from engine.methods import get_method
from engine.planning.activations import activation_bytes
from engine.planning.architecture import look_at
from templates.errors import ModelError, PlanError
from tests.engine.architectures import random_model
from tests.engine.methods.low_rank import (
    exported,
    in_peft,
    logits_of,
    made_by_peft,
    tuned_model,
    tuned_on,
)
from tests.engine.methods.test_contract import train_steps
from tests.engine.tiny import tiny_folder, tiny_model

KINDS = ("mixtral", "qwen2_moe", "qwen3_moe")
WITH_ATTENTION: dict[str, Any] = {"rank": 4, "targets": ["all-linear", EXPERTS]}
ALONE: dict[str, Any] = {"rank": 4, "targets": [EXPERTS]}
PARAMETERS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
on_all_kinds = pytest.mark.parametrize("kind", KINDS)


@on_all_kinds
def test_the_updates_are_the_formula_and_merge_into_the_weights(tmp_path: Path, kind: str) -> None:
    tuned = tuned_on(random_model(kind), "lora", spread=0.5, alpha=6, **ALONE)
    by_hand = random_model(kind).model
    updates = dict(modules_of(tuned.model, LoraExperts))
    for path, experts in experts_of(by_hand):
        for name, update in updates[path].updates.items():
            for expert, weight in enumerate(getattr(experts, name)):
                a, b = update.lora_A.data[expert], update.lora_B.data[..., expert]
                weight += 6 / 4 * b @ a
    expected = logits_of(by_hand)
    assert not torch.allclose(logits_of(random_model(kind).model), expected, atol=0.1)
    torch.testing.assert_close(logits_of(tuned.model), expected, rtol=0, atol=1e-4)
    merge = get_method("lora").merge
    assert merge
    merge(tuned.model)
    torch.testing.assert_close(logits_of(tuned.model), expected, rtol=0, atol=1e-4)
    assert not trainable(tuned.model) and not modules_of(tuned.model, LoraExperts)


@on_all_kinds
@pytest.mark.parametrize(
    ("method", "options"),
    [("lora", WITH_ATTENTION), ("lora", ALONE), ("rslora", WITH_ATTENTION),
     ("lora", WITH_ATTENTION | {"top_blocks": 1})],
    ids=["all", "alone", "rslora", "top"],
)  # fmt: skip
def test_peft_computes_what_we_compute_and_we_read_it_back(
    tmp_path: Path, kind: str, method: str, options: dict[str, Any]
) -> None:
    tuned = tuned_model(tmp_path, kind, method, spread=0.3, **options)
    expected = logits_of(tuned.model)
    assert not torch.allclose(logits_of(tiny_model(tmp_path / "base", kind).model), expected)
    folder = exported(tmp_path, tuned, method, **options)
    torch.testing.assert_close(logits_of(in_peft(tmp_path, kind)), expected, rtol=0, atol=1e-4)
    again = open_adapter(folder, locate_base(str(tmp_path / "base")), "fp32")
    torch.testing.assert_close(logits_of(again.model), expected, rtol=0, atol=1e-4)


@on_all_kinds
@pytest.mark.parametrize(
    "settings",
    [{}, {"target_modules": []}, {"target_parameters": PARAMETERS[1:]}, {"use_rslora": True}],
    ids=["all", "alone", "one", "rslora"],
)
def test_we_compute_what_peft_computes(tmp_path: Path, kind: str, settings: dict[str, Any]) -> None:
    chosen = {"target_parameters": PARAMETERS} | settings
    theirs = logits_of(made_by_peft(tmp_path, kind, **chosen))
    base = locate_base(str(tmp_path / "base"))
    assert EXPERTS in getattr(read_adapter(tmp_path / "adapter", base).options, "targets")  # noqa: B009
    ours = open_adapter(tmp_path / "adapter", base, "fp32").model
    assert not torch.allclose(logits_of(tiny_model(tmp_path / "base", kind).model), theirs)
    torch.testing.assert_close(logits_of(ours), theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "pattern",
    [{"rank_pattern": {"q_proj": 2}}, {"alpha_pattern": {"q_proj": 3, "o_proj": 3}}],
    ids=["rank", "alpha"],
)
def test_experts_of_another_rank_or_alpha_than_the_layers_are_refused(
    tmp_path: Path, pattern: dict[str, Any]
) -> None:
    made_by_peft(tmp_path, "mixtral", target_parameters=PARAMETERS, **pattern)
    with pytest.raises(ModelError, match="differ in rank or alpha"):
        read_adapter(tmp_path / "adapter", locate_base(str(tmp_path / "base")))


@pytest.mark.parametrize("damage", ["shape", "nan"])
def test_updates_that_do_not_fit_are_refused(tmp_path: Path, damage: str) -> None:
    made_by_peft(tmp_path, "mixtral", target_parameters=PARAMETERS)
    file = tmp_path / "adapter/adapter_model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if name.endswith("experts.lora_A.weight"))
    bad = tensors[name][1:].contiguous() if damage == "shape" else tensors[name] * float("nan")
    save_file(tensors | {name: bad}, file)
    with pytest.raises(ModelError, match=r"do not fit this base|no numbers"):
        read_adapter(tmp_path / "adapter", locate_base(str(tmp_path / "base")))


@pytest.mark.parametrize(
    ("method", "precision"), [("lora", "fp32"), ("lora_plus", "bf16"), ("qlora", "nf4")]
)
def test_the_updates_alone_learn(tmp_path: Path, method: str, precision: str) -> None:
    base, spec = tiny_model(tmp_path / "base", "qwen3_moe", precision), get_method(method)
    frozen = copy.deepcopy(base.model.state_dict())
    tuned = attach_method(base, spec, parse_options(spec, ALONE), seed=3)
    learned = trainable(tuned.model)
    start = {name: value.detach().clone() for name, value in learned.items()}
    assert {name.rpartition(".")[2] for name in learned} == {"lora_A", "lora_B"}
    losses = train_steps(tuned, spec, 8)
    assert losses[-1] < losses[0]
    assert all(not torch.equal(value, start[name]) for name, value in learned.items())
    spec.detach(tuned.model)
    after = tuned.model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in frozen.items())


def test_on_paper_there_are_as_many_values_and_products(tmp_path: Path) -> None:
    folder, spec = tiny_folder(tmp_path, "mixtral"), get_method("lora")
    options, none = parse_options(spec, ALONE), parse_options(spec, {"rank": 4})
    counts, without = (look_at(folder, spec, chosen, "nf4") for chosen in (options, none))
    skeleton = load_skeleton(folder)
    spec.attach(skeleton, options)
    tuned = attach_method(tiny_model(tmp_path, "mixtral"), spec, options, seed=1)
    assert counts.num_trainable == count_parameters(trainable(tuned.model).values())
    assert counts.num_trainable == count_parameters(trainable(skeleton).values())
    # 2 blocks, 4 experts, of which a token meets 2; width 32, inside 48.
    assert counts.num_trainable == 2 * 4 * 4 * ((32 + 96) + (48 + 32))
    assert counts.learned_linear == 2 * 2 * 4 * ((32 + 96) + (48 + 32))
    assert counts.expert_weights == 2 * 4 * (96 * 32 + 32 * 48)
    attention = 2 * (2 * 32 * 32 + 2 * 16 * 32)
    assert counts.quantised_linear == attention
    assert without.frozen_linear == attention + counts.expert_weights // 2
    kept = [
        activation_bytes(counts.config, spec, chosen, "fp32", num_rows=2, row_tokens=16,
                         packed=False)
        for chosen in (options, parse_options(spec, {"rank": 4, "targets": ["q_proj"]}))
    ]  # fmt: skip
    assert kept[0] > kept[1] > 0


@pytest.mark.parametrize(
    ("kind", "method", "options", "words"),
    [
        ("llama", "lora", {}, "has no experts that could learn"),
        ("gpt_oss", "lora", {}, "has no experts that could learn"),
        ("mixtral", "dora", {}, "no form for experts.*Choose lora"),
        ("mixtral", "pissa", {}, "no form for experts"),
        ("mixtral", "adalora", {}, "no form for experts"),
        ("mixtral", "random_rank", {}, "no form for experts"),
        ("mixtral", "lora", {"dropout": 0.1}, "without dropout"),
        ("mixtral", "lora", {"rank_pattern": "q_proj=4"}, "one rank"),
        ("mixtral", "lora", {"rank": 33}, "Rank 33 is above the width 32"),
        ("mixtral", "loha", {}, "no linear layer called 'experts'"),
    ],
)
def test_what_experts_cannot_have_is_refused(
    kind: str, method: str, options: dict[str, Any], words: str
) -> None:
    model, spec = random_model(kind).model, get_method(method)
    modules = [type(module) for module in model.modules()]
    with pytest.raises(PlanError, match=words) as problem:
        spec.attach(model, parse_options(spec, {"targets": [EXPERTS]} | options))
    assert problem.value.where.startswith("option") and problem.value.fix
    assert modules == [type(module) for module in model.modules()]


def test_no_update_is_made_larger_than_its_factors() -> None:
    tuned = tuned_on(random_model("mixtral"), "lora", **ALONE)
    largest = max(
        getattr(module, name).numel()
        for _, module in experts_of(tuned.model)
        for name in ("gate_up_proj", "down_proj")
    )
    sizes: list[int] = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        sizes.append(tensor.untyped_storage().nbytes() // 4)
        return tensor

    frozen = {value.data_ptr() for value in tuned.model.parameters() if not value.requires_grad}

    def note_new(tensor: torch.Tensor) -> torch.Tensor:
        return tensor if tensor.untyped_storage().data_ptr() in frozen else note(tensor)

    with torch.autograd.graph.saved_tensors_hooks(note_new, lambda tensor: tensor):
        tuned.model(torch.arange(3, 7)[None])
    assert modules_of(tuned.model, ExpertUpdate) and 0 < max(sizes) < largest
