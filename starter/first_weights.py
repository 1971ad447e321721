"""The untrained model: random, but its first two layers are ready to find what was there before.

To read demonstrations, a model must notice that what stands here stood there before, and look at
what followed (induction heads: Olsson et al. 2022, arXiv 2209.11895). From random weights this
takes longer to emerge than the whole of our training: nothing is gained until several layers fit
together. So they begin as a rough form of that circuit, with weights of ordinary size that training
changes like all others (in the spirit of mimetic initialisation: Trockman and Kolter 2023, arXiv
2305.09828):

layer 0, first group of heads     look exactly 1, 2, 3 ... tokens back, and note what stands there
layer 0, other groups             note the mixture of the last tokens
layer 1                           look where a note agrees with the own token or note; repeat it

The embedding gets a constant part, equal for all tokens, so that a query can depend on the position
alone. Shapes: D width, C channels of a head, G groups of heads that share keys and values.
"""

import math

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from starter.recipe import ModelRecipe

_CONSTANT = 0.02  # as large as the random part of an embedding
_SHARPNESS = 10.0  # of a look at one position
_BREADTHS = (3.0, 4.5, 6.0)  # of looks at the last tokens: softer than that
_NOTE_SIZES = (0.003, 0.003, 0.0007)  # of what the heads of layer 0 write; the last for all others
_WINDOW_NOTE_SIZE = 0.001
_MATCH = 1.8  # sharpness of a look at what agrees
_NOTE_GAIN = 14.0  # a note is small beside the token itself
_COPY_SIZE = 0.1


def new_model(shape: ModelRecipe, num_entries: int, seed: int) -> LlamaForCausalLM:
    """Make the untrained model.

    Args:
        shape: of the recipe.
        num_entries: V, of the tokenizer.
        seed: fixes the first weights.

    Returns:
        A Llama in fp32 whose layers but the first two start as the identity.
    """
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=num_entries,
            **shape.model_dump(),
            rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
        )
    )
    for layer in model.model.layers:
        nn.init.zeros_(layer.self_attn.o_proj.weight)
        nn.init.zeros_(layer.mlp.down_proj.weight)
    _make_ready_for_induction(model, torch.Generator().manual_seed(seed))
    model.generation_config = GenerationConfig(
        bos_token_id=0, eos_token_id=0, pad_token_id=0, max_new_tokens=64, do_sample=False
    )
    return model


def _make_ready_for_induction(model: LlamaForCausalLM, generator: torch.Generator) -> None:
    width, channels = model.config.hidden_size, model.config.head_dim
    num_heads, num_groups = model.config.num_attention_heads, model.config.num_key_value_heads
    constant = torch.randint(0, 2, (width,), generator=generator).float() * 2 - 1  # (D,)
    model.model.embed_tokens.weight.data.add_(_CONSTANT * constant)
    values = torch.randn(num_groups, channels, width, generator=generator) / math.sqrt(width)
    notes = torch.randn(num_heads, width, channels, generator=generator)  # (H, D, C)
    per_group = num_heads // num_groups
    for head in range(num_heads):
        place = min(head, len(_NOTE_SIZES) - 1)
        notes[head] *= _NOTE_SIZES[place] if head < per_group else _WINDOW_NOTE_SIZE
    _look_back(model, constant, values, notes)
    _match_and_copy(model, values, notes, generator)


def _look_back(model: LlamaForCausalLM, constant: Tensor, values: Tensor, notes: Tensor) -> None:
    """Layer 0: queries and keys that depend on the position alone."""
    attention = model.model.layers[0].self_attn
    width, frequencies = model.config.hidden_size, _frequencies(model.config)
    sharp = (frequencies >= 0.1).float().repeat(2)  # (C,), both halves of a rotated pair
    broad = ((frequencies < 0.1) & (frequencies >= 0.01)).float().repeat(2)
    half = len(frequencies)
    sharp[half:], broad[half:] = 0, 0
    per_group = len(notes) // len(values)

    def put(linear: nn.Linear, place: int, channels: Tensor) -> None:
        rows = slice(place * len(channels), (place + 1) * len(channels))
        linear.weight.data[rows] = torch.outer(channels, constant) / width

    for group in range(len(values)):
        put(attention.k_proj, group, broad * _BREADTHS[0] if group else sharp * _SHARPNESS)
        for number in range(per_group):
            head = group * per_group + number
            query = broad * _BREADTHS[number % len(_BREADTHS)]
            if group == 0:  # the score is largest where the key stands number + 1 tokens back
                query = _rotated(sharp, -(number + 1) * frequencies) * _SHARPNESS
            put(attention.q_proj, head, query)
    attention.v_proj.weight.data.copy_(values.flatten(0, 1))
    attention.o_proj.weight.data.copy_(notes.permute(1, 0, 2).flatten(1))


def _match_and_copy(
    model: LlamaForCausalLM, values: Tensor, notes: Tensor, generator: torch.Generator
) -> None:
    """Layer 1: a key is a note, a query a token or a note; what is found is repeated."""
    attention = model.model.layers[1].self_attn
    # Slowly turning channels only: the others would compare positions instead of contents.
    slow = (_frequencies(model.config) <= 0.01).float().repeat(2)[:, None] * _MATCH  # (C, 1)
    token = slow * values[0]
    last, last_but_one = (slow * _NOTE_GAIN * notes[number].T for number in (0, 1))
    looks = ((last, (token, token, token)), (last_but_one, (last, last, token)))
    channels, width = token.shape
    repeated = torch.randn(values.shape, generator=generator) / math.sqrt(width)
    per_group = len(notes) // len(values)
    for group in range(len(values)):
        key, queries = looks[group % 2]
        rows = slice(group * channels, (group + 1) * channels)
        attention.k_proj.weight.data[rows] = key
        attention.v_proj.weight.data[rows] = repeated[group]
        for number in range(per_group):
            head = group * per_group + number
            rows = slice(head * channels, (head + 1) * channels)
            attention.q_proj.weight.data[rows] = queries[number % len(queries)]
            attention.o_proj.weight.data[:, rows] = repeated[group].T * _COPY_SIZE


def _frequencies(config: LlamaConfig) -> Tensor:
    """By how much each pair of channels turns from one position to the next: (C / 2,)."""
    half = config.head_dim // 2
    return torch.tensor(config.rope_parameters["rope_theta"]) ** (-torch.arange(half) / half)


def _rotated(channels: Tensor, angles: Tensor) -> Tensor:
    """Turn each pair (i, i + C / 2) of channels, as the rotary embedding does."""
    first, second = channels.chunk(2)
    return torch.cat(
        [
            first * angles.cos() - second * angles.sin(),
            first * angles.sin() + second * angles.cos(),
        ]
    )
