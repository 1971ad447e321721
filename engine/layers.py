"""Finding and exchanging the linear layers of a model, whatever its architecture calls them."""

from collections.abc import Collection, Iterator
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from engine.layer_values import is_called
from engine.quantise import QuantisedLinear, dequantise_linear
from templates.errors import PlanError

ALL_LINEAR = "all-linear"
_Kind = TypeVar("_Kind", bound=nn.Module)


class LinearLayer(NamedTuple):
    """A linear layer in its model: x (..., D_in) -> y (..., D_out)."""

    path: str
    module: nn.Module
    in_features: int
    out_features: int


def linear_layers(model: Any) -> Iterator[LinearLayer]:
    """List the linear layers inside the blocks; the output head is not one of them.

    Args:
        model: a transformers causal language model, on any device.

    Yields:
        The layers in module order.
    """
    head = model.get_output_embeddings()
    for path, module in model.named_modules():
        if module is head:
            continue
        if isinstance(module, nn.Linear | QuantisedLinear):
            yield LinearLayer(path, module, module.in_features, module.out_features)
        elif isinstance(module, Conv1D):
            rows, columns = module.weight.shape  # Conv1D holds (D_in, D_out)
            yield LinearLayer(path, module, rows, columns)


def choose_layers(model: Any, targets: tuple[str, ...]) -> list[LinearLayer]:
    """Pick linear layers by the last part of their path, by more of it, or by all of it.

    Layers of one output, as the gates of shared experts are, have no room for a factorised update:
    they are not among all, and have to be named.

    Args:
        model: a transformers causal language model.
        targets: names such as "q_proj" or "layers.0.self_attn.q_proj", or "all-linear".

    Returns:
        The chosen layers in module order.

    Raises:
        PlanError: a name matches no linear layer, or the output head.
    """
    layers = list(linear_layers(model))
    names = {layer.path.rpartition(".")[2] for layer in layers}
    unknown = [
        target
        for target in sorted(set(targets) - names - {ALL_LINEAR})
        if not any(is_called(layer.path, target) for layer in layers)
    ]
    check_no_head(model, unknown)
    if unknown or not targets:
        raise PlanError(
            f"This base has no linear layer called {unknown[0]!r}"
            if unknown
            else "No layer chosen",
            where="option targets",
            fix=f"Choose from {', '.join(sorted(names))}, or {ALL_LINEAR}",
        )
    return [
        layer
        for layer in layers
        if (ALL_LINEAR in targets and layer.out_features > 1)
        or any(is_called(layer.path, target) for target in targets)
    ]


def check_no_head(model: Any, names: Collection[str]) -> None:
    """Refuse the output head where layers of the blocks are chosen.

    Args:
        model: a transformers causal language model, on any device, without a method.
        names: chosen names that are those of no layer in the blocks.

    Raises:
        PlanError: one of them is the head's.
    """
    head = model.get_output_embeddings()
    [path] = [path for path, module in model.named_modules() if module is head]
    for name in names:
        if is_called(path, name):
            is_tied = head.weight is model.get_input_embeddings().weight
            raise PlanError(
                f"The output head, {path}, shares its weight with the embedding and stays as it is"
                if is_tied
                else f"The output head, {path}, stays as it is: only layers of blocks can learn",
                where="option targets",
                fix=f"Leave {name!r} out, or choose full fine-tuning, which tunes the head too",
            )


def blocks_of(model: Any) -> tuple[str, list[nn.Module]]:
    """Find the blocks of a model: the list of as many modules as its config has hidden layers.

    Args:
        model: a transformers causal language model, on any device.

    Returns:
        The dotted path of the list and the blocks in order; "" and none where there is no list.
    """
    num_blocks = model.config.get_text_config().num_hidden_layers
    for path, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == num_blocks:
            return path, list(module)
    return "", []


