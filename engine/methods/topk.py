"""Top-K tuning: the last K blocks and the norm behind them learn; below, no gradient flows.

h_L = block_L(... block_{L-K+1}(h_{L-K})), with h_{L-K} (T, D) from frozen blocks that need no
backward pass, and are run once an example where there is room to keep what they make. K = 0 is
feature extraction: only final norm and output head learn, on what the whole frozen base makes.
A head that shares its weight with the embedding is untied first: it learns a copy (V, D) of its
own, and the embedding stays. Lee et al. 2019, "What Would Elsa Do? Freezing Layers During
Transformer Fine-Tuning", arXiv 1911.03090.
"""

from typing import Any

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from engine.layers import blocks_of, final_norm
from engine.method import MethodOptions, MethodSpec
from engine.methods import full
from engine.plan import SIMPLE, Schedule
from templates.errors import PlanError


class Options(MethodOptions):
    """Top-K tuning's own settings."""

    num_blocks: int = Field(
        default=2,
        ge=0,
        le=1024,
        title="Blocks that learn",
        description="K: so many of the last blocks. 0: only the output head.",
        json_schema_extra=SIMPLE,
    )
    train_head: bool = Field(
        default=False,
        title="Output head learns",
        description="A head that shares the embedding's weight gets a copy. Always so where K = 0.",
    )


class UntiedHead(nn.Linear):
    """An output head with its own copy of a weight that was the embedding's, (V, D)."""

    def __init__(self, shared: nn.Linear) -> None:
        """Copy the values of a head.

        Args:
            shared: the head whose weight is the embedding's.
        """
        super().__init__(shared.in_features, shared.out_features, bias=False, device="meta")
        self.weight = nn.Parameter(shared.weight.detach().clone())
        self.bias = shared.bias
        self.replaced = (shared,)  # in a tuple: no part of the model while this one is

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits.

        Args:
            x: (..., D).

        Returns:
            (..., V).
        """
        # A slice of the last positions is not contiguous; the product would copy V x D per row.
        return functional.linear(x.contiguous(), self.weight, self.bias)


def attach(model: Any, options: Options) -> None:
    """Let the top of the model learn.

    Args:
        model: a transformers causal language model, also on the meta device.
        options: gives K.

    Raises:
        PlanError: there are not so many blocks, or none were found.
    """
    _, blocks = blocks_of(model)
    if options.num_blocks > len(blocks) or not blocks:
        raise PlanError(
            f"This base has {len(blocks)} blocks, not {options.num_blocks}"
            if blocks
            else "The blocks of this base were not found",
            where="option num_blocks",
            fix=f"Choose at most {len(blocks)}" if blocks else "Choose another method",
        )
    for block in blocks[len(blocks) - options.num_blocks :]:
        block.requires_grad_(True)
    norm = final_norm(model)
    if norm is not None:
        norm.requires_grad_(True)
    if options.train_head or not options.num_blocks:
        _untie(model)
        model.get_output_embeddings().requires_grad_(True)


def detach(model: Any) -> None:
    """Freeze every weight again and tie the head as it was; what blocks learned stays in them.

    Args:
        model: the model `attach` was called on.
    """
    full.detach(model)
    head = model.get_output_embeddings()
    if isinstance(head, UntiedHead):
        model.set_output_embeddings(head.replaced[0])
        model.config.tie_word_embeddings = True


def merge(model: Any) -> None:
    """Freeze; the weights are the result already. An untied head becomes a plain layer.

    Args:
        model: the model `attach` was called on.
    """
    full.detach(model)
    head = model.get_output_embeddings()
    if isinstance(head, UntiedHead):
        plain = head.replaced[0]
        plain.weight = head.weight
        model.set_output_embeddings(plain)


def _untie(model: Any) -> None:
    """Give the head a weight of its own if it shares the embedding's, and say so in the config."""
    head: Any = model.get_output_embeddings()
    if head.weight is model.get_input_embeddings().weight:
        model.set_output_embeddings(UntiedHead(head))
        model.config.tie_word_embeddings = False


SPEC = MethodSpec(
    name="topk",
    title="Top-K tuning",
    family="selective",
    summary="Only the last blocks learn; the frozen ones below run once an example.",
    paper="Lee et al. 2019, arXiv 1911.03090",
    options=Options,
    # Fewer weights learn than in full fine-tuning, so each has further to go.
    schedule=Schedule(learning_rate=1e-4, epochs=4),
    rate_at_width=4096,
    attach=attach,
    detach=detach,
    when_to_choose="When training must be quick: most of the base runs only once for every row. "
    "It suits tasks near to what the base can do already.",
    quality_place=30,
    least_rows=500,
    merge=merge,
)
