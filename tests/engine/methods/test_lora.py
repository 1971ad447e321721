"""LoRA: the published counts, ranks and alphas of single layers, and both ways to `peft`."""

from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from engine.layers import LinearLayer, modules_of
from engine.method import count_parameters, parse_options, trainable
from engine.methods import get_method
from engine.methods.lora import LoraLinear, Options, Update, attach
from templates.errors import PlanError
from tests.engine.methods.low_rank import IDS, exported, in_peft, logits_of, tuned_model
from tests.engine.tiny import ARCHITECTURES, tiny_config, tiny_model


def skeleton(config: object) -> nn.Module:
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config).requires_grad_(False)


def num_learned(model: nn.Module, **options: object) -> int:
    attach(model, Options(**options))
    return count_parameters(trainable(model).values())


def test_rank_two_beside_a_hundred_by_hundred_learns_400_of_10_000() -> None:
    with torch.device("meta"):
        base = nn.Linear(100, 100, bias=False).requires_grad_(False)
    layer = LoraLinear(LinearLayer("", base, 100, 100), Update(2, 2, 1.0, 0.0))
    assert count_parameters(trainable(layer).values()) == 400
    assert count_parameters(base.parameters()) == 10_000


def test_one_block_of_the_shape_of_bert_learns_55_296() -> None:
    block = LlamaConfig(
        vocab_size=64, hidden_size=768, intermediate_size=3072, num_hidden_layers=1,
        num_attention_heads=12,
    )  # fmt: skip
    targets = ("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj")
    assert num_learned(skeleton(block), rank=4, targets=targets) == 55_296


def test_gpt3_learns_37_7_million_of_175_255_8_million() -> None:
    # Rank 8 on the queries and values of 96 blocks; GPT-2's code holds q, k and v in one layer, so
    # the two are counted as Llama's, which are as large.
    blocks = LlamaConfig(
        vocab_size=8, hidden_size=12_288, intermediate_size=8, num_hidden_layers=96,
        num_attention_heads=96,
    )  # fmt: skip
    learned = num_learned(skeleton(blocks), rank=8, targets=("q_proj", "v_proj"))
    assert learned == 37_748_736
    gpt3 = GPT2Config(n_embd=12_288, n_layer=96, n_head=96, n_positions=2048)
    whole = count_parameters(skeleton(gpt3).parameters())
    # The paper's count is 651.5 M, 0.37 %, above this architecture's. An output head counted beside
    # the embedding that it shares would be 617.6 M of them; of the last 0.02 % it says nothing.
    published = 175_255.8e6
    assert whole == 174_604_259_328 == pytest.approx(published, rel=0.005)
    head = gpt3.vocab_size * gpt3.n_embd
    assert whole + head == pytest.approx(published, rel=2e-4)
    assert 100 * learned / whole == pytest.approx(0.0216, abs=0.0001)


def test_dropout_acts_in_training_alone(tmp_path: Path) -> None:
    tuned = tuned_model(tmp_path / "dropped", "llama", "lora", rank=4, dropout=0.5).model
    plain = tuned_model(tmp_path / "plain", "llama", "lora", rank=4).model
    expected = logits_of(plain)
    assert torch.equal(logits_of(tuned), expected), "off in evaluation"
    plain.train()
    tuned.train()
    with torch.no_grad():
        first, again = (tuned(IDS).logits for _ in range(2))
        assert torch.equal(plain(IDS).logits, expected), "nothing else is drawn"
    assert not torch.allclose(first, expected, atol=1e-3), "on in training"
    assert not torch.allclose(first, again, atol=1e-3), "drawn anew at every step"
    assert torch.equal(logits_of(tuned), expected), "and off again"


def test_dropout_leaves_the_frozen_layer_alone_and_keeps_the_mean_of_the_update() -> None:
    torch.manual_seed(5)
    base = nn.Linear(16, 8).requires_grad_(False)
    layer = LoraLinear(LinearLayer("", base, 16, 8), Update(4, 4, 1.0, 0.25))
    nn.init.normal_(layer.lora_A)
    nn.init.normal_(layer.lora_B)
    x = torch.randn(1, 16)
    with torch.no_grad():
        update = layer.eval()(x) - base(x)
        drawn = layer.train()(x.expand(40_000, -1)) - base(x)
    error = drawn.std(0) / 40_000**0.5
    assert bool((error > 0).all()) and bool(((drawn.mean(0) - update).abs() < 5 * error).all())


