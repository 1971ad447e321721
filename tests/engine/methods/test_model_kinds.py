"""Every method on every kind of model: one light look each, or a refusal before weights are read.

`make test` meets each kind with a few methods, in turn, so that every method meets new kinds; the
matrix holds the rest.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from engine.base_model import load_skeleton
from engine.language_model import LanguageModel
from engine.layers import blocks_of
from engine.method import (
    MethodSpec,
    attach_method,
    count_parameters,
    load_trained,
    parse_options,
    trainable,
)
from engine.methods import all_methods, get_method
from engine.plan import Precision
from engine.planning.activations import activation_bytes
from engine.planning.architecture import look_at
from templates.errors import PlanError
from tests.engine.architectures import KINDS
from tests.engine.methods.test_contract import (
    SMALL,
    attached,
    check_merge,
    logits_of,
    snapshot,
    train_steps,
)
from tests.engine.tiny import ARCHITECTURES, tiny_folder, tiny_model

# What does not go together, and a word of the reason that is given.
REFUSED = {
    ("prefix", "mistral"): "forget",
    ("prefix", "gemma3_text"): "forget",
    ("prefix", "bloom"): "keep their attention to themselves",
    ("prefix", "falcon"): "keep their attention to themselves",
    ("ia3", "mixtral"): "the FFN's last layer",
    ("ia3", "qwen3_moe"): "the FFN's last layer",
}
_SELDOM = 5  # of a method's kinds every fifth is met at each run


def _pairs() -> Iterator[object]:
    """Every method in every precision with every kind that the contract does not meet anyway."""
    kinds = [kind for kind in KINDS if kind not in ARCHITECTURES]
    for shift, spec in enumerate(all_methods().values()):
        for place, kind in enumerate(kinds):
            for precision in spec.precisions:
                rare = (place + shift) % _SELDOM or precision != spec.precisions[0]
                yield pytest.param(
                    spec, kind, precision,
                    id=f"{spec.name}-{kind}-{precision}",
                    marks=pytest.mark.matrix if rare else (),
                )  # fmt: skip


on_all_kinds = pytest.mark.parametrize(("spec", "kind", "precision"), list(_pairs()))


@on_all_kinds
def test_a_method_works_on_a_kind_of_model_or_says_why_not(
    tmp_path: Path, spec: MethodSpec, kind: str, precision: Precision
) -> None:
    folder = tiny_folder(tmp_path / "base", kind)
    options = parse_options(spec, SMALL.get(spec.name, {}))
    skeleton = load_skeleton(folder)
    reason = REFUSED.get((spec.name, kind))
    if reason:
        with pytest.raises(PlanError, match=reason) as problem:
            spec.attach(skeleton, options)
        assert problem.value.where and problem.value.fix
        return
    spec.attach(skeleton, options)
    counted = {name: tuple(value.shape) for name, value in trainable(skeleton).items()}
    tuned = attached(tmp_path / "base", spec, precision, kind)
    learned = trainable(tuned.model)
    assert counted == {name: tuple(value.shape) for name, value in learned.items()}
    before = snapshot(tuned)
    losses = train_steps(tuned, spec, 6)
    assert losses[-1] < losses[0]
    after = snapshot(tuned)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    tied = {"lm_head.weight", "embed_out.weight"} if spec.family == "whole model" else set()
    assert learned.keys() & before.keys() <= changed <= learned.keys() | tied
    if spec.merge:
        check_merge(tuned, spec)
    else:
        check_export(tmp_path / "base", tuned, spec, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_on_each_kind_is_estimated(tmp_path: Path, kind: str) -> None:
    folder, spec = tiny_folder(tmp_path, kind), get_method("lora")
    options = parse_options(spec, SMALL["lora"])
    counts = look_at(folder, spec, options, "fp32")
    tuned = attached(tmp_path, spec, "fp32", kind)
    assert counts.num_parameters == count_parameters(tuned.model.parameters())
    assert counts.num_trainable == count_parameters(trainable(tuned.model).values())
    assert counts.num_layers == len(blocks_of(tuned.model)[1])
    few, many = (
        activation_bytes(
            counts.config, spec, options, "fp32", num_rows=2, row_tokens=tokens, packed=False
        )
        for tokens in (16, 64)
    )
    assert 0 < few < many


def check_export(folder: Path, tuned: LanguageModel, spec: MethodSpec, kind: str) -> None:
    """What is published, read back, computes the same."""
    assert spec.export
    adapter = spec.export(tuned, parse_options(spec, SMALL.get(spec.name, {})))
    reader = get_method(spec.export_method or spec.name)
    assert reader.import_peft
    found = reader.import_peft(load_skeleton(tiny_folder(folder, kind)), adapter)
    assert found
    again = attach_method(
        tiny_model(folder, kind, tuned.precision),
        reader,
        parse_options(reader, found.options),
        seed=1,
    )
    load_trained(again.model, found.tensors)
    assert torch.allclose(logits_of(tuned), logits_of(again), rtol=0, atol=1e-4)
