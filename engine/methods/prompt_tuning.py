"""Prompt tuning: P learned vectors are read before every input; the model itself stays frozen.

Input embeddings (T, D) become [prompt (P, D); embed(tokens) (T, D)]. The prompt is addressed by
P virtual token ids behind the real vocabulary, so batching, caching and decoding need no case of
their own. Lester et al. 2021, "The Power of Scale for Parameter-Efficient Prompt Tuning",
arXiv 2104.08691.
"""

import math
from abc import ABC, abstractmethod
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from engine.language_model import LanguageModel
from engine.method import MethodOptions, MethodSpec, PeftAdapter, PeftImport
from engine.plan import SIMPLE, Schedule
from templates.errors import ModelError


class PromptLength(MethodOptions):
    """What every soft prompt is asked for."""

    num_tokens: int = Field(
        default=20,
        ge=1,
        le=512,
        title="Prompt tokens",
        description="P: 20 to 100 is typical.",
        json_schema_extra=SIMPLE,
    )


class Options(PromptLength):
    """Prompt tuning's own settings."""

    start: Literal["vocabulary", "text", "random"] = Field(
        default="vocabulary",
        title="Start",
        description="Sampled token embeddings, those of a text, or small random values.",
    )
    text: str = Field(
        default="Classify the text.",
        max_length=2000,
        title="Start text",
        description='Used where the start is "text"; repeated or cut to the prompt length.',
    )


class VirtualTokens(nn.Module):
    """An embedding whose ids from `num_embeddings` on are virtual tokens."""

    def __init__(self, base: nn.Embedding) -> None:
        """Stand before a frozen embedding.

        Args:
            base: the model's embedding, V x D; may scale its output.
        """
        super().__init__()
        self.base = base
        self.num_embeddings = base.num_embeddings

    @property
    def weight(self) -> Tensor:
        """The real vocabulary's rows, (V, D), which a tied output head shares."""
        return self.base.weight


class LearnedVectors(VirtualTokens, ABC):
    """An embedding whose virtual tokens stand for learned vectors."""

    @abstractmethod
    def vectors(self) -> Tensor:
        """Give what the virtual tokens stand for.

        Returns:
            (P, D).
        """

    def forward(self, ids: Tensor) -> Tensor:
        """Look up real and virtual tokens.

        Args:
            ids: (B, T); from V on they are virtual.

        Returns:
            (B, T, D).
        """
        virtual = ids >= self.num_embeddings
        embedded: Tensor = self.base(ids.masked_fill(virtual, 0))
        if not self.training and not virtual.any():
            return embedded  # a token that was answered: none stands before it
        learned = self.vectors()[(ids - self.num_embeddings).clamp(min=0)].to(embedded.dtype)
        return torch.where(virtual.unsqueeze(-1), learned, embedded)


class SoftPromptEmbedding(LearnedVectors):
    """An embedding with P learned rows behind those of the vocabulary."""

    def __init__(self, base: nn.Embedding, num_tokens: int) -> None:
        """Put the rows there; values come from `initialise`.

        Args:
            base: the model's embedding, V x D.
            num_tokens: P.
        """
        super().__init__(base)
        device = base.weight.device
        self.prompt = nn.Parameter(torch.zeros(num_tokens, base.embedding_dim, device=device))

    def vectors(self) -> Tensor:
        """Give what the virtual tokens stand for.

        Returns:
            (P, D).
        """
        return self.prompt


def attach(model: Any, options: Options) -> None:
    """Exchange the input embedding.

    Args:
        model: a transformers causal language model, also on the meta device.
        options: gives P.
    """
    base = model.get_input_embeddings()
    model.set_input_embeddings(SoftPromptEmbedding(base, options.num_tokens))


def initialise(language_model: LanguageModel, options: Options, generator: torch.Generator) -> None:
    """Choose where the prompt starts; real token embeddings learn faster than noise.

    Args:
        language_model: the model `attach` was called on.
        options: gives the kind of start.
        generator: fixes the draw.
    """
    embedding = language_model.model.get_input_embeddings()
    shape = embedding.prompt.shape
    if options.start == "random":
        start = torch.randn(shape, generator=generator) * float(embedding.weight.float().std())
    else:
        ids = start_ids(language_model, options, generator)
        start = embedding.base(ids).detach().float()
    embedding.prompt.data.copy_(start)


def start_ids(
    language_model: LanguageModel, options: Options, generator: torch.Generator
) -> Tensor:
    """Choose the tokens that a soft prompt starts as.

    Args:
        language_model: the model `attach` was called on.
        options: P, and a text that is repeated or cut, or a draw from the vocabulary.
        generator: fixes the draw.

    Returns:
        (P,) token ids.
    """
    drawn = torch.randint(
        language_model.vocabulary_size, (options.num_tokens,), generator=generator
    )
    written = language_model.encode(options.text) if options.start == "text" else []
    repeated = (written * options.num_tokens)[: options.num_tokens]
    return (torch.tensor(repeated) if repeated else drawn).to(language_model.device)


