"""The untrained model: random, but its first two layers are ready to find what was there before.

To read demonstrations, a model must notice that what stands here stood there before, and look at
what followed (induction heads: Olsson et al. 2022, arXiv 2209.11895). From random weights this
takes longer to emerge than the whole of our training: nothing is gained until several layers fit
together. So they begin as a rough form of that circuit, with weights of ordinary size that training
changes like all others (in the spirit of mimetic initialisation: Trockman and Kolter 2023, arXiv
2305.09828):

layer 0, first group of heads     look exactly 1, 2, 3 ... tokens back, and note what stands there
layer 0, the other groups         note the mixture of the last few, 20 or 60 tokens
layer 1                           look at what stood behind a token like this one, or rather: behind
                                  such a token after text like this text; and repeat it

The last line is a nearest-neighbour reader: behind the separator it looks at the labels of those
demonstrations that are most alike. The embedding gets a constant part, equal for all tokens, so
that a query can depend on the position alone.

Shapes: D width, C channels of a head, G groups of heads that share keys and values.
"""

import math

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from starter.recipe import ModelRecipe

_ROPE_BASE = 100_000.0  # slow enough for channels that compare contents over a thousand tokens
_CONSTANT = 0.02  # as large as the random part of an embedding
_SHARPNESS = 10.0  # of a look at one position
_SOFTNESS = 4.0  # of a look at the last tokens
_SHARP = (1.0, 0.1)  # frequencies: radians a position, from and to
_WINDOWS = ((0.25, 0.06), (0.06, 0.015), (0.015, 0.004))  # of about 6, 20 and 60 tokens
_SLOW = 0.01
_NOTE_SIZES = (0.005, 0.005, 0.0005)  # of what the heads of the first group write
_WINDOW_NOTE_SIZE = 0.003
_NOTE_GAIN, _WINDOW_GAIN = 7.0, 20.0  # notes are small beside the token itself
_TOKEN_MATCH, _TEXT_MATCH = 2.6, 1.2  # sharpness of looks at what agrees
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
            rope_parameters={"rope_type": "default", "rope_theta": _ROPE_BASE},
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=0,
            pad_token_id=0,
        )
    )
    for layer in model.model.layers:
        nn.init.zeros_(layer.self_attn.o_proj.weight)
        nn.init.zeros_(layer.mlp.down_proj.weight)
    _make_ready_for_induction(model, shape, torch.Generator().manual_seed(seed))
    model.generation_config = GenerationConfig(
        bos_token_id=0, eos_token_id=0, pad_token_id=0, max_new_tokens=64, do_sample=False
    )
    return model


def _make_ready_for_induction(
    model: LlamaForCausalLM, shape: ModelRecipe, generator: torch.Generator
) -> None:
    width, channels = shape.hidden_size, shape.head_dim
    num_heads, num_groups = shape.num_attention_heads, shape.num_key_value_heads
    constant = torch.randint(0, 2, (width,), generator=generator).float() * 2 - 1  # (D,)
    model.model.embed_tokens.weight.data.add_(_CONSTANT * constant)
    values = torch.randn(num_groups, channels, width, generator=generator) / math.sqrt(width)
    values -= (values @ constant)[..., None] * constant / width  # notes say nothing of the constant
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
    width, channels = notes.shape[1:]
    frequencies = _frequencies(channels)
    per_group = len(notes) // len(values)

    def put(linear: nn.Linear, place: int, channels: Tensor) -> None:
        rows = slice(place * len(channels), (place + 1) * len(channels))
        linear.weight.data[rows] = torch.outer(channels, constant) / width

    sharp = _band(frequencies, *_SHARP) * _SHARPNESS
    everything = _band(frequencies, _WINDOWS[0][0], _WINDOWS[-1][1]) * _SOFTNESS
    for group in range(len(values)):
        put(attention.k_proj, group, everything if group else sharp)
        for number in range(per_group):
            query = _band(frequencies, *_WINDOWS[number % len(_WINDOWS)]) * _SOFTNESS
            if group == 0:  # the score is largest where the key stands number + 1 tokens back
                query = _rotated(sharp, -(number + 1) * frequencies)
            put(attention.q_proj, group * per_group + number, query)
    attention.v_proj.weight.data.copy_(values.flatten(0, 1))
    attention.o_proj.weight.data.copy_(notes.permute(1, 0, 2).flatten(1))


def _match_and_copy(
    model: LlamaForCausalLM, values: Tensor, notes: Tensor, generator: torch.Generator
) -> None:
    """Layer 1: keys are notes, queries a token and its notes; what is found is repeated."""
    attention = model.model.layers[1].self_attn
    width, channels = notes.shape[1:]
    per_group = len(notes) // len(values)
    # Slowly turning pairs only: the others would compare positions instead of contents.
    (slow,) = torch.nonzero(_frequencies(channels) <= _SLOW, as_tuple=True)
    everything = _both_halves(slow, channels)  # (C, 1)
    for_text = _both_halves(slow[::3], channels)
    for_token = everything - for_text
    token = values[0] * _TOKEN_MATCH
    last, last_but_one = (notes[place].T * _NOTE_GAIN * _TOKEN_MATCH for place in (0, 1))
    repeated = torch.randn(values.shape, generator=generator) / math.sqrt(width)
    for group in range(len(values)):
        rows = slice(group * channels, (group + 1) * channels)
        key, query = everything * last, everything * token
        if group:
            text = notes[per_group + group % per_group].T * _WINDOW_GAIN * _TEXT_MATCH
            key = for_token * last_but_one + for_text * text
            query = for_token * last + for_text * text
        attention.k_proj.weight.data[rows] = key
        attention.v_proj.weight.data[rows] = repeated[group]
        for number in range(per_group):
            head = group * per_group + number
            rows = slice(head * channels, (head + 1) * channels)
            attention.q_proj.weight.data[rows] = query * (1.0, 0.8, 0.6)[number % 3]
            attention.o_proj.weight.data[:, rows] = repeated[group].T * _COPY_SIZE


def _band(frequencies: Tensor, highest: float, lowest: float) -> Tensor:
    """One in the first channel of each pair that turns at such a frequency: (C,)."""
    inside = ((frequencies <= highest) & (frequencies > lowest)).float()
    return torch.cat([inside, torch.zeros_like(inside)])


def _both_halves(pairs: Tensor, channels: int) -> Tensor:
    """One in both channels of these pairs: (C, 1)."""
    chosen = torch.zeros(channels, 1)
    chosen[pairs] = 1
    chosen[pairs + channels // 2] = 1
    return chosen


def _frequencies(channels: int) -> Tensor:
    """By how much each pair of channels turns from one position to the next: (C / 2,)."""
    half = channels // 2
    frequencies: Tensor = torch.tensor(_ROPE_BASE) ** (-torch.arange(half) / half)
    return frequencies


def _rotated(channels: Tensor, angles: Tensor) -> Tensor:
    """Turn each pair (i, i + C / 2) of channels, as the rotary embedding does."""
    first, second = channels.chunk(2)
    return torch.cat(
        [
            first * angles.cos() - second * angles.sin(),
            first * angles.sin() + second * angles.cos(),
        ]
    )
