"""Tiny random models of many architectures, in memory."""

from collections.abc import Mapping
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from engine.language_model import LanguageModel
from engine.plan import Precision

VOCABULARY_SIZE = 96
_GROUPED: dict[str, Any] = dict(
    hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=2048, pad_token_id=0, bos_token_id=1,
    eos_token_id=2,
)  # fmt: skip
_EXPERTS: dict[str, Any] = dict(
    moe_intermediate_size=24, num_experts_per_tok=2, decoder_sparse_step=1
)
# Settings of each model type beside those of all; every second one ties its embeddings.
PACKED: Mapping[str, dict[str, Any]] = {
    "llama": _GROUPED,
    "qwen2": _GROUPED | {"tie_word_embeddings": True},
    "qwen3": _GROUPED | {"head_dim": 16},
    "mistral": _GROUPED | {"sliding_window": 6},
    "gemma": _GROUPED | {"head_dim": 16, "tie_word_embeddings": True},
    "gemma3_text": _GROUPED | {"head_dim": 16, "sliding_window": 6, "num_hidden_layers": 6,
                               "final_logit_softcapping": 3.0},
    "phi3": _GROUPED | {"num_key_value_heads": 4, "sliding_window": None},
    "phi": _GROUPED | {"partial_rotary_factor": 0.5},
    "olmo2": _GROUPED,
    "granite": _GROUPED | {"logits_scaling": 4.0, "attention_multiplier": 0.2},
    "cohere": _GROUPED | {"logit_scale": 0.25},
    "gpt2": {"n_positions": 2048, "n_embd": 32, "n_layer": 2, "n_head": 4, "resid_pdrop": 0.0,
             "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    "gpt_neox": {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
                 "num_attention_heads": 4, "max_position_embeddings": 2048},
    "opt": {"hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
            "max_position_embeddings": 2048, "word_embed_proj_dim": 32, "dropout": 0.0},
    "mixtral": _GROUPED | {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen2_moe": _GROUPED | _EXPERTS | {"num_experts": 4, "shared_expert_intermediate_size": 24},
    "qwen3_moe": _GROUPED | _EXPERTS | {"num_experts": 4, "head_dim": 16},
}  # fmt: skip
PADDED: Mapping[str, dict[str, Any]] = {
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "falcon": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
    "gemma2": _GROUPED | {"head_dim": 16, "sliding_window": 6},
    "gpt_oss": _GROUPED | {"head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2,
                           "sliding_window": 6},
}  # fmt: skip


# The kinds of model that the README promises, by the `model_type` of their config.
KINDS = (
    "llama", "qwen2", "qwen3", "mistral", "gemma3_text", "phi3", "gpt2", "gpt_neox", "opt", "bloom",
    "falcon", "mixtral", "qwen2_moe", "qwen3_moe",
)  # fmt: skip


def random_config(model_type: str, **changes: Any) -> Any:
    """The config of a tiny model of one kind."""
    return AutoConfig.for_model(model_type, **{**PACKED, **PADDED}[model_type] | changes)


def random_model(model_type: str, precision: Precision = "fp32", **changes: Any) -> LanguageModel:
    """A base as `load_base` would give it, without tokenizer and before anything is proven."""
    config = random_config(model_type, **{"vocab_size": VOCABULARY_SIZE} | changes)
    torch.manual_seed(0)
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    for parameter in model.parameters():  # as large as trained ones, so that attention matters
        if parameter.dim() > 1:
            parameter.data.mul_(3)
    model.requires_grad_(False).eval()
    return LanguageModel(model, None, precision)
