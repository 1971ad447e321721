"""Top-K tuning: what learns for each K, the head that is untied, the blocks that run once."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from engine.base_model import load_base, locate_base
from engine.events import Noticed
from engine.language_model import LanguageModel
from engine.layers import blocks_of, final_norm
from engine.method import attach_method, parse_options, trainable
from engine.methods import get_method, topk
from engine.packing import choose_fast_paths
from engine.planning.architecture import look_at
from engine.publishing.publish import publish
from engine.runs import load_run
from engine.stem import keep_stem
from engine.trainer import Training, train
from templates.errors import PlanError
from tests.engine.architectures import PACKED, PADDED, random_model
from tests.engine.planning.test_cost import LENGTHS, cost_of
from tests.engine.publishing.published import finished_run
from tests.engine.publishing.test_publish import logits_elsewhere, logits_of
from tests.engine.test_packing import rows
from tests.engine.test_stem import hidden_from_use, losses_and_gradients
from tests.engine.tiny import ARCHITECTURES, save_tiny, tiny_folder, tiny_model
from tests.engine.train_tiny import digest, tiny_training

SPEC = get_method("topk")
in_all_architectures = pytest.mark.parametrize("architecture", ARCHITECTURES)


def tuned(model_type: str, **options: Any) -> LanguageModel:
    base = random_model(model_type)
    base.paths = choose_fast_paths(base)
    return attach_method(base, SPEC, parse_options(SPEC, options), seed=0)


@pytest.mark.parametrize("model_type", [*PACKED, *PADDED])
def test_the_norm_that_learns_comes_after_the_last_block(model_type: str) -> None:
    model = random_model(model_type).model
    order: list[nn.Module] = []
    norm, block = final_norm(model), blocks_of(model)[1][-1]
    for module in (norm, block):
        assert module is not None
        module.register_forward_hook(lambda *call: order.append(call[0]))
    model(torch.tensor([[3, 4, 5]]))
    assert order == [block, norm]


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"num_blocks": 0}, {"model.norm", "lm_head"}),
        ({"num_blocks": 1}, {"model.norm", "model.layers.1"}),
        ({"num_blocks": 1, "train_head": True}, {"model.norm", "model.layers.1", "lm_head"}),
        ({"num_blocks": 2}, {"model.norm", "model.layers.0", "model.layers.1"}),
    ],
)
@pytest.mark.parametrize("model_type", ["llama", "qwen2"])  # without and with a tied head
def test_exactly_the_top_learns(model_type: str, options: dict[str, Any], parts: set[str]) -> None:
    model = tuned(model_type, **options).model
    inside = tuple(f"{part}." for part in parts)
    expected = {name for name, _ in model.named_parameters() if name.startswith(inside)}
    assert trainable(model).keys() == expected
    assert not model.model.embed_tokens.weight.requires_grad


@pytest.mark.parametrize("num_blocks", [0, 1])
@pytest.mark.parametrize("model_type", ["llama", "gpt2", "bloom"])
def test_the_blocks_below_run_once(tmp_path: Path, model_type: str, num_blocks: int) -> None:
    plain, items = tuned(model_type, num_blocks=num_blocks), rows()
    blocks = blocks_of(plain.model)[1]
    below = len(blocks) - num_blocks
    kept, words = keep_stem(plain, items, most_tokens=40, folder=tmp_path)
    assert words.startswith(f"The lowest {below} of {len(blocks)} blocks ran once")
    expected = losses_and_gradients(plain, items)
    with hidden_from_use(blocks[:below]):
        found = losses_and_gradients(kept, items)
    for left, right in zip(found, expected, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-4 * float(right.abs().max()))


@pytest.mark.parametrize("num_blocks", [0, 1])
def test_a_run_keeps_them_and_resumes_to_the_same_bits(tmp_path: Path, num_blocks: int) -> None:
    base = save_tiny(tmp_path / "base", "llama")

    def training(name: str) -> Training:
        return tiny_training(base, tmp_path / name, "topk", options={"num_blocks": num_blocks})

    whole = training("whole")
    events = list(train(whole))
    said = [event.words for event in events if isinstance(event, Noticed)]
    assert f"The lowest {2 - num_blocks} of 2 blocks ran once" in said[0]
    list(train(training("cut"), pause_at_step=4))
    again = training("cut")
    list(train(again))
    assert digest(again) == digest(whole) != digest(training("fresh"))


def test_the_estimate_shows_the_saving(tmp_path: Path) -> None:
    base = tiny_folder(tmp_path, "llama")
    linear = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48  # of one block
    for num_blocks in (0, 1, 2):
        options = {"num_blocks": num_blocks}
        seen = look_at(base, SPEC, parse_options(SPEC, options), "fp32")
        assert seen.num_stem_layers == 2 - num_blocks
        assert seen.stem_linear == seen.frozen_linear == (2 - num_blocks) * linear
        assert seen.learned_linear == num_blocks * linear
        assert seen.head_learns == (num_blocks == 0)
        cost = cost_of(base, method="topk", options=options, epochs=3)
        num_tokens = sum(item.num_tokens for item in LENGTHS)
        forward = 2 * seen.stem_linear * num_tokens
        assert cost.stem_saved_flops >= 2 * forward, "of three epochs one is left"
        assert bool(cost.stem_saved_flops) == (num_blocks < 2)


@in_all_architectures
@pytest.mark.parametrize("num_blocks", [0, 1])
def test_transformers_computes_what_we_measured(
    tmp_path: Path, architecture: str, num_blocks: int
) -> None:
    run = finished_run(tmp_path, "topk", architecture, num_blocks=num_blocks)
    assert publish(run, tmp_path / "out").form == "merged"
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    ours = logits_of(load_run(run.plan, run.checkpoints))
    assert torch.allclose(ours, logits_elsewhere(model, tmp_path / "out"), atol=1e-4)
    assert model.config.tie_word_embeddings == bool(num_blocks)
    assert (model.lm_head.weight is model.get_input_embeddings().weight) == bool(num_blocks)


@in_all_architectures
def test_detach_ties_the_head_again(tmp_path: Path, architecture: str) -> None:
    base = tiny_model(tmp_path, architecture)
    before = logits_of(base)
    attach_method(base, SPEC, parse_options(SPEC, {"num_blocks": 0}), seed=0)
    assert isinstance(base.model.get_output_embeddings(), topk.UntiedHead)
    assert torch.equal(before, logits_of(base))
    base.model.get_output_embeddings().weight.data += 1
    assert not torch.equal(before, logits_of(base))
    topk.detach(base.model)
    assert torch.equal(before, logits_of(base))
    head, embedding = base.model.get_output_embeddings(), base.model.get_input_embeddings()
    assert head.weight is embedding.weight and base.model.config.tie_word_embeddings
    assert type(head) is nn.Linear and not trainable(base.model)


def test_a_merged_head_is_plain_and_apart(tmp_path: Path) -> None:
    base = load_base(locate_base(str(tiny_folder(tmp_path, "llama").path)), "fp32")
    attach_method(base, SPEC, parse_options(SPEC, {"num_blocks": 0}), seed=0)
    base.model.get_output_embeddings().weight.data += 1
    measured = logits_of(base)
    topk.merge(base.model)
    assert type(base.model.get_output_embeddings()) is nn.Linear and not trainable(base.model)
    assert torch.equal(measured, logits_of(base))


def test_more_blocks_than_there_are_is_refused() -> None:
    model = random_model("llama").model
    with pytest.raises(PlanError, match=r"has 2 blocks, not 3.*at most 2") as problem:
        SPEC.attach(model, parse_options(SPEC, {"num_blocks": 3}))
    assert problem.value.where == "option num_blocks" and not trainable(model)
    model.model.layers.append(nn.Identity())  # no list of modules is as long as the config says
    with pytest.raises(PlanError, match="blocks of this base were not found"):
        SPEC.attach(model, parse_options(SPEC, {"num_blocks": 0}))
