"""Experts applied one by one say what the library's own products say."""

import copy

import pytest
import torch

from engine.experts import ONE_BY_ONE, experts_of
from tests.engine.architectures import PACKED, PADDED, random_model

KINDS = ("mixtral", "qwen2_moe", "qwen3_moe")
IDS = torch.arange(3, 27).view(2, 12)


def test_experts_are_found_where_they_have_the_usual_form() -> None:
    found = {kind for kind in (*PACKED, *PADDED) if experts_of(random_model(kind).model)}
    assert found == set(KINDS)  # gpt_oss has biases, and its weights lie the other way round


@pytest.mark.parametrize("kind", KINDS)
def test_one_by_one_they_say_what_they_say_together(kind: str) -> None:
    model = random_model(kind).model.requires_grad_(True)
    other = copy.deepcopy(model)
    other.config._experts_implementation = ONE_BY_ONE
    ours, theirs = other(IDS).logits, model(IDS).logits
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)
    for logits in (ours, theirs):
        logits.square().sum().backward()
    for (name, own), expected in zip(other.named_parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(own.grad, expected.grad, rtol=1e-3, atol=1e-2, msg=name)
