"""Modules in which every token goes through the adapter of its own row, all in one product.

K adapters, N tokens of all rows in a line, a_n the number of token n's adapter, 0 for none.

LoRA: y_n = W x_n + s_k B_k A_k x_n with k = a_n. The A_k lie below each other in A (R, D_in) and
the B_k beside each other in B (D_out, R), R the sum of ranks, so nothing is padded to equal ranks:
y = W x + B (m (A x)), where m (N, R) is s_k at the ranks of a token's own adapter and 0 elsewhere.
DoRA, (IA)3 and learned biases have a row of values for each adapter, and zeros for those without.
Soft prompts and prefixes are virtual tokens, of which every adapter has its own.
Wen and Chaudhuri 2023, "Batched Low-Rank Adaptation of Foundation Models", arXiv 2312.05677; Chen
et al. 2023, "Punica: Multi-Tenant LoRA Serving", arXiv 2310.18547.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.layers import modules_of
from engine.method import MethodSpec, trainable
from engine.methods.bitfit import ShiftedLinear
from engine.methods.dora import DoraLinear
from engine.methods.ia3 import ScaledLinear
from engine.methods.lora import LoraLinear
from engine.methods.lora_bitfit import BiasedLoraLinear
from engine.methods.prefix import PrefixEmbedding, exchanged
from engine.methods.prompt_tuning import LearnedVectors, VirtualTokens
from templates.errors import ModelError, PlanError


@dataclass(frozen=True)
class LayerPart:
    """What an adapter does to one linear layer: y = (1 + c) (W (x + d x) + b + s B A x) + e.

    Attributes:
        narrow: A (R, D_in), or None.
        wide: B (D_out, R).
        scale: s.
        input_change: d (D_in,), or None.
        output_change: c (D_out,), or None.
        shift: e (D_out,), or None.
    """

    narrow: Tensor | None = None
    wide: Tensor | None = None
    scale: float = 1.0
    input_change: Tensor | None = None
    output_change: Tensor | None = None
    shift: Tensor | None = None


@dataclass(frozen=True)
class AdapterParts:
    """What an adapter consists of.

    Attributes:
        layers: by path of the linear layer.
        prompt: (P, D) read instead of embeddings, or None.
        prefix: (P, L, 2, G, D): keys and values of each layer, or None.
    """

    layers: dict[str, LayerPart] = field(default_factory=dict)
    prompt: Tensor | None = None
    prefix: Tensor | None = None

    @property
    def num_virtual_tokens(self) -> int:
        """P."""
        learned = self.prompt if self.prefix is None else self.prefix
        return 0 if learned is None else len(learned)


@torch.no_grad()
def read_parts(model: Any, spec: MethodSpec) -> AdapterParts:
    """Take out of a tuned model what its adapter consists of.

    Args:
        model: with the method attached and its learned values loaded.
        spec: the method.

    Returns:
        Copies, in fp32.

    Raises:
        PlanError: the method does something that cannot differ from row to row.
    """
    layers: dict[str, LayerPart] = {}
    for path, lora in modules_of(model, LoraLinear):
        layers[path] = _lora_part(lora)
    for path, shifted in modules_of(model, ShiftedLinear):
        layers[path] = LayerPart(shift=shifted.shift.detach().clone())
    for path, scaled in modules_of(model, ScaledLinear):
        change = scaled.ia3_l.detach() - 1
        at_input = scaled.scales_input
        layers[path] = (
            LayerPart(input_change=change) if at_input else LayerPart(output_change=change)
        )
    embedding, prompt, prefix = model.get_input_embeddings(), None, None
    if isinstance(embedding, LearnedVectors):
        prompt = embedding.vectors().detach().clone()
    elif isinstance(embedding, PrefixEmbedding):
        shape, prefix = embedding.shape, embedding.keys_values().detach().clone()
        prefix = prefix.view(-1, shape.num_layers, 2, shape.num_heads, shape.head_width)
    modules = {id(model.get_submodule(path)) for path in layers}
    modules |= {id(embedding)} if prompt is not None or prefix is not None else set()
    read = {
        id(parameter)
        for module in model.modules()
        if id(module) in modules
        for parameter in module.parameters()
    }
    if any(id(parameter) not in read for parameter in trainable(model).values()):
        raise PlanError(
            f"{spec.title} changes the base in a way that all rows of a batch would share",
            where=f"method {spec.name}",
            fix="Answer with it alone, or choose LoRA, (IA)3, a soft prompt or a prefix",
        )
    return AdapterParts(layers, prompt, prefix)


def together(parts: Sequence[AdapterParts]) -> AdapterParts:
    """Put adapters on the same rows, where each does what it does alone.

    Args:
        parts: of each adapter.

    Returns:
        What all of them consist of.

    Raises:
        PlanError: two of them change the same layer, or begin with virtual tokens.
    """
    layers: dict[str, LayerPart] = {}
    for part in parts:
        if shared := sorted(layers.keys() & part.layers.keys()):
            raise PlanError(
                "Two adapters change the same layer",
                where=shared[0],
                fix="Add LoRA adapters up to one before, with combine_loras",
            )
        layers |= part.layers
    virtual = [part for part in parts if part.num_virtual_tokens]
    if len(virtual) > 1:
        raise PlanError(
            "Two adapters begin with virtual tokens", fix="Choose one soft prompt or prefix"
        )
    return replace(virtual[0], layers=layers) if virtual else AdapterParts(layers)


def _lora_part(layer: LoraLinear) -> LayerPart:
    own = layer.peft_tensors()
    narrow, wide = own["lora_A.weight"].clone(), own["lora_B.weight"].clone()
    if isinstance(layer, DoraLinear):
        change, bias = layer.lora_magnitude_vector.detach() / layer.lengths() - 1, layer.base.bias
        shift = None if bias is None else -change * bias.detach().float()  # length is of W alone
        return LayerPart(narrow, wide, layer.scale, output_change=change, shift=shift)
    shift = layer.shift.detach().clone() if isinstance(layer, BiasedLoraLinear) else None
    return LayerPart(narrow, wide, layer.scale, shift=shift)


class TokenRoute:
    """Says during a forward pass which adapter each token is for."""

    def __init__(self) -> None:
        """Begin without a pass."""
        self._adapters: Tensor | None = None

    @contextlib.contextmanager
    def taken(self, adapters: Tensor) -> Iterator[None]:
        """Hold the route of one pass.

        Args:
            adapters: (N,) numbers.

        Yields:
            Nothing.
        """
        self._adapters = adapters if bool(adapters.any()) else None
        try:
            yield
        finally:
            self._adapters = None

    def of(self, x: Tensor) -> Tensor | None:
        """Find the adapters of the tokens that a layer is given.

        Args:
            x: (..., D), of all tokens of the pass.

        Returns:
            (N,), or None where no token has one.

        Raises:
            ModelError: the layer is given some of the tokens only, as experts are.
        """
        found = self._adapters
        if found is not None and x.numel() != len(found) * x.shape[-1]:
            raise ModelError(
                "A layer of this base reads some tokens only, and cannot tell whose they are",
                where="adapters by row",
                fix="Answer with one adapter after the other",
            )
        return found


class RowLinear(nn.Module):
    """A frozen linear layer beside which every row has a part of its own."""

    def __init__(
        self, base: Any, parts: Mapping[int, LayerPart], num_adapters: int, route: TokenRoute
    ) -> None:
        """Lay the parts side by side.

        Args:
            base: nn.Linear, Conv1D or NF4Linear.
            parts: by number of the adapter, from 1 on.
            num_adapters: K.
            route: knows whose tokens come.
        """
        super().__init__()
        self.base, self._route = base, route
        low_rank = {number: part for number, part in parts.items() if part.narrow is not None}
        self.narrow: Tensor | None = None
        if low_rank:
            narrow = [part.narrow for part in low_rank.values() if part.narrow is not None]
            wide = [part.wide for part in low_rank.values() if part.wide is not None]
            self.narrow, self.wide = torch.cat(narrow), torch.cat(wide, dim=1).T.contiguous()
            owners = [number for number, part in low_rank.items() for _ in range(_rank(part))]
            self.factors = self.narrow.new_zeros(num_adapters + 1, len(owners))
            for column, number in enumerate(owners):
                self.factors[number, column] = low_rank[number].scale
        self.input_changes = _table(
            {number: part.input_change for number, part in parts.items()}, num_adapters
        )
        self.output_changes = _table(
            {number: part.output_change for number, part in parts.items()}, num_adapters
        )
        self.shifts = _table({number: part.shift for number, part in parts.items()}, num_adapters)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer, and to each token what its adapter adds.

        Args:
            x: (..., D_in).

        Returns:
            (..., D_out).
        """
        rows = self._route.of(x)
        if rows is None:
            plain: Tensor = self.base(x)
            return plain
        shape, x = x.shape[:-1], x.flatten(0, -2)
        if self.input_changes is not None:
            x = torch.addcmul(x, x, self.input_changes[rows].to(x.dtype))
        y: Tensor = self.base(x)
        if self.narrow is not None:
            between = functional.linear(x.to(y.dtype), self.narrow.to(y.dtype))  # (N, R)
            y = torch.addmm(y, between * self.factors[rows].to(y.dtype), self.wide.to(y.dtype))
        if self.output_changes is not None:
            y = torch.addcmul(y, y, self.output_changes[rows].to(y.dtype))
        if self.shifts is not None:
            y = y + self.shifts[rows].to(y.dtype)
        return y.view(*shape, -1)


