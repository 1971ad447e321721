"""Head tuning: a linear map learns on the features of a base that stays as it is.

logits = W (I + M) h, with h (T, D) behind the final norm, M (D, D) learned from zero and W (V, D)
frozen. Feature-based transfer for a model that answers in words: for any L <= D label words, M can
give their logits every linear function of h, so it is as strong as a classification head on frozen
features, and needs D^2 values however large the vocabulary is. The whole base runs once an example.
Peters et al. 2019, "To Tune or Not to Tune?", arXiv 1903.05987 (feature extraction).
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from engine.layers import final_norm, modules_of, put_module, unwrap
from engine.method import MethodOptions, MethodSpec
from engine.plan import Schedule
from templates.errors import PlanError


class Options(MethodOptions):
    """Head tuning has no options of its own."""


class MappedNorm(nn.Module):
    """The final norm and the learned map behind it: h -> (I + M) h."""

    def __init__(self, base: nn.Module, width: int) -> None:
        """Begin with M = 0.

        Args:
            base: the norm.
            width: D.
        """
        super().__init__()
        self.base = base
        device = next(base.parameters()).device
        self.learned_map = nn.Parameter(torch.zeros(width, width, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise, then map.

        Args:
            x: (..., D).

        Returns:
            (..., D).
        """
        normed: Tensor = self.base(x)
        return normed + nn.functional.linear(normed, self.learned_map.to(normed.dtype))


def attach(model: Any, options: Options) -> None:
    """Put the map behind the final norm.

    Args:
        model: a transformers causal language model, also on the meta device.
        options: none.

    Raises:
        PlanError: there is no such norm, or more than the head follows it.
    """
    norm, width = final_norm(model), model.get_output_embeddings().weight.shape[1]
    sizes = {value.shape[-1] for value in norm.parameters()} if norm is not None else set()
    if norm is None or sizes != {width}:
        raise PlanError(
            "This base has no norm with learned values right before its output head",
            where="method head",
            fix="Choose topk with no blocks",
        )
    [path] = [path for path, module in model.named_modules() if module is norm]
    put_module(model, path, MappedNorm(norm, width))


def merge(model: Any) -> None:
    """Fold the map into the output head, W <- W + W M; a head that was the embedding gets a copy.

    Args:
        model: the model `attach` was called on.
    """
    [(path, mapped)] = modules_of(model, MappedNorm)
    head: Any = model.get_output_embeddings()
    weight = head.weight.detach()
    change = weight.float() @ mapped.learned_map.detach()
    if head.weight is model.get_input_embeddings().weight:
        model.config.tie_word_embeddings = False
    head.weight = nn.Parameter((weight.float() + change).to(weight.dtype), requires_grad=False)
    put_module(model, path, mapped.base)


SPEC = MethodSpec(
    name="head",
    title="Head tuning",
    family="selective",
    summary="The base only makes features, once for every row; a linear map on them learns.",
    paper="Peters et al. 2019, arXiv 1903.05987",
    options=Options,
    # D values move each feature: the wider, the smaller the step. A pass costs next to nothing.
    schedule=Schedule(learning_rate=3e-4, epochs=10),
    rate_at_width=4096,
    attach=attach,
    detach=partial(unwrap, kind=MappedNorm),
    when_to_choose="When training must take seconds, or to see what the base's features are worth "
    "before anything in it is changed. It cannot teach the base to read differently.",
    quality_place=41,
    precisions=("fp32", "bf16", "int8", "nf4"),
    merge=merge,
)
