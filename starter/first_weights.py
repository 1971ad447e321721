"""The untrained model: random, but its first two layers are ready to find what was there before.

To read demonstrations, a model must notice that what stands here stood there before, and look at
what followed (induction heads: Olsson et al. 2022, arXiv 2209.11895). From random weights this
takes longer to emerge than the whole of our training: nothing is gained until several layers fit
together. So they begin as a rough form of that circuit, with weights of ordinary size that training
changes like all others (in the spirit of mimetic initialisation: Trockman and Kolter 2023, arXiv
2305.09828):

layer 0, first group of heads     look exactly 1, 2, 3 ... tokens back, and note what stands there
layer 0, the other groups         note the mixture of the last few, 20 or 60 tokens
layer 1, first group              look at what stood behind a token like this one, and repeat it
layer 1 and 2, the other groups   the same behind the separator only: look at those labels whose
                                  texts are most alike this text

The last line is a nearest-neighbour classifier over the demonstrations. The embedding gets a
constant part, equal for all tokens, so that a query can depend on the position alone.

The other directions are shared out, so that a label that is copied is not drowned in notes and a
note that is compared not in the embedding: N directions for notes, G C for what each of the two
copying layers repeats.

Shapes: D width, C channels of a head, H heads, G groups of heads that share keys and values.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from starter.recipe import ModelRecipe

_ROPE_BASE = 1_000_000.0  # slow enough for channels that compare contents over a thousand tokens
_EMBEDDING_SIZE = 0.05  # standard deviation; its constant part is as large
_SHARPNESS = 14.0  # of a look at one position
_SOFTNESS = 8.0  # of a look at the last tokens
_SHARP = (1.0, 0.1)  # frequencies: radians a position, from and to
_WINDOWS = ((0.25, 0.06), (0.06, 0.015), (0.015, 0.004))  # of about 6, 20 and 60 tokens
_NEAR, _MIDDLE = 0, 1  # of the windows
_SLOW = 0.01
# What the heads of layer 0 write, against the embedding.
_NOTE_SIZE = 0.25  # of the token before
_WINDOW_NOTE_SIZE = 0.15  # of the last few, and the last 20
_OTHER_NOTE_SIZE = 0.025  # of heads that no layer reads yet
_RESIDUAL_SIZE = 1.5  # of what layer 1 reads, against the embedding
_TOKEN_MATCH, _NOTE_MATCH, _TEXT_MATCH = 2.6, 0.09, 0.12  # sharpness of looks at what agrees
_SEPARATOR_MATCH = 20.0
_FADING = (1.2, 1.0, 0.8)  # heads of a group that start alike would stay alike
_COPY_SIZE = 0.1
_NOTED_PART = 0.1  # of the embedding, left in the directions for notes
_COPYING_LAYERS = (1, 2)

_Look = tuple[Tensor, Tensor]  # keys and queries of a group: (C, D) each


@dataclass(frozen=True)
class _Circuit:
    """What the layers have in common.

    Attributes:
        shape: of the recipe.
        constant: (D,) the direction of the constant part, of plus and minus ones.
        values: (G, C, D) what a head of layer 0 reads of a token.
        notes: (H, D, C) how it writes it down.
        noted: (D, N) the directions for notes.
        copied: (2, G, C, D) the directions that each copying layer reads and repeats.
        frequencies: (C / 2,) by how much each pair of channels turns from a position to the next.
    """

    shape: ModelRecipe
    constant: Tensor
    values: Tensor
    notes: Tensor
    noted: Tensor
    copied: Tensor
    frequencies: Tensor

    @property
    def heads_per_group(self) -> int:
        """Heads that share keys and values."""
        return self.shape.num_attention_heads // self.shape.num_key_value_heads

    @property
    def slow_channels(self) -> Tensor:
        """Channels that hardly turn: the others would compare positions instead of contents."""
        (pairs,) = torch.nonzero(self.frequencies <= _SLOW, as_tuple=True)
        return torch.cat([pairs, pairs + len(self.frequencies)])

    @property
    def nothing(self) -> Tensor:
        """(C, D) weights of a head that looks everywhere alike."""
        return torch.zeros(self.shape.head_dim, self.shape.hidden_size)

    def without_constant(self, rows: Tensor) -> Tensor:
        """Rows (..., D) that say nothing of the constant part."""
        along = (rows @ self.constant)[..., None] * self.constant
        return rows - along / len(self.constant)


def new_model(
    shape: ModelRecipe, num_entries: int, seed: int, *, separator_id: int
) -> LlamaForCausalLM:
    """Make the untrained model.

    Args:
        shape: of the recipe.
        num_entries: V, of the tokenizer.
        seed: fixes the first weights.
        separator_id: the token that stands between a text and its label.

    Returns:
        A Llama in fp32 whose layers but the first three start as the identity.
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
    layers = model.model.layers
    for layer in layers:
        nn.init.zeros_(layer.self_attn.o_proj.weight)
        nn.init.zeros_(layer.mlp.down_proj.weight)
    generator = torch.Generator().manual_seed(seed)
    circuit = _new_circuit(shape, generator)
    embedding = model.model.embed_tokens.weight.data
    embedding.normal_(std=_EMBEDDING_SIZE, generator=generator)
    embedding.sub_((1 - _NOTED_PART) * (embedding @ circuit.noted) @ circuit.noted.T)
    embedding.add_(_EMBEDDING_SIZE * circuit.constant)
    separator = embedding[separator_id] / embedding[separator_id].square().mean().sqrt()
    near, middle = (circuit.heads_per_group + window for window in (_NEAR, _MIDDLE))
    looks = (
        (_same_token(circuit), _same_text(circuit, separator, near, middle)),
        (_same_text(circuit, separator, near), _same_text(circuit, separator, middle)),
    )
    _look_back(layers[0].self_attn, circuit)
    for number, layer_looks, copied in zip(_COPYING_LAYERS, looks, circuit.copied, strict=True):
        _match_and_copy(layers[number].self_attn, circuit, layer_looks, copied)
    model.generation_config = GenerationConfig(
        bos_token_id=0, eos_token_id=0, pad_token_id=0, max_new_tokens=64, do_sample=False
    )
    return model


