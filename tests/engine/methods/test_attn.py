"""Attention tuning: the projections of every architecture, single or fused, and nothing else."""

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM

from engine.layers import attention_layers, linear_layers
from engine.method import parse_options, trainable
from engine.methods import get_method
from engine.publishing.publish import publish
from engine.runs import load_run
from templates.errors import PlanError
from tests.engine.architectures import PACKED, PADDED, random_model
from tests.engine.publishing.published import finished_run
from tests.engine.publishing.test_publish import logits_elsewhere, logits_of
from tests.engine.tiny import ARCHITECTURES

SPEC = get_method("attn")
FEED_FORWARD = ("gate", "up_proj", "down_proj", "fc1", "fc2", "c_fc", "dense_h", "dense_4h", "mlp.")


@pytest.mark.parametrize("model_type", [*PACKED, *PADDED])
def test_every_linear_layer_outside_the_feed_forward_part_is_found(model_type: str) -> None:
    model = random_model(model_type).model
    others = {layer.path for layer in linear_layers(model)} - {
        layer.path for layer in attention_layers(model)
    }
    assert all(any(name in path for name in FEED_FORWARD) for path in others)
    found = {layer.path for layer in attention_layers(model)}
    assert found and not any(name in path for path in found for name in FEED_FORWARD)
    SPEC.attach(model, parse_options(SPEC, {}))
    assert {name.rpartition(".")[0] for name in trainable(model)} == found


def test_grouped_keys_and_values_are_counted_as_they_are() -> None:
    model = random_model("llama").model
    SPEC.attach(model, parse_options(SPEC, {}))
    num_learned = sum(value.numel() for value in trainable(model).values())
    assert num_learned == 2 * (2 * 32 * 32 + 2 * 32 * 16)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_transformers_computes_what_we_measured(tmp_path: Path, architecture: str) -> None:
    run = finished_run(tmp_path, "attn", architecture)
    assert publish(run, tmp_path / "out").form == "merged"
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    ours = logits_of(load_run(run.plan, run.checkpoints))
    assert torch.allclose(ours, logits_elsewhere(model, tmp_path / "out"), atol=1e-4)


def test_a_model_without_attention_is_refused() -> None:
    model = random_model("llama").model
    for block in model.model.layers:
        block.self_attn = nn.Identity()
    with pytest.raises(PlanError, match="No attention was found") as problem:
        SPEC.attach(model, parse_options(SPEC, {}))
    assert problem.value.where == "method attn" and problem.value.fix
