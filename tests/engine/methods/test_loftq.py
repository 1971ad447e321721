"""LoftQ: it loses less than 4 bits alone, as the paper's rounds do; merged it is what it was."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from engine.layers import modules_of, weight_of
from engine.method import attach_method, parse_options, trainable
from engine.methods import get_method
from engine.methods.loftq import LoftqLinear
from engine.publishing.merged_folder import hold_in_fp32, merge_plain
from engine.quantise import NF4Linear
from engine.runs import load_run
from engine.trying import tuned_twin
from templates.errors import ModelError, PlanError
from tests.engine.methods.low_rank import logits_of, plain_base, tuned_model
from tests.engine.publishing.published import finished_run
from tests.engine.tiny import ARCHITECTURES, tiny_model


def lost(tuned: torch.nn.Module, plain: torch.nn.Module) -> float:
    """The share of the weights' norm that the layers with a method on them miss."""
    missed = whole = 0.0
    for path, layer in modules_of(tuned, LoftqLinear):
        weight = weight_of(plain.get_submodule(path)).bfloat16().float()
        missed += float((layer.merged(weight_of(layer.base)) - weight).square().sum())
        whole += float(weight.square().sum())
    return (missed / whole) ** 0.5


def start(folder: Path, architecture: str, **options: object) -> torch.nn.Module:
    model: torch.nn.Module = tuned_model(
        folder, architecture, "loftq", "nf4", spread=0, **options
    ).model
    return model


def the_papers_rounds(weight: Tensor, rank: int, rounds: int) -> Tensor:
    """Algorithm 1 of the paper, to the letter: Q_T + A_T B_T."""
    product = torch.zeros_like(weight)
    for _ in range(rounds):
        quantised = NF4Linear(weight - product, None).dequantised(torch.float32)
        left, values, right = torch.linalg.svd(weight - quantised)
        product = left[:, :rank] * values[:rank] @ right[:rank]
    return quantised + product


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_loses_less_with_every_round_and_begins_nearer_to_the_base(
    tmp_path: Path, architecture: str
) -> None:
    plain = plain_base(tmp_path, architecture)
    starts = [start(tmp_path, architecture, rank=8, rounds=rounds) for rounds in (1, 2, 5)]
    shares = [lost(model, plain) for model in starts]
    assert 0.092 > shares[0] > shares[1] > shares[2] > 0.01
    held = tiny_model(tmp_path / "base", architecture, "nf4").model
    expected = logits_of(plain)
    far, near = ((logits_of(model) - expected).norm() for model in (held, starts[2]))
    assert near < 0.8 * far


def test_it_finds_what_the_papers_algorithm_finds(tmp_path: Path) -> None:
    tuned, plain = start(tmp_path, "llama", rank=6, rounds=3), plain_base(tmp_path, "llama")
    for path, layer in modules_of(tuned, LoftqLinear):
        weight = weight_of(plain.get_submodule(path)).bfloat16().float()
        theirs = (the_papers_rounds(weight, 6, 3) - weight).norm()
        ours = (layer.merged(weight_of(layer.base)) - weight).norm()
        assert ours < 1.1 * theirs, path


def test_after_one_round_it_trains_on_the_weights_of_qlora(tmp_path: Path) -> None:
    held = tiny_model(tmp_path / "base", "llama", "nf4").model
    for rounds, is_same in ((1, True), (2, False)):
        for path, layer in modules_of(start(tmp_path, "llama", rounds=rounds), LoftqLinear):
            codes = held.get_submodule(path).codes
            assert torch.equal(layer.base.codes, codes) == is_same


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_merged_and_loaded_by_transformers_it_computes_what_was_trained(
    tmp_path: Path, architecture: str
) -> None:
    tuned = hold_in_fp32(tuned_model(tmp_path, architecture, "loftq", "nf4", rank=4))
    before = logits_of(tuned.model)
    merge_plain(tuned, get_method("loftq"))
    tuned.model.save_pretrained(tmp_path / "merged")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    assert torch.allclose(before, logits_of(theirs), atol=1e-4)
    assert (before - logits_of(plain_base(tmp_path, architecture))).abs().max() > 0.1


def test_the_base_beside_its_twin_answers_as_before(tmp_path: Path) -> None:
    run = finished_run(tmp_path, "loftq")
    base = tiny_model(tmp_path / "base", "llama", "nf4")
    before = logits_of(base.model)
    tuned = load_run(run.plan, run.checkpoints)
    learned = {name: value.detach() for name, value in trainable(tuned.model).items()}
    twin = tuned_twin(base, run.plan, learned)
    assert torch.equal(logits_of(twin.model), logits_of(tuned.model))
    assert torch.equal(logits_of(base.model), before)


def test_bad_choices_are_refused(tmp_path: Path) -> None:
    spec = get_method("loftq")
    for rounds in (0, 21):
        with pytest.raises(PlanError, match="rounds"):
            parse_options(spec, {"rounds": rounds})
    refused = {
        "LoftQ does not train on fp32 weights.*Choose nf4": ("fp32", {}),
        "Rank 64 is above the width 32": ("nf4", {"rank": 64}),
        "no linear layer called 'nose'": ("nf4", {"targets": ["nose"]}),
    }
    for words, (precision, options) in refused.items():
        with pytest.raises(PlanError, match=words):
            tuned_model(tmp_path, "llama", "loftq", precision, **options)


def test_a_base_whose_files_are_gone_is_said(tmp_path: Path) -> None:
    base = tiny_model(tmp_path / "base", "llama", "nf4")
    base.model.name_or_path = str(tmp_path / "gone")
    spec = get_method("loftq")
    with pytest.raises(ModelError, match=r"files of the base are gone.*\(gone\)"):
        attach_method(base, spec, parse_options(spec, {}), seed=0)
