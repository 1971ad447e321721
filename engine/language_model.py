"""A base model in memory with its tokenizer, and what every user of it needs to know."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from engine.plan import Precision
from templates.render import Rendered


@dataclass(frozen=True)
class FastPaths:
    """What was proven to give the same logits on a model; nothing else is used.

    Attributes:
        packs: it reads examples packed into one row.
        head_apart: its output head can be called on single hidden states.
        logit_scale: by which the head's output is multiplied.
        logit_cap: c of c tanh(logits / c) after that; 0: none.
        notices: sentences about what could not be proven.
    """

    packs: bool = False
    head_apart: bool = False
    logit_scale: float = 1.0
    logit_cap: float = 0.0
    notices: tuple[str, ...] = ()


class Stem(Protocol):
    """Stands in for the blocks below everything that learns."""

    def standing_in(
        self, ids: Tensor, lengths: Sequence[int]
    ) -> contextlib.AbstractContextManager[None]:
        """Let the blocks hand on what was kept, while rows are read that all are known.

        Args:
            ids: (B, T) token ids; of packed rows (1, T).
            lengths: tokens of each row.

        Returns:
            A context manager around one forward pass.
        """
        ...


class RowAdapters(Protocol):
    """Adapters on one base, of which every row has its own; a row without one has number 0."""

    def routed(self, adapters: Tensor) -> contextlib.AbstractContextManager[None]:
        """Say for one forward pass which adapter each token is for.

        Args:
            adapters: (N,) numbers, in the order in which layers see the tokens.

        Returns:
            A context manager around the pass.
        """
        ...

    def virtual_ids(self, adapter: int) -> list[int]:
        """List the virtual tokens that a row of this adapter begins with.

        Args:
            adapter: its number.

        Returns:
            Token ids, often none.
        """
        ...


@dataclass
class LanguageModel:
    """A model in the hand: weights, tokenizer, precision, and soft-prompt length.

    Attributes:
        model: a transformers causal language model.
        tokenizer: its fast tokenizer.
        precision: how the frozen weights are held; all but fp32 compute under bf16 autocast.
        num_virtual_tokens: P learned positions read before every input; 0 for most methods.
        paths: ways of training it faster that were proven on it.
        stem: what its frozen lower blocks made of examples, to be read instead of running them.
        row_adapters: adapters among which every row that is answered may choose.
    """

    model: Any
    tokenizer: Any
    precision: Precision = "fp32"
    num_virtual_tokens: int = 0
    paths: FastPaths = FastPaths()
    stem: Stem | None = None
    row_adapters: RowAdapters | None = None

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self.model.device
        return device

    @property
    def context_tokens(self) -> int:
        """How many tokens of text fit, soft prompt already subtracted."""
        config = self.model.config
        limit = getattr(config, "max_position_embeddings", None) or 2048
        return int(limit) - self.num_virtual_tokens

    @property
    def vocabulary_size(self) -> int:
        """Rows of the input embedding; virtual token ids begin here."""
        return int(self.model.config.vocab_size)

    @property
    def virtual_token_ids(self) -> list[int]:
        """The ids that stand for the soft prompt, put before every input."""
        return list(range(self.vocabulary_size, self.vocabulary_size + self.num_virtual_tokens))

    @property
    def has_chat_template(self) -> bool:
        """Whether prompts go through the base's own chat template."""
        return bool(self.tokenizer.chat_template)

    @property
    def end_ids(self) -> set[int]:
        """Token ids that end an answer by the base's own convention."""
        configured = self.model.generation_config.eos_token_id
        ids = configured if isinstance(configured, list) else [configured]
        return {id_ for id_ in [*ids, self.tokenizer.eos_token_id] if id_ is not None}

    def opening_ids(self) -> list[int]:
        """List the tokens that the tokenizer puts before a text, such as `<s>`.

        Returns:
            Token ids, often none. With a chat template none: the template writes them itself.
        """
        if self.has_chat_template:
            return []
        plain = self.tokenizer("a", add_special_tokens=False)["input_ids"]
        full = list(self.tokenizer("a")["input_ids"])
        return full[: full.index(plain[0])]

    def encode(self, text: str) -> list[int]:
        """Turn text into token ids, without the opening ones.

        In the raw layout every character is data: text that spells a special token stays text.

        Args:
            text: any text.

        Returns:
            Token ids.
        """
        if not text:
            return []
        ids = self.tokenizer(
            text,
            add_special_tokens=False,
            split_special_tokens=not self.has_chat_template,
            verbose=False,
        )["input_ids"]
        return list(ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Turn token ids into text, special tokens included.

        Args:
            ids: token ids of the real vocabulary.

        Returns:
            The text.
        """
        text: str = self.tokenizer.decode(
            list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return text

    def context_ids(self, rendered: Rendered) -> list[int]:
        """Encode what all items of an arm share: soft prompt, opening, demonstrations.

        Args:
            rendered: any item of the arm.

        Returns:
            Token ids, possibly none.
        """
        return self.virtual_token_ids + self.opening_ids() + self.encode(rendered.context)

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Choose the compute type: plain fp32 for fp32 weights, else bf16.

        Returns:
            A context manager around forward passes.
        """
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)
