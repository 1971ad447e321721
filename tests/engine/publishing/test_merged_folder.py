from pathlib import Path

import torch
from transformers.pytorch_utils import Conv1D

from engine.activation_functions import fuse_activation_functions
from engine.base_model import load_skeleton
from engine.publishing.merged_folder import make_plain
from engine.quantise import NF4Linear
from tests.engine.tiny import tiny_folder, tiny_model


def test_a_square_layer_of_gpt2_gets_its_own_orientation_back(tmp_path: Path) -> None:
    held = tiny_model(tmp_path, "gpt2", "nf4").model
    skeleton = load_skeleton(tiny_folder(tmp_path, "gpt2"))
    layer = held.transformer.h[0].attn.c_proj  # 32 x 32: no shape gives a mistake away
    assert isinstance(layer, NF4Linear)
    inputs = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    before, weight = layer(inputs), layer.dequantised(torch.float32)
    make_plain(held)
    plain = held.transformer.h[0].attn.c_proj
    assert type(plain) is Conv1D and torch.equal(plain.weight, weight.T)
    assert torch.allclose(before, plain.float()(inputs), atol=1e-5)
    assert not any(isinstance(module, NF4Linear) for module in held.modules())
    fuse_activation_functions(skeleton)
    assert [type(module) for module in held.modules()] == [
        type(module) for module in skeleton.modules()
    ]
