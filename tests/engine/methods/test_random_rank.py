"""Random-rank LoRA: the draw depends on the option and the path alone, and `peft` reads it."""

from pathlib import Path

import pytest
import torch

from engine.base_model import load_skeleton
from engine.layers import modules_of
from engine.method import parse_options
from engine.methods import get_method
from engine.methods.lora import LoraLinear
from templates.errors import PlanError
from tests.engine.methods.low_rank import exported, in_peft, logits_of, tuned_model
from tests.engine.tiny import ARCHITECTURES, tiny_folder

SPEC = get_method("random_rank")


def ranks(folder: Path, **options: object) -> list[int]:
    model = load_skeleton(tiny_folder(folder, "llama"))
    SPEC.attach(model, parse_options(SPEC, options))
    return [layer.rank for _, layer in modules_of(model, LoraLinear)]


def test_ranks_lie_in_the_range_and_depend_on_the_draw_alone(tmp_path: Path) -> None:
    found = ranks(tmp_path, least_rank=3, rank=12)
    assert all(3 <= rank <= 12 for rank in found) and len(set(found)) > 3
    assert found == ranks(tmp_path, least_rank=3, rank=12)
    assert found != ranks(tmp_path, least_rank=3, rank=12, draw=1)
    assert set(ranks(tmp_path, least_rank=5, rank=5)) == {5}


def test_a_rank_above_a_layers_width(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"Rank 2[0-9] is above the width 16"):
        ranks(tmp_path, least_rank=20, rank=29)


def test_every_layer_has_one_scale_and_a_pattern_is_kept(tmp_path: Path) -> None:
    model = load_skeleton(tiny_folder(tmp_path, "llama"))
    SPEC.attach(model, parse_options(SPEC, {"rank_pattern": "q_proj=7"}))
    layers = dict(modules_of(model, LoraLinear))
    assert {layer.scale for layer in layers.values()} == {2.0}
    assert layers["model.layers.1.self_attn.q_proj"].rank == 7


def test_a_range_that_is_upside_down() -> None:
    with pytest.raises(PlanError, match="least_rank: it has to be at most the largest rank, 4"):
        parse_options(SPEC, {"least_rank": 5, "rank": 4})


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_peft_computes_the_same(tmp_path: Path, architecture: str) -> None:
    tuned = tuned_model(tmp_path, architecture, "random_rank", rank=8)
    exported(tmp_path, tuned, "random_rank", rank=8)
    theirs = logits_of(in_peft(tmp_path, architecture))
    assert torch.allclose(logits_of(tuned.model), theirs, atol=1e-4)
