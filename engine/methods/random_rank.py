"""Random-rank LoRA: every layer draws its own rank from a range.

y = W x + (alpha / R_max) B A x, with W (D_out, D_in) frozen, A (R, D_in), B (D_out, R) learned, and
R drawn uniformly from R_min to R_max for each layer. The scale is one for all layers, so that a
layer of low rank does not learn faster than its neighbours. The yardstick for methods that share a
budget of ranks out by importance, such as AdaLoRA (Zhang et al. 2023, arXiv 2303.10512): what they
gain has to be more than what chance gives. The layer is that of Hu et al. 2021, "LoRA: Low-Rank
Adaptation of Large Language Models", arXiv 2106.09685.
"""

import hashlib
from dataclasses import replace

from pydantic import Field, ValidationInfo, field_validator

from engine.layer_values import parse_values, value_for
from engine.layers import LinearLayer
from engine.methods import lora
from engine.plan import SIMPLE


class Options(lora.Options):
    """The range and the draw; the rest is LoRA's."""

    rank: int = Field(
        default=16,
        ge=1,
        le=lora.LARGEST_RANK,
        title="Largest rank",
        description="R_max: no layer draws a higher one.",
        json_schema_extra=SIMPLE,
    )
    least_rank: int = Field(
        default=1,
        ge=1,
        le=lora.LARGEST_RANK,
        title="Least rank",
        description="R_min: no layer draws a lower one.",
    )
    alpha: float = Field(
        default=32,
        gt=0,
        le=lora.LARGEST_ALPHA,
        title="Alpha",
        description="Every update is scaled by alpha / the largest rank.",
    )
    draw: int = Field(
        default=0,
        ge=0,
        lt=2**32,
        title="Draw",
        description="Another number draws other ranks; the run's seed does not change them.",
    )

    def adapter_servers(self) -> tuple[str, ...]:
        """Say who beside `peft` can load the adapter unmerged.

        Returns:
            None: each layer is published with a rank and an alpha of its own.
        """
        return ()

    @field_validator("least_rank")
    @classmethod
    def _check_range(cls, least: int, info: ValidationInfo) -> int:
        if least > info.data.get("rank", least):
            raise ValueError(f"It has to be at most the largest rank, {info.data['rank']}")
        return least

    def rank_of(self, layer: LinearLayer) -> int:
        """Draw a layer's rank from its path: on paper and in memory it is the same.

        Args:
            layer: a linear layer of the base.

        Returns:
            R; where `rank_pattern` names the layer, what stands there.
        """
        drawn = int(hashlib.sha256(f"{self.draw} {layer.path}".encode()).hexdigest(), 16)
        rank = self.least_rank + drawn % (self.rank - self.least_rank + 1)
        return int(value_for(parse_values(self.rank_pattern), layer.path, rank))

    def alpha_of(self, layer: LinearLayer) -> float:
        """Choose alpha in proportion to the rank, so that the scale is one for all layers.

        Args:
            layer: a linear layer of the base.

        Returns:
            alpha R / R_max, with the layer's own alpha where `alpha_pattern` names it.
        """
        return super().alpha_of(layer) * self.rank_of(layer) / self.rank


SPEC = replace(
    lora.SPEC,
    name="random_rank",
    title="Random-rank LoRA",
    summary="LoRA with a rank of its own, drawn by chance, in every layer.",
    paper="Hu et al. 2021, arXiv 2106.09685",
    options=Options,
    when_to_choose="For research: the chance result that methods which choose their ranks have to "
    "beat. To get work done, take LoRA.",
    quality_place=25,
    precisions=("fp32", "bf16", "int8", "nf4"),
    import_peft=None,
)