def draw_network(network: nn.Module, generator: torch.Generator) -> None:
    """Draw the values of a network that writes a soft prompt, uniform as is usual.

    Args:
        network: of linear layers and LSTMs.
        generator: fixes the draw.
    """
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.LSTM):
            width = module.in_features if isinstance(module, nn.Linear) else module.hidden_size
            for parameter in module.parameters(recurse=False):
                drawn = 2 * torch.rand(parameter.shape, generator=generator) - 1
                parameter.data.copy_(drawn / math.sqrt(width))


def detach(model: Any) -> None:
    """Put the plain embedding back.

    Args:
        model: the model `attach` was called on.
    """
    model.set_input_embeddings(model.get_input_embeddings().base)


def num_virtual_tokens(options: PromptLength) -> int:
    """Count the positions the prompt takes.

    Args:
        options: gives P.

    Returns:
        P.
    """
    return options.num_tokens


def export(language_model: LanguageModel, options: Options) -> PeftAdapter:
    """Name the prompt the way the `peft` library does.

    Args:
        language_model: a trained model.
        options: gives P.

    Returns:
        Config and the prompt, (P, D).
    """
    prompt = language_model.model.get_input_embeddings().prompt.detach().contiguous()
    config = prompt_config(language_model.model, options.num_tokens)
    own = {"peft_type": "PROMPT_TUNING", "prompt_tuning_init": "RANDOM"}
    return PeftAdapter(config | own, {"prompt_embeddings": prompt})


def prompt_config(model: Any, num_tokens: int) -> dict[str, Any]:
    """Write what the `peft` library wants to know of every soft prompt.

    Args:
        model: a transformers causal language model.
        num_tokens: P.

    Returns:
        Config entries.
    """
    config = model.config.get_text_config()
    return {
        "num_virtual_tokens": num_tokens,
        "token_dim": model.get_input_embeddings().weight.shape[1],  # some OPT project it
        "num_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_transformer_submodules": 1,
    }


def import_peft(model: Any, adapter: PeftAdapter) -> PeftImport | None:
    """Put a soft prompt of the `peft` library in our words, however it was learned.

    Args:
        model: the bare base, also on the meta device.
        adapter: config and tensors as they lie in the folder.

    Returns:
        P and the prompt; None for adapters that are none.

    Raises:
        ModelError: tensors that do not fit the base.
    """
    if adapter.config.get("peft_type") not in ("PROMPT_TUNING", "P_TUNING"):
        return None
    prompt = read_vectors(adapter, model.get_input_embeddings().embedding_dim)
    return PeftImport({"num_tokens": len(prompt)}, {f"{embedding_path(model)}.prompt": prompt})


def read_vectors(adapter: PeftAdapter, width: int) -> Tensor:
    """Take the one tensor out of a soft prompt's adapter.

    Args:
        adapter: config and tensors as they lie in the folder.
        width: values of a virtual token.

    Returns:
        (P, width) in fp32.

    Raises:
        ModelError: it is not there, or does not fit the base.
    """
    vectors = adapter.tensors.get("prompt_embeddings")
    wanted = (adapter.config.get("num_virtual_tokens"), width)
    if vectors is None or len(adapter.tensors) != 1 or tuple(vectors.shape) != wanted:
        found = {name: tuple(value.shape) for name, value in adapter.tensors.items()}
        problem = f"It should hold one tensor of shape {wanted}, but holds {found}"
    elif not bool(vectors.isfinite().all()):
        problem = "It holds values that are no numbers"
    else:
        return vectors.float()
    raise ModelError(
        problem,
        where="adapter_model.safetensors, prompt_embeddings",
        fix="Open the adapter with the base it was made for",
    )


def embedding_path(model: Any) -> str:
    """Say where the input embedding is in its model.

    Args:
        model: a transformers causal language model.

    Returns:
        A dotted path.
    """
    embedding = model.get_input_embeddings()
    (path,) = (str(path) for path, module in model.named_modules() if module is embedding)
    return path


SPEC = MethodSpec(
    name="prompt_tuning",
    title="Prompt tuning",
    family="soft prompts",
    summary="A few learned vectors before the text; tiny, and best on large models.",
    paper="Lester et al. 2021, arXiv 2104.08691",
    options=Options,
    # Learned vectors need a far larger step than weights do, and more of them: on clinc150 10, 20
    # and 30 epochs reached 38, 57 and 58 points, a prefix 60 and 72 in 10 and 20.
    schedule=Schedule(learning_rate=9e-2, epochs=20, patience=8),
    rate_at_width=384,
    attach=attach,
    detach=detach,
    when_to_choose="When one large base serves many small tasks, or when the result must be tiny. "
    "It needs a base of several billion parameters to keep up with the others.",
    quality_place=5,
    least_parameters=10_000_000_000,
    precisions=("fp32", "bf16", "int8", "nf4"),
    starts_as_base=False,
    initialise=initialise,
    num_virtual_tokens=num_virtual_tokens,
    export=export,
    import_peft=import_peft,
)
