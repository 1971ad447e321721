"""Head tuning: what learns, that the base runs once an example, and how it ends up in the head."""

from pathlib import Path

import pytest
import torch
from torch import nn

from engine.encode import encode_example
from engine.method import attach_method, parse_options, trainable
from engine.methods import get_method
from engine.stem import keep_stem
from templates.errors import PlanError
from tests.engine.tiny import ARCHITECTURES, TEMPLATE, TICKETS, tiny_model

SPEC = get_method("head")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_one_square_map_learns_and_the_whole_base_is_a_stem(
    tmp_path: Path, architecture: str
) -> None:
    tuned = attach_method(tiny_model(tmp_path, architecture), SPEC, SPEC.options(), seed=0)
    [(name, value)] = trainable(tuned.model).items()
    assert name.endswith("learned_map") and value.shape == (32, 32)
    items = [encode_example(tuned, ticket, TEMPLATE) for ticket in TICKETS]
    kept, said = keep_stem(tuned, items, most_tokens=64, folder=tmp_path)
    assert kept.stem is not None and "lowest 2 of 2 blocks ran once" in said


def test_merged_the_head_has_a_weight_of_its_own(tmp_path: Path) -> None:
    tuned = attach_method(tiny_model(tmp_path, "llama"), SPEC, SPEC.options(), seed=0)
    model = tuned.model
    embedding = model.get_input_embeddings().weight
    before = embedding.detach().clone()
    [learned] = trainable(model).values()
    learned.data.normal_(generator=torch.Generator().manual_seed(0))
    expected = before + before @ learned.detach()
    SPEC.merge(model)
    head = model.get_output_embeddings()
    assert head.weight is not embedding and not model.config.tie_word_embeddings
    assert torch.equal(embedding, before)
    torch.testing.assert_close(head.weight, expected)


def test_two_classes_are_told_apart_by_any_direction_of_the_features(tmp_path: Path) -> None:
    """A map can give the logits of label words any linear function of the features."""
    tuned = attach_method(tiny_model(tmp_path, "llama"), SPEC, SPEC.options(), seed=0)
    [learned] = trainable(tuned.model).values()
    weight = tuned.model.get_output_embeddings().weight
    wanted = torch.randn(3, 32, generator=torch.Generator().manual_seed(1))
    rows = weight[[10, 20, 30]]
    learned.data = torch.linalg.pinv(rows) @ (wanted - rows)
    features = torch.randn(5, 32, generator=torch.Generator().manual_seed(2))
    mapped = features + features @ learned.detach().T
    torch.testing.assert_close(mapped @ rows.T, features @ wanted.T, rtol=1e-3, atol=1e-3)


def test_a_base_without_a_norm_before_its_head_is_refused(tmp_path: Path) -> None:
    model = tiny_model(tmp_path, "llama").model
    model.model.norm = nn.Identity()
    with pytest.raises(PlanError, match=r"no norm .* before its output head .*Choose topk"):
        SPEC.attach(model, parse_options(SPEC, {}))
    assert not trainable(model)
