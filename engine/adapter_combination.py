"""Several LoRA adapters of one base, weighted and added up: again one LoRA adapter.

sum_i w_i s_i B_i A_i = B A with A = [A_1; A_2; ...] (sum R_i, D_in) and B = [w_1 s_1 B_1, w_2 s_2
B_2, ...] (D_out, sum R_i). The sum is exact, and its rank the sum of ranks, or the layer's width
where that is less; adding A_i and B_i themselves would not give it, as their products would mix.
Ilharco et al. 2023, "Editing Models with Task Arithmetic", arXiv 2212.04089, for such sums.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from engine.adapter_exchange import AdapterExchange
from engine.adapter_import import ImportedAdapter
from engine.adapter_layers import LayerPart, read_parts
from engine.language_model import LanguageModel
from engine.layer_values import unusual_values, usual_value, write_values
from engine.layers import within_width
from engine.method import parse_options
from engine.methods import get_method
from templates.errors import PlanError


def combine_loras(
    base: LanguageModel, adapters: Sequence[ImportedAdapter], weights: Sequence[float]
) -> ImportedAdapter:
    """Add up LoRA adapters, each times its weight.

    Args:
        base: what they were made for, without a method; left as it is, in evaluation mode.
        adapters: of LoRA, or of methods that are published as one.
        weights: one for each; any numbers, also negative ones.

    Returns:
        A LoRA adapter that changes every weight by the sum of their changes.

    Raises:
        PlanError: there is not one weight for each adapter, one is no number, or a method is not
            linear in this way.
    """
    if not adapters or len(adapters) != len(weights) or not all(map(math.isfinite, weights)):
        raise PlanError(
            f"{len(adapters)} adapters have the weights {list(weights)}",
            where="weights",
            fix="Give one number for each adapter, and at least one adapter",
        )
    exchange = AdapterExchange(base)
    narrow: dict[str, list[Tensor]] = {}
    wide: dict[str, list[Tensor]] = {}
    try:
        for adapter, weight in zip(adapters, weights, strict=True):
            for path, part in _low_rank(exchange, adapter).items():
                assert part.narrow is not None and part.wide is not None
                narrow.setdefault(path, []).append(part.narrow)
                wide.setdefault(path, []).append(part.wide * (weight * part.scale))
    finally:
        exchange.use(None)
    pairs = {
        path: within_width(torch.cat(narrow[path]), torch.cat(wide[path], dim=1)) for path in narrow
    }
    ranks = {path: float(len(down)) for path, (down, _) in pairs.items()}
    unusual = write_values(unusual_values(ranks))
    options = {
        "rank": int(usual_value(ranks)), "alpha": usual_value(ranks), "targets": tuple(ranks),
        "rank_pattern": unusual, "alpha_pattern": unusual,
    }  # fmt: skip
    tensors = {f"{path}.lora_A": down for path, (down, _) in pairs.items()}
    tensors |= {f"{path}.lora_B": up for path, (_, up) in pairs.items()}
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise PlanError(
            f"With the weights {list(weights)} the sum is too large to be written",
            where="weights",
            fix="Give smaller numbers; those of a mean add up to 1",
        )
    return ImportedAdapter("lora", parse_options(get_method("lora"), options), tensors)


def _low_rank(exchange: AdapterExchange, adapter: ImportedAdapter) -> dict[str, LayerPart]:
    spec = get_method(adapter.method)
    refused = PlanError(
        f"{spec.title} with these settings is no low-rank change of weights that could be added up",
        where=f"method {spec.name}",
        fix="Choose adapters of LoRA, rsLoRA, LoRA+, PiSSA or AdaLoRA, without experts",
    )
    tuned = exchange.use(adapter)
    try:
        parts = read_parts(tuned.model, spec)
    except PlanError:  # what rows of a batch cannot have for themselves is not low-rank either
        raise refused from None
    plain = all(
        part.narrow is not None and part.output_change is None and part.shift is None
        for part in parts.layers.values()
    )
    if not parts.layers or not plain:
        raise refused
    return parts.layers