def _rank(part: LayerPart) -> int:
    return 0 if part.narrow is None else len(part.narrow)


def _table(rows: Mapping[int, Tensor | None], num_adapters: int) -> Tensor | None:
    """Make a table (K + 1, D) of what some adapters have; zeros for the others."""
    found = {number: row for number, row in rows.items() if row is not None}
    if not found:
        return None
    first = next(iter(found.values()))
    table = first.new_zeros(num_adapters + 1, len(first))
    for number, row in found.items():
        table[number] = row
    return table


class RowEmbedding(VirtualTokens):
    """An embedding behind whose vocabulary the virtual tokens of all adapters lie.

    First come those that stand for vectors (S, D), then those whose keys and values are exchanged.

    Attributes:
        prefixes: (M, L, 2, G, D), of all prefixes in turn; None where there are none.
        places: (m,) which tokens of the pass belong to a prefix; None where none does.
        numbers: (m,) their rows in `prefixes`.
    """

    def __init__(
        self, base: nn.Embedding, prompts: Sequence[Tensor], prefixes: Sequence[Tensor]
    ) -> None:
        """Lay prompts and prefixes behind each other.

        Args:
            base: the model's embedding.
            prompts: (P, D) each.
            prefixes: (P, L, 2, G, D) each.
        """
        super().__init__(base)
        self.vectors = torch.cat([*prompts]) if prompts else None
        self.num_vectors = sum(map(len, prompts))
        self.prefixes = torch.cat([*prefixes]) if prefixes else None
        self.places: Tensor | None = None
        self.numbers: Tensor | None = None

    def forward(self, ids: Tensor) -> Tensor:
        """Look up real and virtual tokens, and note which belong to a prefix.

        Args:
            ids: (B, T).

        Returns:
            (B, T, D).
        """
        number = ids - self.num_embeddings
        virtual = number >= 0
        embedded: Tensor = self.base(ids.masked_fill(virtual, 0))
        self.places = self.numbers = None
        if not virtual.any():
            return embedded
        if self.prefixes is not None:
            line = number.flatten()
            self.places = (line >= self.num_vectors).nonzero()[:, 0]
            self.numbers = line[self.places] - self.num_vectors
        if self.vectors is None:
            return embedded
        is_vector = virtual & (number < self.num_vectors)
        learned = self.vectors[number.clamp(0, self.num_vectors - 1)].to(embedded.dtype)
        return torch.where(is_vector.unsqueeze(-1), learned, embedded)


class RowPrefix:
    """What one layer reads of the prefixes; called by its attention, in a pass without padding."""

    def __init__(self, embedding: RowEmbedding, layer: int) -> None:
        """Point to a part of the prefixes.

        Args:
            embedding: holds them.
            layer: its number.
        """
        self._embedding, self._layer = embedding, layer

    def __call__(self, key: Tensor, value: Tensor, starts: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Exchange keys and values of the virtual tokens in this pass.

        Args:
            key: (1, G, N, D), of the tokens of the pass.
            value: as key.
            starts: unused; the embedding has seen where they are.

        Returns:
            Keys and values in the same shapes.
        """
        places, numbers = self._embedding.places, self._embedding.numbers
        if places is None or numbers is None or self._embedding.prefixes is None:
            return key, value
        own = self._embedding.prefixes[numbers, self._layer].permute(1, 2, 0, 3)  # (2, G, m, D)
        return exchanged(key, own[0], places), exchanged(value, own[1], places)
