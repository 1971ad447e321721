"""The contract every method keeps, on tiny models of several architectures."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.base_model import load_skeleton
from engine.batches import Batch, collate
from engine.encode import encode_example
from engine.language_model import LanguageModel
from engine.loss import loss_sum, supervised_logits
from engine.method import (
    MethodSpec,
    attach_method,
    count_parameters,
    load_trained,
    parse_options,
    trainable,
)
from engine.methods import all_methods
from engine.optimizers import backward, begin_step
from templates.errors import PlanError
from tests.engine.combinations import in_all_combinations
from tests.engine.tiny import ARCHITECTURES, NEEDED, TEMPLATE, TICKETS, tiny_folder, tiny_model

SMALL = NEEDED | {
    "adalora": {"rank": 4, "target_rank": 2},
    "loftq": {"rank": 4},
    "loha": {"rank": 4},
    "lokr": {"rank": 2},
    "lora": {"rank": 4},
    "lora_bitfit": {"rank": 4},
    "qlora": {"rank": 4},
    "prefix": {"num_tokens": 5},
    "prompt_tuning": {"num_tokens": 5},
    "ptuning": {"num_tokens": 5},
    "spot": {"num_tokens": 5},
    "topk": {"num_blocks": 1},
}
# Where the usual rate would take more than the few steps of these tests to show anything.
FASTER = {
    "attn": 3e-4, "loftq": 1e-3, "topk": 3e-4, "head": 1e-2, "ptuning": 3e-3,
}  # fmt: skip
# By how much what an adapter learned is blown up before a merge. (IA)3 learns factors; LoHa, LoKr
# and AdaLoRA's updates are products of three or four: far out attention turns so steep that
# rounding to bf16 is all that is left.
GROWTH = {"adalora": 6, "head": 16, "ia3": 4, "loftq": 16, "loha": 16, "lokr": 4}


def attached(folder: Path, spec: MethodSpec, precision: str, architecture: str) -> LanguageModel:
    base = tiny_model(folder, architecture, precision)
    return attach_method(base, spec, parse_options(spec, SMALL.get(spec.name, {})), seed=7)


def batch_for(language_model: LanguageModel) -> Batch:
    items = [encode_example(language_model, ticket, TEMPLATE) for ticket in TICKETS]
    return collate(items, language_model)


def logits_of(language_model: LanguageModel) -> torch.Tensor:
    language_model.model.eval()
    with torch.no_grad():
        return supervised_logits(language_model, batch_for(language_model))[0]


def train_steps(language_model: LanguageModel, spec: MethodSpec, steps: int) -> list[float]:
    language_model.model.train()
    options = parse_options(spec, SMALL.get(spec.name, {}))
    optimizer = spec.new_optimizer(options)(trainable(language_model.model), spec.schedule)
    begin_step(optimizer, FASTER.get(spec.name, spec.schedule.learning_rate), 0.0)
    batch, losses = batch_for(language_model), []
    for _ in range(steps):
        loss = loss_sum(language_model, batch) / batch.num_supervised
        backward(loss, optimizer, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    return losses


def snapshot(language_model: LanguageModel) -> dict[str, torch.Tensor]:
    state = {name: value.clone() for name, value in language_model.model.state_dict().items()}
    for path, module in language_model.model.named_modules():
        if hasattr(module, "codes"):
            state[f"{path}.codes"] = module.codes.clone()
    return state


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


@in_all_combinations
def test_only_trainable_tensors_change_and_the_loss_falls(
    tmp_path: Path, spec: MethodSpec, precision: str, architecture: str
) -> None:
    tuned = attached(tmp_path, spec, precision, architecture)
    before = snapshot(tuned)
    losses = train_steps(tuned, spec, 4)
    evaluated = logits_of(tuned)  # an evaluation in between must not stop the learning
    losses += train_steps(tuned, spec, 8)
    after = snapshot(tuned)
    learned = set(trainable(tuned.model))
    tied = {"lm_head.weight"} if spec.family == "whole model" else set()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and changed <= learned | tied
    assert all(not torch.equal(before[name], after[name]) for name in learned if name in before)
    assert {value.dtype for value in trainable(tuned.model).values()} == {torch.float32}
    assert losses[-1] < losses[0] * 0.99
    assert torch.isfinite(evaluated).all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_on_a_bf16_base_it_learns_as_on_the_exact_one(tmp_path: Path, architecture: str) -> None:
    spec = all_methods()["lora"]
    exact, rounded = (
        attached(tmp_path, spec, precision, architecture) for precision in ("fp32", "bf16")
    )
    losses = [train_steps(tuned, spec, 20) for tuned in (exact, rounded)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert all(curve[-1] < curve[0] * 0.99 for curve in losses)
    load_trained(rounded.model, trainable(exact.model))
    for tuned in (exact, rounded):
        loss_sum(tuned, batch_for(tuned)).backward()
    found = trainable(rounded.model)
    for name, value in trainable(exact.model).items():
        expected, gradient = value.grad, found[name].grad
        assert float((gradient - expected).norm()) < 0.03 * float(expected.norm()), name


@in_all_combinations
def test_starts_as_the_base_where_promised(
    tmp_path: Path, spec: MethodSpec, precision: str, architecture: str
) -> None:
    base = logits_of(tiny_model(tmp_path, architecture, precision))
    start = logits_of(attached(tmp_path, spec, precision, architecture))
    tolerance = 1e-5 if precision == "fp32" else 0.1
    assert torch.allclose(base, start, atol=tolerance) == spec.starts_as_base


@in_all_combinations
def test_meta_count_equals_the_real_count(
    tmp_path: Path, spec: MethodSpec, precision: str, architecture: str
) -> None:
    tuned = attached(tmp_path, spec, precision, architecture)
    skeleton = load_skeleton(tiny_folder(tmp_path, architecture))
    spec.attach(skeleton, parse_options(spec, SMALL.get(spec.name, {})))
    assert all(value.is_meta for value in skeleton.parameters())
    real = {name: tuple(value.shape) for name, value in trainable(tuned.model).items()}
    counted = {name: tuple(value.shape) for name, value in trainable(skeleton).items()}
    assert real == counted
    assert count_parameters(trainable(tuned.model).values()) > 0


@in_all_combinations
def test_saved_and_loaded_gives_equal_outputs(
    tmp_path: Path, spec: MethodSpec, precision: str, architecture: str
) -> None:
    tuned = attached(tmp_path, spec, precision, architecture)
    train_steps(tuned, spec, 3)
    learned = {name: value.detach().clone() for name, value in trainable(tuned.model).items()}
    save_file(learned, tmp_path / "learned.safetensors")
    again = attached(tmp_path, spec, precision, architecture)
    load_trained(again.model, load_file(tmp_path / "learned.safetensors"))
    assert torch.equal(logits_of(tuned), logits_of(again))


def check_merge(tuned: LanguageModel, spec: MethodSpec) -> None:
    """Train until the method matters far more than rounding does, merge, compare."""
    assert spec.merge
    start = logits_of(tuned)
    learned = trainable(tuned.model)
    before_training = {name: value.detach().clone() for name, value in learned.items()}
    train_steps(tuned, spec, 3)
    if spec.export or spec.name in GROWTH:  # what it learned can grow; the base stays what it is
        growth = GROWTH.get(spec.name, 64)
        for name, value in learned.items():
            value.data += (growth - 1) * (value.data - before_training[name])
    before = logits_of(tuned)
    effect = float((before - start).abs().max())
    spec.merge(tuned.model)
    # bf16 rounds the merged weight once more
    tolerance = 1e-4 if tuned.precision == "fp32" else 0.05 * effect
    assert effect > 10 * tolerance
    assert torch.allclose(before, logits_of(tuned), rtol=0, atol=tolerance), "merged differs"


@in_all_combinations
def test_merged_computes_the_same(
    tmp_path: Path, spec: MethodSpec, precision: str, architecture: str
) -> None:
    tuned = attached(tmp_path, spec, precision, architecture)
    if spec.merge is None:
        assert spec.num_virtual_tokens  # only a method that lengthens the input may lack it
        return
    check_merge(tuned, spec)
    assert not trainable(tuned.model)
    assert not any("lora" in name for name, _ in tuned.model.named_parameters())


@in_all_combinations
def test_a_merge_that_does_nothing_is_noticed(
    tmp_path: Path, spec: MethodSpec, precision: str, architecture: str
) -> None:
    if spec.merge is None or spec.export is None:
        return  # without an adapter the learned weights are the merged ones already
    tuned = attached(tmp_path, spec, precision, architecture)
    with pytest.raises(AssertionError, match="merged differs"):
        check_merge(tuned, replace(spec, merge=spec.detach))


@in_all_combinations
def test_attach_then_detach_leaves_the_base_as_it_was(
    tmp_path: Path, spec: MethodSpec, precision: str, architecture: str
) -> None:
    base = tiny_model(tmp_path, architecture, precision)
    before, modules = snapshot(base), [type(module) for module in base.model.modules()]
    attach_method(base, spec, parse_options(spec, SMALL.get(spec.name, {})), seed=1)
    learns_in_place = trainable(base.model).keys() <= before.keys()
    spec.detach(base.model)
    if not learns_in_place or precision == "fp32":  # the base's own weights stay exact fp32 ones
        assert same(before, snapshot(base))
    assert modules == [type(module) for module in base.model.modules()]
    assert not trainable(base.model)


@pytest.mark.parametrize("spec", all_methods().values(), ids=lambda spec: spec.name)
def test_options_survive_json(spec: MethodSpec) -> None:
    options = parse_options(spec, SMALL.get(spec.name, {}))
    assert spec.options.model_validate_json(options.model_dump_json()) == options


@pytest.mark.parametrize("spec", all_methods().values(), ids=lambda spec: spec.name)
def test_a_wrong_option_names_its_field(spec: MethodSpec) -> None:
    for name, field in spec.options.model_fields.items():
        assert field.title and field.description
        with pytest.raises(PlanError, match=name):
            parse_options(spec, {name: float("nan")})
    with pytest.raises(PlanError, match="no setting called 'colour'"):
        parse_options(spec, {"colour": 1})


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("spec", all_methods().values(), ids=lambda spec: spec.name)
def test_decodes_with_the_cache_what_it_decodes_without(
    tmp_path: Path, spec: MethodSpec, architecture: str
) -> None:
    tuned = attached(tmp_path, spec, spec.precisions[0], architecture)
    tuned.precision = "fp32"  # compute without autocast: equal tokens need exact logits
    train_steps(tuned, spec, 3)
    tuned.model.eval()
    ids = tuned.virtual_token_ids + tuned.encode("where is my parcel")
    plain, cached, cache = list(ids), list(ids), None
    with torch.no_grad():
        for _ in range(12):
            logits = tuned.model(torch.tensor([plain]), use_cache=False).logits
            plain.append(int(logits[0, -1].argmax()))
            new = cached if cache is None else cached[-1:]
            output = tuned.model(torch.tensor([new]), past_key_values=cache, use_cache=True)
            cache = output.past_key_values
            cached.append(int(output.logits[0, -1].argmax()))
    assert plain == cached
