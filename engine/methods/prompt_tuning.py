"""Prompt tuning: P learned vectors are read before every input; the model itself stays frozen.

Input embeddings (T, D) become [prompt (P, D); embed(tokens) (T, D)]. The prompt is addressed by
P virtual token ids behind the real vocabulary, so batching, caching and decoding need no case of
their own. Lester et al. 2021, "The Power of Scale for Parameter-Efficient Prompt Tuning",
arXiv 2104.08691.
"""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from engine.language_model import LanguageModel
from engine.method import MethodOptions, MethodSpec, PeftAdapter
from engine.plan import SIMPLE, Schedule


class Options(MethodOptions):
    """Prompt tuning's own settings."""

    num_tokens: int = Field(
        default=20,
        ge=1,
        le=512,
        title="Prompt tokens",
        description="P: 20 to 100 is typical.",
        json_schema_extra=SIMPLE,
    )
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


class SoftPromptEmbedding(nn.Module):
    """An embedding whose ids from `num_embeddings` on stand for learned vectors."""

    def __init__(self, base: nn.Embedding, num_tokens: int) -> None:
        """Put P learned rows behind a frozen embedding.

        Args:
            base: the model's embedding, V x D; may scale its output.
            num_tokens: P.
        """
        super().__init__()
        self.base = base
        self.num_embeddings = base.num_embeddings
        self.prompt = nn.Parameter(
            torch.zeros(num_tokens, base.embedding_dim, device=base.weight.device)
        )

    @property
    def weight(self) -> Tensor:
        """The real vocabulary's rows, (V, D), which a tied output head shares."""
        return self.base.weight

    def forward(self, ids: Tensor) -> Tensor:
        """Look up real and virtual tokens.

        Args:
            ids: (B, T); from V on they are virtual.

        Returns:
            (B, T, D).
        """
        virtual = ids >= self.num_embeddings
        embedded: Tensor = self.base(ids.masked_fill(virtual, 0))
        learned = self.prompt[(ids - self.num_embeddings).clamp(min=0)].to(embedded.dtype)
        return torch.where(virtual.unsqueeze(-1), learned, embedded)


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
        drawn = torch.randint(embedding.num_embeddings, shape[:1], generator=generator)
        written = language_model.encode(options.text) if options.start == "text" else []
        repeated = (written * shape[0])[: shape[0]]
        ids = torch.tensor(repeated) if repeated else drawn
        start = embedding.base(ids.to(embedding.weight.device)).detach().float()
    embedding.prompt.data.copy_(start)


def detach(model: Any) -> None:
    """Put the plain embedding back.

    Args:
        model: the model `attach` was called on.
    """
    model.set_input_embeddings(model.get_input_embeddings().base)


def num_virtual_tokens(options: Options) -> int:
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
    config = language_model.model.config
    return PeftAdapter(
        {
            "peft_type": "PROMPT_TUNING",
            "num_virtual_tokens": options.num_tokens,
            "token_dim": prompt.shape[1],
            "num_layers": config.num_hidden_layers,
            "num_attention_heads": config.num_attention_heads,
            "num_transformer_submodules": 1,
            "prompt_tuning_init": "RANDOM",
        },
        {"prompt_embeddings": prompt},
    )


SPEC = MethodSpec(
    name="prompt_tuning",
    title="Prompt tuning",
    family="soft prompts",
    summary="A few learned vectors before the text; tiny, and best on large models.",
    paper="Lester et al. 2021, arXiv 2104.08691",
    options=Options,
    # Learned vectors need a far larger step than weights do.
    schedule=Schedule(learning_rate=3e-2, epochs=10, patience=8),
    attach=attach,
    detach=detach,
    when_to_choose="When one large base serves many small tasks, or when the result must be tiny. "
    "It needs a base of several billion parameters to keep up with the others.",
    servable_by=("transformers + peft",),
    quality_place=5,
    least_parameters=10_000_000_000,
    precisions=("fp32", "bf16", "nf4"),
    starts_as_base=False,
    initialise=initialise,
    num_virtual_tokens=num_virtual_tokens,
    export=export,
)
