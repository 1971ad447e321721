"""Tiny real models with a tokenizer, as ordinary model folders: three kinds most tests meet."""

import copy
import shutil
import tempfile
from functools import cache
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from engine.base_model import BaseFolder, load_base, locate_base
from engine.language_model import LanguageModel
from engine.plan import Precision
from templates.builtin import TEMPLATES
from templates.example import Example
from tests.engine.architectures import random_config

VOCABULARY_SIZE = 320
CONTEXT = 128
ARCHITECTURES = ("llama", "gpt2", "qwen3")
TEMPLATE = TEMPLATES["classification"]
# What a method cannot do without on these models: two of the three have no biases.
NEEDED: dict[str, dict[str, object]] = {"bitfit": {"add_biases": True}}
# A window that reaches from the answers of TICKETS, through two blocks, to their beginning.
_WIDER = {"mistral": {"sliding_window": 32}}
CHAT_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_PLACES: list[tempfile.TemporaryDirectory[str]] = []  # deleted with the process
_TEXTS = [
    "the parcel did not arrive and the invoice is wrong",
    "please send my money back, the kettle leaks water",
    "###\n\n END labels: billing, shipping, returns",
]


def tiny_tokenizer(chat: bool = False) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TEXTS, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|endoftext|>", pad_token="<|endoftext|>"
    )
    if chat:
        fast.chat_template = CHAT_TEMPLATE
    return fast


def tiny_config(architecture: str) -> PreTrainedConfig:
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    if architecture == "gpt2":
        return GPT2Config(
            vocab_size=VOCABULARY_SIZE, n_positions=CONTEXT, n_embd=32, n_layer=2, n_head=4,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **ends,
        )  # fmt: skip
    if architecture not in ARCHITECTURES:
        more = ends | _WIDER.get(architecture, {})
        return random_config(architecture, vocab_size=VOCABULARY_SIZE, pad_token_id=0, **more)
    shape = dict(
        vocab_size=VOCABULARY_SIZE, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=CONTEXT,
        tie_word_embeddings=True, **ends,
    )  # fmt: skip
    return LlamaConfig(**shape) if architecture == "llama" else Qwen3Config(head_dim=16, **shape)


@cache
def _saved(architecture: str, chat: bool) -> Path:
    """The files, made once a process: thousands of tests want a copy."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config(architecture))
    for parameter in model.parameters():  # spread the logits, so that greedy choices have no ties
        if parameter.dim() > 1:
            parameter.data.mul_(3)
    place = tempfile.TemporaryDirectory(prefix="tiny-")
    _PLACES.append(place)
    model.save_pretrained(place.name)
    tiny_tokenizer(chat).save_pretrained(place.name)
    return Path(place.name)


@cache
def _loaded(architecture: str, precision: Precision, chat: bool) -> LanguageModel:
    return load_base(locate_base(str(_saved(architecture, chat))), precision)


def save_tiny(folder: Path, architecture: str, *, chat: bool = False) -> Path:
    shutil.copytree(_saved(architecture, chat), folder, dirs_exist_ok=True)
    torch.manual_seed(0)
    return folder


def tiny_folder(folder: Path, architecture: str, *, chat: bool = False) -> BaseFolder:
    return locate_base(str(save_tiny(folder, architecture, chat=chat)))


def tiny_model(
    folder: Path, architecture: str, precision: Precision = "fp32", *, chat: bool = False
) -> LanguageModel:
    save_tiny(folder, architecture, chat=chat)
    return copy.deepcopy(_loaded(architecture, precision, chat))


def ticket(text: str, label: str, row: int = 1) -> Example:
    return Example(fields={"text": text}, label=label, source_rows=(row,))


TICKETS = [
    ticket(text, label, row)
    for row, (text, label) in enumerate(
        [
            ("the invoice is wrong", "billing"),
            ("my parcel did not arrive", "shipping"),
            ("the kettle leaks, money back please", "returns"),
            ("i paid twice", "billing"),
            ("where is the parcel", "shipping"),
            ("send it back", "returns"),
            ("a fee i do not know", "billing"),
            ("delivery is late again", "shipping"),
        ],
        1,
    )
]
