"""rsLoRA: LoRA whose update keeps its size when the rank grows.

y = W x + (alpha / sqrt(R)) B A x, with W (D_out, D_in) frozen, A (R, D_in), B (D_out, R) learned.
With alpha / R the update of a wide layer learns ever more slowly; with the square root its values
and their gradients stay of one size for every rank, so that high ranks pay off.
Kalajdzievski 2023, "A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA",
arXiv 2312.03732.
"""

import math
from dataclasses import replace
from functools import partial

from pydantic import Field

from engine.language_model import LanguageModel
from engine.lora_adapter import read_lora
from engine.method import LLAMA_CPP, PeftAdapter
from engine.methods import lora
from engine.plan import SIMPLE, Schedule


class Options(lora.Options):
    """rsLoRA's settings: those of LoRA, with another scale and a higher usual rank."""

    rank: int = Field(
        default=16,
        ge=1,
        le=lora.LARGEST_RANK,
        title="Rank",
        description="R: width of the update. Higher ranks than LoRA's are worth their memory.",
        json_schema_extra=SIMPLE,
    )
    alpha: float = Field(
        default=8,
        gt=0,
        le=lora.LARGEST_ALPHA,
        title="Alpha",
        description="The update is scaled by alpha / the square root of R.",
    )

    def adapter_servers(self) -> tuple[str, ...]:
        """Say who beside `peft` can load the adapter unmerged: llama.cpp knows LoRA's scale alone.

        Returns:
            Names of programs.
        """
        return tuple(name for name in super().adapter_servers() if name != LLAMA_CPP)

    def scale(self, alpha: float, rank: int) -> float:
        """Compute what an update is multiplied by.

        Args:
            alpha: of the layer.
            rank: of the layer.

        Returns:
            alpha / sqrt(R).
        """
        return alpha / math.sqrt(rank)


def export(language_model: LanguageModel, options: Options) -> PeftAdapter:
    """Name the tensors the way the `peft` library does.

    Args:
        language_model: a trained model.
        options: rsLoRA's options.

    Returns:
        Config and tensors.
    """
    adapter = lora.export(language_model, options)
    return PeftAdapter(adapter.config | {"use_rslora": True}, adapter.tensors)


SPEC = replace(
    lora.SPEC,
    name="rslora",
    title="rsLoRA",
    summary="LoRA scaled by the square root of its rank, so that high ranks learn as they should.",
    paper="Kalajdzievski 2023, arXiv 2312.03732",
    options=Options,
    schedule=Schedule(learning_rate=2e-4, epochs=6),
    when_to_choose="When LoRA gains nothing from a higher rank, and there are rows enough to fill "
    "one. At rank 8 it is LoRA with another scale.",
    quality_place=22,
    precisions=("fp32", "bf16", "int8", "nf4"),
    export=export,
    import_peft=partial(read_lora, kind="rslora"),
)
