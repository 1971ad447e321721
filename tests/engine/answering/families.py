"""Tiny models of many architectures, with random weights that spread the logits."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    FalconConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPTNeoXConfig,
    GptOssConfig,
    MistralConfig,
    MixtralConfig,
    OPTConfig,
    Phi3Config,
    PreTrainedConfig,
    Qwen2Config,
)

from engine.language_model import LanguageModel
from tests.engine.tiny import CONTEXT, VOCABULARY_SIZE, tiny_config, tiny_tokenizer

_SHAPE: dict[str, Any] = dict(
    vocab_size=VOCABULARY_SIZE, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=CONTEXT,
    bos_token_id=0, eos_token_id=0, pad_token_id=0,
)  # fmt: skip
_ENDS: dict[str, Any] = dict(bos_token_id=0, eos_token_id=0, pad_token_id=0)
FAMILIES: dict[str, Callable[[], PreTrainedConfig]] = {
    "llama": lambda: tiny_config("llama"),
    "gpt2": lambda: tiny_config("gpt2"),
    "qwen3": lambda: tiny_config("qwen3"),
    "qwen2": lambda: Qwen2Config(**_SHAPE),
    "qwen2-mixed": lambda: Qwen2Config(
        **_SHAPE, use_sliding_window=True, sliding_window=9, max_window_layers=1
    ),
    "mistral": lambda: MistralConfig(**_SHAPE, sliding_window=7),
    "mixtral": lambda: MixtralConfig(
        **_SHAPE, num_local_experts=4, num_experts_per_tok=2, sliding_window=None
    ),
    "gemma2": lambda: Gemma2Config(
        **_SHAPE, head_dim=8, sliding_window=8, attn_logit_softcapping=5.0,
        final_logit_softcapping=5.0, query_pre_attn_scalar=8,
    ),
    "gemma3": lambda: Gemma3TextConfig(
        **_SHAPE, head_dim=8, sliding_window=8, query_pre_attn_scalar=8,
        layer_types=["sliding_attention", "full_attention"],
    ),
    "phi3": lambda: Phi3Config(**_SHAPE, sliding_window=None),
    "gpt_neox": lambda: GPTNeoXConfig(
        **{name: value for name, value in _SHAPE.items() if "key_value" not in name}
    ),
    "opt": lambda: OPTConfig(
        vocab_size=VOCABULARY_SIZE, hidden_size=32, ffn_dim=48, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=CONTEXT, word_embed_proj_dim=32,
        dropout=0.0, **_ENDS,
    ),
    "gpt_oss": lambda: GptOssConfig(
        **_SHAPE, head_dim=8, num_local_experts=4, num_experts_per_tok=2, sliding_window=8
    ),
    "bloom": lambda: BloomConfig(
        vocab_size=VOCABULARY_SIZE, hidden_size=32, n_layer=2, n_head=4, **_ENDS
    ),
    "falcon": lambda: FalconConfig(
        vocab_size=VOCABULARY_SIZE, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        **_ENDS,
    ),
    "falcon-alibi": lambda: FalconConfig(
        vocab_size=VOCABULARY_SIZE, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        alibi=True, **_ENDS,
    ),
}  # fmt: skip
PADDED = {"bloom", "falcon", "falcon-alibi", "gpt_oss"}


class Numbered(LanguageModel):
    """Texts are the numbers of the tokens, so that no difference between tokens is lost."""

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(f"<{number}>" for number in ids)


def family_model(name: str) -> LanguageModel:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(FAMILIES[name]()).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(3)
    return Numbered(model, tiny_tokenizer())


def sliding_model() -> LanguageModel:
    return LanguageModel(family_model("mistral").model, tiny_tokenizer())
