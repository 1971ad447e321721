"""One base, many tasks: every row of a batch is answered with an adapter of its own.

The base is held once and stays as it is; the adapters lie beside it together. Rows of different
adapters go through the same forward passes, so a base serves many tasks at the speed of one batch
instead of many small ones. LoRA and what is published as one, DoRA, (IA)3, soft prompts, prefixes
and no adapter at all may stand next to each other, and a row may have several: a LoRA and a soft
prompt, say.
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.adapter_exchange import AdapterExchange
from engine.adapter_import import ImportedAdapter
from engine.adapter_layers import (
    AdapterParts,
    LayerPart,
    RowEmbedding,
    RowLinear,
    RowPrefix,
    TokenRoute,
    read_parts,
    together,
)
from engine.answering.choice import GREEDY, Choice
from engine.answering.generation import generate
from engine.answering.label_scores import score_labels
from engine.answering.packed_reading import reads_packed
from engine.answering.reading import Ids, Progress, evaluating
from engine.language_model import LanguageModel
from engine.layers import put_module
from engine.methods import get_method
from engine.methods.prefix import attentions_of
from templates.errors import ModelError, PlanError, StudioError


class AdapterBank:
    """A base and several adapters, until `close`.

    Attributes:
        language_model: the base; without being asked for an adapter it answers as the base does.
        names: of the adapters.
    """

    def __init__(
        self,
        base: LanguageModel,
        adapters: Mapping[str, ImportedAdapter | Sequence[ImportedAdapter]],
    ) -> None:
        """Put all adapters beside the base, or none of them.

        Args:
            base: without a method; its model is changed in place until `close`.
            adapters: by name; under one name also several that work together.

        Raises:
            ModelError: an adapter does not fit the base.
            PlanError: a method cannot differ from row to row, or two adapters cannot work together.
        """
        self._exchange = AdapterExchange(base)
        parts = [self._read(name, adapter) for name, adapter in adapters.items()]
        self._exchange.use(None)
        self.names = tuple(adapters)
        self._rows = _RowAdapters(base, parts)
        self.language_model = replace(base, row_adapters=self._rows)

    def close(self) -> None:
        """Take all adapters off; the base is what it was."""
        self._exchange.use(None)

    def answers(
        self,
        prompts: Sequence[Ids],
        adapters: Sequence[str | None],
        *,
        stop: str,
        max_new_tokens: int,
        context_ids: Ids = (),
        batch_size: int = 64,
        choice: Choice = GREEDY,
        progress: Progress | None = None,
    ) -> list[str]:
        """Answer prompts, each with its adapter.

        Args:
            prompts: N prompts.
            adapters: N names; None for the base alone.
            stop: the text that ends an answer; "" leaves it to the end token.
            max_new_tokens: longest answer.
            context_ids: tokens before every prompt, such as the opening; no virtual ones.
            batch_size: most rows at once; fewer where they are long.
            choice: how tokens are chosen.
            progress: called with prompts done and N.

        Returns:
            N answers without the stop text, stripped.
        """
        return generate(
            self.language_model,
            context_ids,
            prompts,
            stop=stop,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            choice=choice,
            adapters=self.numbers(adapters, len(prompts)),
            progress=progress,
        )

    def label_scores(
        self,
        prompts: Sequence[Ids],
        adapters: Sequence[str | None],
        labels: Sequence[Ids],
        *,
        context_ids: Ids = (),
        batch_size: int = 64,
        progress: Progress | None = None,
    ) -> NDArray[np.float64]:
        """Score every label after every prompt, each with its adapter.

        Args:
            prompts: N prompts.
            adapters: N names; None for the base alone.
            labels: L completions as token ids.
            context_ids: tokens before every prompt, such as the opening; no virtual ones.
            batch_size: most prompts at once; fewer where they are long.
            progress: called with prompts done and N.

        Returns:
            Sums of log-probabilities, (N, L).
        """
        return score_labels(
            self.language_model,
            context_ids,
            prompts,
            labels,
            batch_size=batch_size,
            adapters=self.numbers(adapters, len(prompts)),
            progress=progress,
        )

    def numbers(self, adapters: Sequence[str | None], num_prompts: int) -> list[int]:
        """Look adapters up.

        Args:
            adapters: names; None for the base alone.
            num_prompts: how many there have to be.

        Returns:
            Their numbers, 0 for none.

        Raises:
            PlanError: there is no adapter of that name, or not one for each prompt.
        """
        if len(adapters) != num_prompts:
            raise PlanError(
                f"{num_prompts} prompts have {len(adapters)} adapters",
                where="adapters",
                fix="Name one for each prompt, or None",
            )
        known = {None: 0} | {name: number for number, name in enumerate(self.names, 1)}
        for row, name in enumerate(adapters, 1):
            if name not in known:
                raise PlanError(
                    f"There is no adapter called {name!r}",
                    where=f"item {row}",
                    fix=f"Choose from {', '.join(self.names) or 'none'}",
                )
        return [known[name] for name in adapters]

    def _read(
        self, name: str, adapters: ImportedAdapter | Sequence[ImportedAdapter]
    ) -> AdapterParts:
        several = [adapters] if isinstance(adapters, ImportedAdapter) else adapters
        try:
            return together(
                [
                    read_parts(self._exchange.use(one).model, get_method(one.method))
                    for one in several
                ]
            )
        except StudioError as error:
            self._exchange.use(None)
            where = f"adapter {name}" + (f", {error.where}" if error.where else "")
            raise type(error)(error.what, where=where, fix=error.fix) from error


class _RowAdapters:
    """The adapters by number, as readings know them."""

    def __init__(self, base: LanguageModel, parts: Sequence[AdapterParts]) -> None:
        self._route = TokenRoute()
        self._virtual_ids = _virtual_ids(base.vocabulary_size, parts)
        if any(part.prefix is not None for part in parts):
            _check_reads_packed(base)
        by_layer: dict[str, dict[int, LayerPart]] = {}
        for number, part in enumerate(parts, 1):
            for path, layer in part.layers.items():
                by_layer.setdefault(path, {})[number] = layer
        model = base.model
        layers = {
            path: RowLinear(model.get_submodule(path), own, len(parts), self._route)
            for path, own in by_layer.items()
        }
        for path, rows in layers.items():
            put_module(model, path, rows)
        prompts = [part.prompt for part in parts if part.prompt is not None]
        prefixes = [part.prefix for part in parts if part.prefix is not None]
        if prompts or prefixes:
            embedding = RowEmbedding(model.get_input_embeddings(), prompts, prefixes)
            model.set_input_embeddings(embedding)
            for number, attention in enumerate(attentions_of(model) if prefixes else ()):
                attention.learned_prefix = RowPrefix(embedding, number)

    def routed(self, adapters: Tensor) -> contextlib.AbstractContextManager[None]:
        """Say for one forward pass which adapter each token is for."""
        return self._route.taken(adapters)

    def virtual_ids(self, adapter: int) -> list[int]:
        """List the virtual tokens that a row of this adapter begins with."""
        return self._virtual_ids[adapter]


def _virtual_ids(first: int, parts: Sequence[AdapterParts]) -> list[list[int]]:
    """Number virtual tokens as the embedding does: those of prompts, then those of prefixes."""
    found: list[list[int]] = [[] for _ in range(len(parts) + 1)]
    for of_prefix in (False, True):
        for number, part in enumerate(parts, 1):
            if part.num_virtual_tokens and (part.prefix is not None) == of_prefix:
                found[number] = list(range(first, first + part.num_virtual_tokens))
                first += part.num_virtual_tokens
    return found


@torch.no_grad()
def _check_reads_packed(base: LanguageModel) -> None:
    with evaluating(base):
        if reads_packed(base):
            return
    raise ModelError(
        "This base is read in padded batches, in which prefixes cannot differ from row to row",
        where="adapters by row",
        fix="Answer with one adapter after the other",
    )
