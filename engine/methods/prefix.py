"""Prefix tuning: every layer sees P learned keys and values before those of the text.

Attention of each layer over [K_p; K] and [V_p; V], with K_p and V_p (P, G, D) learned for each of L
layers with G key heads of width D, and the model frozen. The prefix has the places of P virtual
tokens at the start of every input, so batching, caching and decoding need no case of their own:
only the keys and values there are exchanged, after positions were rotated into them.
It begins as the keys and values of P tokens, sampled or of a text, which learns far better than
noise. With `reparametrised`, a network writes it while it is learned: E (P, G D) -> H -> tanh ->
(P, 2 L G D); what it wrote in the end is what is kept and published.
Li and Liang 2021, "Prefix-Tuning: Optimizing Continuous Prompts for Generation", arXiv 2101.00190.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import DynamicCache, DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from engine.attention import with_prefix
from engine.language_model import LanguageModel
from engine.layers import blocks_of
from engine.method import PeftAdapter, PeftImport
from engine.methods import prompt_tuning
from engine.methods.prompt_tuning import (
    VirtualTokens,
    draw_network,
    embedding_path,
    prompt_config,
    read_vectors,
    start_ids,
)
from engine.plan import SIMPLE, Schedule
from templates.errors import PlanError

PREFIXED = "sdpa_behind_prefix"


class Options(prompt_tuning.Options):
    """Prefix tuning's settings: those of prompt tuning and the network."""

    reparametrised: bool = Field(
        default=False,
        title="Through a network",
        description="A network writes the prefix while it is learned: slower, at times steadier.",
        json_schema_extra=SIMPLE,
    )
    encoder_width: int = Field(
        default=512,
        ge=1,
        le=16384,
        title="Width of the network",
        description="H, where a network writes the prefix.",
    )


class _Shape(NamedTuple):
    """Layers L, key heads G and their width D."""

    num_layers: int
    num_heads: int
    head_width: int

    @property
    def num_values(self) -> int:
        """Values of one virtual token: keys and values of all layers."""
        return 2 * self.num_layers * self.num_heads * self.head_width


class PrefixEmbedding(VirtualTokens):
    """The input embedding, and beside it the prefix that all layers read in the same pass."""

    def __init__(self, base: nn.Embedding, shape: _Shape, options: Options, kernel: str) -> None:
        """Put the prefix there; values come from `initialise`.

        Args:
            base: the model's embedding, V x D.
            shape: of keys and values.
            options: P, and whether a network writes.
            kernel: the attention the model had.
        """
        super().__init__(base)
        device = base.weight.device
        self.shape, self.kernel = shape, kernel
        self.current: Tensor | None = None
        width = shape.num_heads * shape.head_width if options.reparametrised else shape.num_values
        self.prefix = nn.Parameter(torch.zeros(options.num_tokens, width, device=device))
        self.encoder: nn.Sequential | None = None
        if options.reparametrised:
            self.encoder = nn.Sequential(
                nn.Linear(width, options.encoder_width, device=device),
                nn.Tanh(),
                nn.Linear(options.encoder_width, shape.num_values, device=device),
            )

    def keys_values(self) -> Tensor:
        """Give the prefix, in fp32 as it will be published.

        Returns:
            (P, 2 L G D): of each layer keys, then values.
        """
        if self.encoder is None:
            return self.prefix
        with torch.autocast(self.prefix.device.type, enabled=False):
            written: Tensor = self.encoder(self.prefix)
        return written

    def forward(self, ids: Tensor) -> Tensor:
        """Look up tokens; the prefix that the layers read is made once for all of them.

        Args:
            ids: (B, T); what virtual ones stand for is read by nobody.

        Returns:
            (B, T, D).
        """
        virtual = ids >= self.num_embeddings
        if self.training or self.current is None or virtual.any():
            self.current = self.keys_values()
        embedded: Tensor = self.base(ids.masked_fill(virtual, 0))
        return embedded


