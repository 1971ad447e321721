import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from engine.attention import PLAIN_PRODUCTS

SIZES = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: skip


@pytest.mark.parametrize("kind", ["llama", "sliding window"])
@pytest.mark.parametrize("padding", [0, 3])
def test_plain_products_are_the_attention_of_the_library(kind: str, padding: int) -> None:
    torch.manual_seed(0)
    model = (
        LlamaForCausalLM(LlamaConfig(**SIZES))
        if kind == "llama"
        else MistralForCausalLM(MistralConfig(**SIZES, sliding_window=4))
    )
    ids = torch.randint(1, 64, (3, 12))
    mask = torch.ones_like(ids)
    mask[1, :padding] = 0
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    logits, gradients = [], []
    for name in ("eager", PLAIN_PRODUCTS):
        model.set_attn_implementation(name)
        model.zero_grad()
        out = model(input_ids=ids, attention_mask=mask, position_ids=positions).logits
        out[mask.bool()].logsumexp(-1).sum().backward()
        logits.append(out[mask.bool()].detach())
        gradients.append(model.model.layers[0].self_attn.k_proj.weight.grad.clone())
    torch.testing.assert_close(logits[0], logits[1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-5, rtol=1e-4)


def test_plain_products_generate_the_same_tokens_with_a_cache() -> None:
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES)).eval()
    ids = torch.randint(1, 64, (1, 5))
    found = []
    for name in ("sdpa", PLAIN_PRODUCTS):
        model.set_attn_implementation(name)
        found.append(model.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=0))
    assert torch.equal(*found)
