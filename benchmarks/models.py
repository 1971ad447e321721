"""The measured models as ordinary folders, with random weights and a tokenizer of whole words."""

import os
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
)

from benchmarks.workload import END_ID, MODELS, NUM_WORDS, OPENING_ID, PAD_ID, Shape

_SPREAD = 4.0


def model_folder(name: str, place: Path) -> Path:
    """Find a model, and make it where it is not there yet.

    Args:
        name: in MODELS.
        place: holds all of them.

    Returns:
        A folder that `from_pretrained` reads.
    """
    folder = place / name
    if folder.is_dir():
        return folder
    torch.manual_seed(0)
    unfinished = place / f"{name}.{os.getpid()}"
    model = AutoModelForCausalLM.from_config(_config(MODELS[name]))
    embeddings = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}
    for weight in model.parameters():  # else a tied model only repeats the last word
        if weight.dim() > 1 and id(weight) not in embeddings:
            weight.data.mul_(_SPREAD)
    model.save_pretrained(unfinished)
    _tokenizer(MODELS[name]).save_pretrained(unfinished)
    unfinished.rename(folder)
    return folder


def _config(shape: Shape) -> PreTrainedConfig:
    ends: dict[str, Any] = {
        "bos_token_id": OPENING_ID,
        "eos_token_id": END_ID,
        "pad_token_id": PAD_ID,
    }
    if shape.family == "gpt2":
        return GPT2Config(
            vocab_size=shape.vocabulary_size, n_positions=shape.context_tokens,
            n_embd=shape.width, n_inner=shape.inner_width, n_layer=shape.num_layers,
            n_head=shape.num_heads, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **ends,
        )  # fmt: skip
    return LlamaConfig(
        vocab_size=shape.vocabulary_size, hidden_size=shape.width,
        intermediate_size=shape.inner_width, num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads, num_key_value_heads=shape.num_heads,
        max_position_embeddings=shape.context_tokens, tie_word_embeddings=shape.tied, **ends,
    )  # fmt: skip


def _tokenizer(shape: Shape) -> PreTrainedTokenizerFast:
    """Every id is a word of its own, so that text and ids are the same thing."""
    words = {f"w{id_}": id_ for id_ in range(min(NUM_WORDS, shape.vocabulary_size))}
    tokenizer = Tokenizer(WordLevel(words, unk_token=f"w{PAD_ID}"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=f"w{PAD_ID}",
        bos_token=f"w{OPENING_ID}",
        eos_token=f"w{END_ID}",
    )