def in_top_blocks(model: Any, layers: list[LinearLayer], num_blocks: int) -> list[LinearLayer]:
    """Keep the layers that lie in the last blocks.

    Args:
        model: a transformers causal language model.
        layers: some of its linear layers.
        num_blocks: how many of the last blocks.

    Returns:
        Those of them, in the same order.

    Raises:
        PlanError: there are not so many blocks, or none of the layers lies in them.
    """
    path, blocks = blocks_of(model)
    if num_blocks > len(blocks):
        raise PlanError(
            f"This base has {len(blocks)} blocks, not {num_blocks}",
            where="option top_blocks",
            fix=f"Choose at most {len(blocks)}, or 0 for all",
        )
    tops = tuple(f"{path}.{place}." for place in range(len(blocks) - num_blocks, len(blocks)))
    kept = [layer for layer in layers if layer.path.startswith(tops)]
    if not kept:
        raise PlanError(
            "None of the chosen layers lies in the top blocks",
            where="option top_blocks",
            fix="Choose other layers, or 0 for all blocks",
        )
    return kept


def put_module(model: nn.Module, path: str, module: nn.Module) -> None:
    """Exchange one module.

    Args:
        model: the model.
        path: dotted place of the module to replace.
        module: what takes its place.
    """
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)


def modules_of(model: Any, kind: type[_Kind]) -> list[tuple[str, _Kind]]:
    """List the modules of one class, such as those that a method wrapped layers in.

    Args:
        model: a transformers causal language model, with or without a method.
        kind: the class, or one that it derives from.

    Returns:
        Dotted path and module, in module order.
    """
    return [(path, module) for path, module in model.named_modules() if isinstance(module, kind)]


def unwrap(model: Any, kind: type[nn.Module]) -> None:
    """Put back what modules of one class wrap, which is their `base`.

    Args:
        model: a model with a method attached.
        kind: the class.
    """
    for path, module in modules_of(model, kind):
        put_module(model, path, module.get_submodule("base"))


def check_rank(layer: LinearLayer, rank: int, option: str = "rank") -> None:
    """Refuse a rank that a layer's weight cannot have.

    Args:
        layer: a linear layer of the base.
        rank: R.
        option: that asks for it.

    Raises:
        PlanError: R is above the layer's width.
    """
    width = min(layer.in_features, layer.out_features)
    if rank > width:
        raise PlanError(
            f"Rank {rank} is above the width {width} of layer {layer.path}",
            where=f"option {option}",
            fix=f"Choose a rank of at most {width}",
        )


def within_width(narrow: Tensor, wide: Tensor) -> tuple[Tensor, Tensor]:
    """Write a low-rank update whose rank is above the layer's width at the rank that it can have.

    Args:
        narrow: A (R, D_in).
        wide: B (D_out, R).

    Returns:
        A and B with the same product, and R at most D_in and D_out; the same two where it is.
    """
    width = min(narrow.shape[1], len(wide))
    if len(narrow) <= width:
        return narrow, wide
    whole = wide.float() @ narrow.float()  # (D_out, D_in)
    same = torch.eye(width, device=whole.device)
    return (whole, same) if width == len(wide) else (same, whole)


def norm_layers(model: Any) -> list[tuple[str, nn.Module]]:
    """List the normalisations that hold learned values, inside the blocks and outside.

    Nothing but the name tells them from other layers of one value a channel, and torch and
    transformers put Norm into the name of each such class. A layer that holds others is none.

    Args:
        model: a transformers causal language model, on any device.

    Returns:
        Dotted path and layer, in module order.
    """
    return [
        (path, module)
        for path, module in model.named_modules()
        if "norm" in type(module).__name__.lower()
        and not list(module.children())
        and list(module.parameters())
    ]


def norms_with_bias(model: Any) -> dict[str, nn.Module]:
    """Find the normalisations whose bias can learn.

    Args:
        model: a transformers causal language model, on any device.

    Returns:
        Layers by path.
    """
    norms = norm_layers(model)
    return {path: norm for path, norm in norms if getattr(norm, "bias", None) is not None}