def test_some_layers_get_a_rank_and_an_alpha_of_their_own() -> None:
    model = skeleton(tiny_config("llama"))
    attach(
        model,
        Options(
            rank=8,
            rank_pattern="layers.1.self_attn.q_proj=2, q_proj=4, v_proj = 16",
            alpha_pattern="v_proj=2.5",
        ),
    )
    found = {path: (layer.rank, layer.scale) for path, layer in modules_of(model, LoraLinear)}
    assert found["model.layers.0.self_attn.q_proj"] == (4, 16 / 4)
    assert found["model.layers.1.self_attn.q_proj"] == (2, 16 / 2)
    assert found["model.layers.0.self_attn.v_proj"] == (16, 2.5 / 16)
    assert found["model.layers.1.mlp.up_proj"] == (8, 16 / 8)
    shapes = {name: tuple(value.shape) for name, value in trainable(model).items()}
    assert shapes["model.layers.1.self_attn.q_proj.lora_A"] == (2, 32)
    assert shapes["model.layers.1.self_attn.v_proj.lora_B"] == (16, 16)


@pytest.mark.parametrize(
    ("option", "text", "words"),
    [
        ("rank_pattern", "q_proj", "'q_proj' is not of the form q_proj=4"),
        ("rank_pattern", "q_proj=four", "'four' is no number"),
        ("rank_pattern", "q_proj=4, q_proj=8", "'q_proj' comes twice"),
        ("rank_pattern", "q_proj=4.5", "q_proj needs a whole number from 1 to 1024"),
        ("rank_pattern", "q_proj=0", "q_proj needs a whole number"),
        ("rank_pattern", "q_proj=nan", "q_proj needs a whole number"),
        ("alpha_pattern", "(a+)+$=4", "is not of the form"),
        ("alpha_pattern", "q_proj=-1", "q_proj needs a number above 0"),
        ("alpha_pattern", "q_proj=inf", "q_proj needs a number above 0"),
    ],
)
def test_a_pattern_that_says_nothing(option: str, text: str, words: str) -> None:
    with pytest.raises(PlanError) as raised:
        parse_options(get_method("lora"), {option: text})
    assert words in str(raised.value) and option in str(raised.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rank_pattern": "x_proj=4"}, "called 'x_proj' (option rank_pattern)"),
        ({"alpha_pattern": "proj=4"}, "called 'proj' (option alpha_pattern)"),
        ({"targets": ["q_proj"], "rank_pattern": "v_proj=4"}, "None of the chosen layers"),
        ({"rank_pattern": "v_proj=17"}, "Rank 17 is above the width 16"),
        ({"targets": ["layers.7.self_attn.q_proj"]}, "no linear layer called 'layers.7"),
    ],
)
def test_a_pattern_or_target_without_a_layer(options: dict[str, object], words: str) -> None:
    model = skeleton(tiny_config("llama"))
    with pytest.raises(PlanError) as raised:
        attach(model, Options(**options))
    assert words in str(raised.value) and not modules_of(model, LoraLinear), "nothing is half done"


PATTERNS = {
    "llama": {
        "rank_pattern": "layers.0.self_attn.v_proj=2, up_proj=6",
        "alpha_pattern": "k_proj=3",
    },
    "qwen3": {"rank_pattern": "q_proj=6", "alpha_pattern": "layers.1.mlp.up_proj=30"},
    "gpt2": {"rank_pattern": "mlp.c_proj=6, c_attn=3", "alpha_pattern": "h.1.attn.c_proj=40"},
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_peft_computes_the_same_with_ranks_and_alphas_by_layer(
    tmp_path: Path, architecture: str
) -> None:
    tuned = tuned_model(tmp_path, architecture, "lora", rank=4, **PATTERNS[architecture])
    exported(tmp_path, tuned, "lora", rank=4, **PATTERNS[architecture])
    theirs = logits_of(in_peft(tmp_path, architecture))
    assert torch.allclose(logits_of(tuned.model), theirs, atol=1e-4)
    base = logits_of(tiny_model(tmp_path / "base", architecture).model)
    assert (base - theirs).abs().max() > 0.1


def test_one_layer_of_many_of_its_name(tmp_path: Path) -> None:
    targets = ["layers.1.self_attn.q_proj", "down_proj"]
    tuned = tuned_model(tmp_path, "llama", "lora", targets=targets)
    wrapped = modules_of(tuned.model, LoraLinear)
    assert [path.removeprefix("model.layers.") for path, _ in wrapped] == [
        "0.mlp.down_proj", "1.self_attn.q_proj", "1.mlp.down_proj",
    ]  # fmt: skip
    exported(tmp_path, tuned, "lora", targets=targets)
    assert torch.allclose(logits_of(tuned.model), logits_of(in_peft(tmp_path, "llama")), atol=1e-4)