def circuit_weights(model: nn.Module) -> set[str]:
    """Name the weights that start as the circuit, but for the embedding.

    Args:
        model: from `new_model`.

    Returns:
        Names of parameters.
    """
    starts = tuple(f"model.layers.{number}.self_attn." for number in (0, *_COPYING_LAYERS))
    return {name for name, _ in model.named_parameters() if name.startswith(starts)}


def _new_circuit(shape: ModelRecipe, generator: torch.Generator) -> _Circuit:
    width, channels = shape.hidden_size, shape.head_dim
    groups, heads = shape.num_key_value_heads, shape.num_attention_heads
    constant = torch.randint(0, 2, (width,), generator=generator).float() * 2 - 1
    values = torch.randn(groups, channels, width, generator=generator) / math.sqrt(width)
    start = torch.randn(width, width, generator=generator)
    start[:, 0] = constant
    directions = torch.linalg.qr(start).Q[:, 1:]  # none of them along the constant part
    num_copied = len(_COPYING_LAYERS) * groups * channels
    noted, copied = directions[:, :-num_copied], directions[:, -num_copied:]
    num_noted = noted.shape[1]
    notes = noted @ torch.randn(heads, num_noted, channels, generator=generator)
    circuit = _Circuit(
        shape=shape,
        constant=constant,
        values=values,
        notes=notes * math.sqrt(width / num_noted),
        noted=noted,
        copied=copied.T.reshape(len(_COPYING_LAYERS), groups, channels, width),
        frequencies=torch.tensor(_ROPE_BASE) ** (-torch.arange(channels // 2) / (channels // 2)),
    )
    # What is compared later gets directions of its own.
    compared = (0, *(circuit.heads_per_group + window for window in (_NEAR, _MIDDLE)))
    size = min(len(circuit.slow_channels), num_noted // len(compared))
    for head, own in zip(compared, noted.split(size, dim=1), strict=False):
        circuit.notes[head] = 0
        circuit.notes[head, :, :size] = own * math.sqrt(width)
    return replace(circuit, values=circuit.without_constant(circuit.values))


def _look_back(attention: Any, circuit: _Circuit) -> None:
    """Layer 0: queries and keys that depend on the position alone."""
    frequencies, per_group = circuit.frequencies, circuit.heads_per_group

    def put(linear: nn.Linear, place: int, channels: Tensor) -> None:
        rows = slice(place * len(channels), (place + 1) * len(channels))
        direction = circuit.constant / len(circuit.constant)
        linear.weight.data[rows] = torch.outer(channels, direction)

    sharp = _band(frequencies, *_SHARP) * _SHARPNESS
    everything = _band(frequencies, _WINDOWS[0][0], _WINDOWS[-1][1]) * _SOFTNESS
    written = circuit.notes * _EMBEDDING_SIZE
    for group in range(len(circuit.values)):
        put(attention.k_proj, group, everything if group else sharp)
        for number in range(per_group):
            head = group * per_group + number
            query = _band(frequencies, *_WINDOWS[number % len(_WINDOWS)]) * _SOFTNESS
            size = _WINDOW_NOTE_SIZE if number in (_NEAR, _MIDDLE) else _OTHER_NOTE_SIZE
            if group == 0:  # the score is largest where the key stands number + 1 tokens back
                query = _rotated(sharp, -(number + 1) * frequencies)
                size = _OTHER_NOTE_SIZE if number else _NOTE_SIZE
            put(attention.q_proj, head, query)
            written[head] *= size
    attention.v_proj.weight.data.copy_(circuit.values.flatten(0, 1))
    attention.o_proj.weight.data.copy_(written.permute(1, 0, 2).flatten(1))


def _same_token(circuit: _Circuit) -> _Look:
    """Behind a token like this one."""
    key, query = circuit.nothing, circuit.nothing
    channels = circuit.slow_channels
    key[channels] = circuit.notes[0].T[: len(channels)] * _NOTE_MATCH
    query[channels] = circuit.values[0][: len(channels)] * _TOKEN_MATCH
    return key, query


def _same_text(circuit: _Circuit, separator: Tensor, *windows: int) -> _Look:
    """Behind the separator, after text like this text; `windows` are heads of layer 0."""
    key, query = circuit.nothing, circuit.nothing
    *channels, marked = circuit.slow_channels.tolist()
    found = circuit.without_constant(separator)
    query[marked] = _SEPARATOR_MATCH * found / found.square().sum()
    note = circuit.notes[0] @ (circuit.values[0] @ separator) * _NOTE_SIZE / _RESIDUAL_SIZE
    key[marked] = _SEPARATOR_MATCH * note / note.square().sum()
    text = torch.stack([circuit.notes[window].T for window in windows]).sum(dim=0)
    key[channels] = query[channels] = text[: len(channels)] * _TEXT_MATCH
    return key, query


def _match_and_copy(
    attention: Any, circuit: _Circuit, looks: Sequence[_Look], repeated: Tensor
) -> None:
    """Repeat the tokens that are found where the looks of the groups agree."""
    groups, channels, _ = circuit.values.shape
    per_group = circuit.heads_per_group
    for group in range(groups):
        key, query = looks[min(group, len(looks) - 1)]  # further groups do as the last
        rows = slice(group * channels, (group + 1) * channels)
        attention.k_proj.weight.data[rows] = key
        attention.v_proj.weight.data[rows] = repeated[group]
        for number in range(per_group):
            head = group * per_group + number
            rows = slice(head * channels, (head + 1) * channels)
            attention.q_proj.weight.data[rows] = query * _FADING[number % len(_FADING)]
            attention.o_proj.weight.data[:, rows] = repeated[group].T * _COPY_SIZE


def _band(frequencies: Tensor, highest: float, lowest: float) -> Tensor:
    """One in the first channel of each pair that turns at such a frequency: (C,)."""
    inside = ((frequencies <= highest) & (frequencies > lowest)).float()
    return torch.cat([inside, torch.zeros_like(inside)])


def _rotated(channels: Tensor, angles: Tensor) -> Tensor:
    """Turn each pair (i, i + C / 2) of channels, as the rotary embedding does."""
    first, second = channels.chunk(2)
    return torch.cat(
        [
            first * angles.cos() - second * angles.sin(),
            first * angles.sin() + second * angles.cos(),
        ]
    )