def final_norm(model: Any) -> nn.Module | None:
    """Find the normalisation behind the last block.

    Args:
        model: a transformers causal language model, on any device.

    Returns:
        The last one outside the blocks (another one may follow the embedding), or None.
    """
    path, _ = blocks_of(model)
    outside = [norm for place, norm in norm_layers(model) if not place.startswith(f"{path}.")]
    return outside[-1] if outside else None


def attention_layers(model: Any) -> list[LinearLayer]:
    """List the linear layers that lie in an attention: its projections, single or fused.

    Transformers puts Attention into the name of every class that is one.

    Args:
        model: a transformers causal language model, on any device.

    Returns:
        The layers in module order.
    """
    attentions = tuple(
        f"{path}."
        for path, module in model.named_modules()
        if "attention" in type(module).__name__.lower()
    )
    return [layer for layer in linear_layers(model) if layer.path.startswith(attentions)]


def device_of(layer: nn.Module) -> torch.device:
    """Say where a linear layer's weight lies, so that what is learned beside it can lie there too.

    Args:
        layer: nn.Linear, Conv1D or QuantisedLinear.

    Returns:
        The device.
    """
    weight = layer.codes if isinstance(layer, QuantisedLinear) else layer.weight
    assert isinstance(weight, Tensor)
    return weight.device


def as_plain(layer: Any) -> Any:
    """Give a layer whose weight can be changed by a merge.

    Args:
        layer: nn.Linear, Conv1D or QuantisedLinear.

    Returns:
        The layer itself; of a quantised one a plain fp32 layer that computes the same.
    """
    return dequantise_linear(layer, torch.float32) if isinstance(layer, QuantisedLinear) else layer


def weight_of(base: Any) -> Tensor:
    """Look at the frozen weight of a layer of any kind.

    Args:
        base: nn.Linear, Conv1D or QuantisedLinear.

    Returns:
        (D_out, D_in); of a quantised layer decoded to fp32.
    """
    if isinstance(base, QuantisedLinear):
        return base.dequantised(torch.float32)
    weight: Tensor = base.weight.detach()
    return weight.T if isinstance(base, Conv1D) else weight


def is_transposed(layer: nn.Module) -> bool:
    """Say whether the model holds a layer's weight as (D_in, D_out), the way GPT-2 does.

    Args:
        layer: nn.Linear, Conv1D or QuantisedLinear.

    Returns:
        True where it does.
    """
    return isinstance(layer, Conv1D) or bool(getattr(layer, "was_transposed", False))


def with_update(layer: Any, update: Tensor) -> Any:
    """Add a learned update to a layer's weight, in place: W <- W + update.

    Args:
        layer: nn.Linear, Conv1D or QuantisedLinear.
        update: (D_out, D_in), added in fp32 and rounded once.

    Returns:
        The layer; of a quantised one a plain fp32 layer.
    """
    plain = as_plain(layer)
    weight = plain.weight.data
    added = weight.float() + (update.T if isinstance(plain, Conv1D) else update).float()
    plain.weight.data = added.to(weight.dtype)
    return plain


def target_names(model: Any, paths: Collection[str]) -> list[str]:
    """Name chosen layers as shortly as can be without naming another one.

    The `peft` library takes every layer whose path is a name or ends in "." and the name.

    Args:
        model: a transformers causal language model, with or without a method.
        paths: dotted paths of the chosen layers.

    Returns:
        Ends of paths such as "q_proj" or "mlp.c_proj", in alphabetical order.
    """
    others = {f".{path}" for path, _ in model.named_modules()} - {f".{path}" for path in paths}
    names = set()
    for path in paths:
        parts = path.split(".")
        ends = (".".join(parts[-length:]) for length in range(1, len(parts) + 1))
        names.add(
            next(end for end in ends if not any(other.endswith(f".{end}") for other in others))
        )
    return sorted(names)
