"""Prompt transfer (SPoT): prompt tuning that starts from a prompt learned on another task.

As prompt tuning, [prompt (P, D); embed(tokens) (T, D)], but the prompt's first values are those
that a finished run ended with. Vu et al. 2022, "SPoT: Better Frozen Model Adaptation through Soft
Prompt Transfer", arXiv 2110.07904.

Where no run is named, one is found. The paper trains a probe on the new task and takes the source
whose prompt has the nearest direction, its mean cosine. Here every candidate is put before the new
task's validation examples as it is, and the one with the lowest loss is taken: that is what
the cosine stands for, needs no training of a probe, and also sees a prompt of the right direction
and the wrong length. Test examples are never looked at.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from pydantic import Field
from torch import Tensor

from engine.batches import Batch
from engine.language_model import LanguageModel
from engine.loss import evaluate_loss
from engine.methods import prompt_tuning
from engine.methods.prompt_tuning import PromptLength
from engine.plan import SIMPLE
from templates.errors import ModelError

_MOST_NAMED = 4  # candidates that the sentence mentions


class Options(PromptLength):
    """Prompt transfer's own settings."""

    source: str = Field(
        default="",
        max_length=100,
        pattern=r"^(train-[0-9a-z-]+)?$",
        title="Start from run",
        description="Id of a finished prompt tuning run on the same base, with as many prompt "
        "tokens. Empty: the run on other data whose prompt fits the validation rows best.",
        json_schema_extra=SIMPLE,
    )


def initialise(language_model: LanguageModel, options: Options, generator: torch.Generator) -> None:
    """Start as prompt tuning does, until `start` puts another task's prompt there.

    Args:
        language_model: the model `attach` was called on.
        options: gives P.
        generator: fixes the draw.
    """
    usual = prompt_tuning.Options(num_tokens=options.num_tokens)
    prompt_tuning.initialise(language_model, usual, generator)


@torch.no_grad()
def start(
    language_model: LanguageModel,
    sources: Mapping[str, Mapping[str, Tensor]],
    validation: Sequence[Batch],
) -> str:
    """Put the prompt of the best source there.

    Args:
        language_model: with the method attached and initialised.
        sources: id of a run -> the one tensor that it learned, (P, D).
        validation: examples of the new task.

    Returns:
        A sentence that says which was taken, and why.

    Raises:
        ModelError: a prompt of another shape, or with values that are no numbers.
    """
    prompt = language_model.model.get_input_embeddings().prompt
    vectors = {run: _checked(run, tensors, prompt) for run, tensors in sources.items()}
    usual_loss = _loss(language_model, validation)
    losses = {}
    for run, found in vectors.items():
        prompt.data.copy_(found)
        losses[run] = _loss(language_model, validation)
    ranked = sorted(losses, key=lambda run: (losses[run], run))
    prompt.data.copy_(vectors[ranked[0]])
    return _sentence(ranked, losses, usual_loss)


def _checked(run: str, tensors: Mapping[str, Tensor], prompt: Tensor) -> Tensor:
    found = [tensor for name, tensor in tensors.items() if name.endswith(".prompt")]
    if len(found) != 1 or found[0].shape != prompt.shape:
        problem = f"should be one prompt of shape {tuple(prompt.shape)}"
    elif not bool(found[0].isfinite().all()):
        problem = "holds values that are no numbers"
    else:
        return found[0]
    raise ModelError(
        f"What run {run} learned {problem}", where="source", fix="Choose another run, or plan again"
    )


def _loss(language_model: LanguageModel, validation: Sequence[Batch]) -> float:
    scores = evaluate_loss(language_model, list(validation))
    return scores[0] if scores and math.isfinite(scores[0]) else math.inf


def _sentence(ranked: Sequence[str], losses: Mapping[str, float], usual_loss: float) -> str:
    taken, *others = ranked
    words = f"Starts from the prompt of run {taken}: validation loss {losses[taken]:.3f} before "
    words += f"the first step, {usual_loss:.3f} with prompt tuning's own start"
    if others:
        named = [f"{run} {losses[run]:.3f}" for run in others[:_MOST_NAMED]]
        left_out = len(others) - len(named)
        words += "; not taken: " + ", ".join(named) + (f" and {left_out} more" if left_out else "")
    if losses[taken] > usual_loss:
        words += ". Its prompt does not fit this task as it is: plain prompt tuning may do better"
    return words + "."


SPEC = replace(
    prompt_tuning.SPEC,
    name="spot",
    title="Prompt transfer (SPoT)",
    summary="Prompt tuning that starts from the prompt of another task's run.",
    paper="Vu et al. 2022, arXiv 2110.07904",
    options=Options,
    when_to_choose="When a prompt tuning run on a related task is there already: with few rows it "
    "learns more from that start, and more surely.",
    quality_place=52,
    initialise=initialise,
    start=start,
    export_method="prompt_tuning",
    import_peft=None,
)