class LayerPrefix:
    """What one layer reads of the prefix; called by its attention."""

    def __init__(self, embedding: PrefixEmbedding, layer: int) -> None:
        """Point to a part of the prefix.

        Args:
            embedding: holds it.
            layer: its number.
        """
        self._embedding, self._layer = embedding, layer

    def __call__(self, key: Tensor, value: Tensor, starts: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Exchange keys and values of the virtual tokens.

        Args:
            key: (B, G, S, D).
            value: as key.
            starts: places where P virtual tokens begin; none where a context was read before.

        Returns:
            Keys and values in the same shapes.
        """
        current, shape = self._embedding.current, self._embedding.shape
        if current is None or not starts or key.shape[2] < len(current):
            return key, value
        places = torch.tensor(starts, device=key.device)[:, None]
        places = (places + torch.arange(len(current), device=key.device)).flatten()
        layers = current.view(len(current), 2 * shape.num_layers, shape.num_heads, -1)
        learned = layers[:, 2 * self._layer : 2 * self._layer + 2].permute(1, 2, 0, 3)
        learned = learned.repeat(1, 1, len(starts), 1)  # (2, G, P starts, D)
        return exchanged(key, learned[0], places), exchanged(value, learned[1], places)


def exchanged(whole: Tensor, part: Tensor, places: Tensor) -> Tensor:
    """Put learned keys or values in the place of others.

    Args:
        whole: (B, G, S, D).
        part: (G, M, D).
        places: (M,) of the tokens they belong to.

    Returns:
        A new tensor in the shape of `whole`.
    """
    return whole.index_copy(2, places, part.to(whole.dtype).expand(len(whole), -1, -1, -1))


def attend_behind_prefix(
    module: Any, query: Tensor, key: Tensor, value: Tensor, *more: Any, **others: Any
) -> tuple[Tensor, None]:
    """Attend where rows are not packed: every row begins with the virtual tokens.

    Args:
        module: the attention layer.
        query: (B, H, T, D).
        key: (B, G, S, D).
        value: as key.
        *more: as the library's own function takes it.
        **others: likewise.

    Returns:
        (B, T, H, D), and no weights.
    """
    key, value = with_prefix(module, key, value, (0,))
    mixed: Tensor = sdpa_attention_forward(module, query, key, value, *more, **others)[0]
    return mixed, None


AttentionInterface.register(PREFIXED, attend_behind_prefix)
AttentionMaskInterface.register(PREFIXED, sdpa_mask)


def attach(model: Any, options: Options) -> None:
    """Let every layer read a prefix.

    Args:
        model: a transformers causal language model, also on the meta device.
        options: P, and whether a network writes.

    Raises:
        PlanError: the layers of this base cannot, or would forget the prefix.
    """
    config = model.config.get_text_config()
    attentions = attentions_of(model)
    if any(type(layer) is not DynamicLayer for layer in DynamicCache(config=config).layers):
        raise PlanError(
            "The layers of this base forget what lies behind a window, so also a prefix",
            where="method prefix",
            fix="Choose prompt_tuning, or another method",
        )
    if not (model._supports_attention_backend and model._supports_sdpa) or not attentions:
        raise PlanError(
            "The layers of this base keep their attention to themselves: none can get a prefix",
            where="method prefix",
            fix="Choose prompt_tuning, or another method",
        )
    embedding = PrefixEmbedding(
        model.get_input_embeddings(), _shape(model), options, model.config._attn_implementation
    )
    model.set_input_embeddings(embedding)
    model.config._attn_implementation = PREFIXED
    for layer, attention in enumerate(attentions):
        attention.learned_prefix = LayerPrefix(embedding, layer)


def _shape(model: Any) -> _Shape:
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return _Shape(config.num_hidden_layers, heads, width)


def attentions_of(model: Any) -> list[Any]:
    """List the attention of each block; none where a block has not exactly one.

    Args:
        model: a transformers causal language model, on any device.

    Returns:
        The modules in order.
    """
    _, blocks = blocks_of(model)
    found = [
        [
            module
            for module in block.modules()
            if hasattr(module, "layer_idx") and "attention" in type(module).__name__.lower()
        ]
        for block in blocks
    ]
    return [modules[0] for modules in found] if all(len(one) == 1 for one in found) else []


@torch.no_grad()
def initialise(language_model: LanguageModel, options: Options, generator: torch.Generator) -> None:
    """Begin as what the layers make of P tokens; a network is drawn and begins at their mean.

    Args:
        language_model: the model `attach` was called on.
        options: gives the kind of start.
        generator: fixes the draw.
    """
    model = language_model.model
    embedding: PrefixEmbedding = model.get_input_embeddings()
    shape = (options.num_tokens, embedding.shape.num_values)
    if options.start == "random":
        start = torch.randn(shape, generator=generator) * float(embedding.weight.float().std())
    else:
        start = _keys_values_of(language_model, start_ids(language_model, options, generator))
    if embedding.encoder is None:
        embedding.prefix.copy_(start)
        return
    embedding.prefix.copy_(torch.randn(embedding.prefix.shape, generator=generator))
    draw_network(embedding.encoder, generator)
    last = embedding.encoder[-1]
    assert isinstance(last, nn.Linear)
    last.bias.copy_(start.mean(0))


def _keys_values_of(language_model: LanguageModel, ids: Tensor) -> Tensor:
    """Read tokens without the prefix: their keys and values, (P, 2 L G D)."""
    model = language_model.model
    embedding = model.get_input_embeddings()
    model.set_input_embeddings(embedding.base)
    was_training = model.training
    model.eval()
    with language_model.autocast():
        cache = model(ids[None], use_cache=True, logits_to_keep=1).past_key_values
    model.train(was_training)
    model.set_input_embeddings(embedding)
    parts = [part[0] for layer in cache.layers for part in (layer.keys, layer.values)]
    return torch.stack(parts).permute(2, 0, 1, 3).flatten(1).float()


def detach(model: Any) -> None:
    """Put the plain embedding and the attention back.

    Args:
        model: the model `attach` was called on.
    """
    embedding = model.get_input_embeddings()
    model.set_input_embeddings(embedding.base)
    model.config._attn_implementation = embedding.kernel
    for attention in attentions_of(model):
        del attention.learned_prefix


def import_peft(model: Any, adapter: PeftAdapter) -> PeftImport | None:
    """Put a prefix of the `peft` library in our words; a network that wrote it is gone there, too.

    Args:
        model: the bare base, also on the meta device.
        adapter: config and tensors as they lie in the folder.

    Returns:
        P and the prefix; None for adapters that are none.
    """
    if adapter.config.get("peft_type") != "PREFIX_TUNING":
        return None
    prefix = read_vectors(adapter, _shape(model).num_values)
    return PeftImport({"num_tokens": len(prefix)}, {f"{embedding_path(model)}.prefix": prefix})


def export(language_model: LanguageModel, options: Options) -> PeftAdapter:
    """Write the prefix the way the `peft` library does: without the network.

    Args:
        language_model: a trained model.
        options: gives P.

    Returns:
        Config and the prefix, (P, 2 L G D).
    """
    model = language_model.model
    embedding: PrefixEmbedding = model.get_input_embeddings()
    shape = embedding.shape
    with torch.no_grad():
        prefix = embedding.keys_values().clone()
    own = {
        "peft_type": "PREFIX_TUNING",
        "token_dim": shape.num_heads * shape.head_width,
        "num_attention_heads": shape.num_heads,
        "prefix_projection": False,
    }
    return PeftAdapter(
        prompt_config(model, options.num_tokens) | own, {"prompt_embeddings": prefix}
    )


SPEC = replace(
    prompt_tuning.SPEC,
    name="prefix",
    title="Prefix tuning",
    summary="Every layer reads a few learned keys and values before the text; the base stays.",
    paper="Li and Liang 2021, arXiv 2101.00190",
    options=Options,
    schedule=Schedule(learning_rate=9e-2, epochs=20, patience=8),
    rate_at_width=384,
    when_to_choose="When a soft prompt is wanted and prompt tuning learns too little, as on most "
    "bases below some billion parameters: it reaches every layer.",
    quality_place=50,
    attach=attach,
    detach=detach,
    initialise=initialise,
    export=export,
    export_method="prefix",
    import_peft=import_peft,
)
