"""P-tuning: a small network learns to write the vectors that are read before every input.

Input embeddings (T, D) become [f(e) (P, D); embed(tokens) (T, D)], with e (P, D) and the network f
learned and the model frozen. Neighbouring vectors depend on each other through f, which makes them
easier to learn than free ones. When the run is over f has done its work: what it wrote is a plain
soft prompt, and is published as one.
f is an MLP, D -> H -> H -> D, or an LSTM over the P positions in both directions, two layers of
width H, and an MLP, 2 H -> 2 H -> D.
Liu et al. 2021, "GPT Understands, Too", arXiv 2103.10385.
"""

from dataclasses import replace
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from engine.language_model import LanguageModel
from engine.method import PeftAdapter
from engine.methods import prompt_tuning
from engine.methods.prompt_tuning import LearnedVectors, PromptLength, draw_network, prompt_config
from engine.plan import Schedule


class Options(PromptLength):
    """P-tuning's own settings."""

    encoder: Literal["mlp", "lstm"] = Field(
        default="mlp",
        title="Network",
        description="What writes the prompt: an MLP, or an LSTM that goes through its positions.",
    )
    encoder_width: int = Field(
        default=0,
        ge=0,
        le=16384,
        title="Width of the network",
        description="H. 0: as wide as the base.",
    )


class _Recurrent(nn.Module):
    """An LSTM over the positions in both directions, and an MLP."""

    def __init__(self, width: int, hidden: int, device: torch.device) -> None:
        super().__init__()
        self.lstm = nn.LSTM(
            width, hidden, num_layers=2, bidirectional=True, batch_first=True, device=device
        )
        self.mlp = nn.Sequential(
            nn.Linear(2 * hidden, 2 * hidden, device=device),
            nn.ReLU(),
            nn.Linear(2 * hidden, width, device=device),
        )

    def forward(self, inputs: Tensor) -> Tensor:
        between: Tensor = self.lstm(inputs[None])[0]
        written: Tensor = self.mlp(between)[0]
        return written


class WrittenPromptEmbedding(LearnedVectors):
    """An embedding whose virtual tokens stand for what a network writes."""

    def __init__(self, base: nn.Embedding, options: Options) -> None:
        """Put input and network there; values come from `initialise`.

        Args:
            base: the model's embedding, V x D.
            options: P, and the network's kind and width.
        """
        super().__init__(base)
        width, device = base.embedding_dim, base.weight.device
        hidden = options.encoder_width or width
        self.inputs = nn.Parameter(torch.zeros(options.num_tokens, width, device=device))
        self.encoder: nn.Module
        if options.encoder == "lstm":
            self.encoder = _Recurrent(width, hidden, device)
        else:
            self.encoder = nn.Sequential(
                nn.Linear(width, hidden, device=device),
                nn.ReLU(),
                nn.Linear(hidden, hidden, device=device),
                nn.ReLU(),
                nn.Linear(hidden, width, device=device),
            )

    def vectors(self) -> Tensor:
        """Let the network write, in fp32 as the prompt will be published.

        Returns:
            (P, D).
        """
        with torch.autocast(self.inputs.device.type, enabled=False):
            written: Tensor = self.encoder(self.inputs)
        return written


def attach(model: Any, options: Options) -> None:
    """Exchange the input embedding.

    Args:
        model: a transformers causal language model, also on the meta device.
        options: gives P and the network.
    """
    model.set_input_embeddings(WrittenPromptEmbedding(model.get_input_embeddings(), options))


def initialise(language_model: LanguageModel, options: Options, generator: torch.Generator) -> None:
    """Draw the inputs from a normal and the network from uniform distributions, as is usual.

    Args:
        language_model: the model `attach` was called on.
        options: unused.
        generator: fixes the draw.
    """
    embedding = language_model.model.get_input_embeddings()
    embedding.inputs.data.copy_(torch.randn(embedding.inputs.shape, generator=generator))
    draw_network(embedding.encoder, generator)


def export(language_model: LanguageModel, options: Options) -> PeftAdapter:
    """Write the prompt the way the `peft` library does: without the network.

    Args:
        language_model: a trained model.
        options: gives P and the network.

    Returns:
        Config and the prompt, (P, D).
    """
    model = language_model.model
    with torch.no_grad():
        prompt = model.get_input_embeddings().vectors()
    own = {
        "peft_type": "P_TUNING",
        "encoder_reparameterization_type": options.encoder.upper(),
        "encoder_hidden_size": options.encoder_width or prompt.shape[1],
        "encoder_num_layers": 2,
        "encoder_dropout": 0.0,
        "inference_mode": True,
    }
    return PeftAdapter(
        prompt_config(model, options.num_tokens) | own, {"prompt_embeddings": prompt.contiguous()}
    )


SPEC = replace(
    prompt_tuning.SPEC,
    name="ptuning",
    title="P-tuning",
    summary="A small network learns to write the vectors before the text; easier to learn.",
    paper="Liu et al. 2021, arXiv 2103.10385",
    options=Options,
    # The network's weights learn, and bear no more than weights do.
    schedule=Schedule(learning_rate=1e-3, epochs=20, patience=8),
    rate_at_width=0,
    when_to_choose="When prompt tuning hardly learns: the network makes its steps smoother. What "
    "is published is a soft prompt, as small as any.",
    quality_place=51,
    attach=attach,
    initialise=initialise,
    export=export,
    export_method="prompt_tuning",
    import_peft=None,
)
