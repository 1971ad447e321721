"""rsLoRA: the scale of the paper, and `peft` computes it too."""

from pathlib import Path

import pytest
import torch

from engine.layers import modules_of
from engine.methods.lora import LoraLinear
from tests.engine.methods.low_rank import exported, in_peft, logits_of, tuned_model
from tests.engine.tiny import ARCHITECTURES


def test_the_update_is_scaled_by_the_square_root_of_the_rank(tmp_path: Path) -> None:
    tuned = tuned_model(tmp_path, "llama", "rslora", rank=16, alpha=8, rank_pattern="up_proj=4")
    scales = {
        path.rpartition(".")[2]: layer.scale for path, layer in modules_of(tuned.model, LoraLinear)
    }
    assert scales["q_proj"] == 2 and scales["up_proj"] == 4


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_peft_computes_the_same(tmp_path: Path, architecture: str) -> None:
    tuned = tuned_model(tmp_path, architecture, "rslora", rank=4)
    exported(tmp_path, tuned, "rslora", rank=4)
    theirs = logits_of(in_peft(tmp_path, architecture))
    assert torch.allclose(logits_of(tuned.model), theirs, atol=1e-4)
