"""A LoRA adapter that the `peft` library wrote, looked through and put in our words.

Whatever would change what it computes is either taken over or refused; nothing is passed over.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from engine.experts import experts_of
from engine.layer_values import unusual_values, usual_value, value_for, write_values
from engine.layers import LinearLayer, linear_layers, norms_with_bias, within_width
from engine.lora_experts import EXPERTS, NESTED, read_experts
from engine.method import PeftAdapter, PeftImport
from engine.peft_adapter import PREFIX, UNDERSTOOD, check_all_there, no_fit
from templates.errors import ModelError

_LENGTHS, _BIAS = "lora_magnitude_vector", "lora_B.bias"
_PARTS = {
    "lora": ("lora_A.weight", "lora_B.weight"),
    "rslora": ("lora_A.weight", "lora_B.weight"),
    "dora": ("lora_A.weight", "lora_B.weight", _LENGTHS),
    "lora_bitfit": ("lora_A.weight", "lora_B.weight", _BIAS),
    "adalora": ("lora_A", "lora_B", "lora_E"),
}
# Read below, or of no consequence for what a trained adapter computes.
_UNDERSTOOD = UNDERSTOOD | {
    "r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern",
    "target_parameters", "fan_in_fan_out", "init_lora_weights", "bias", "lora_bias",
    "loftq_config", "eva_config", "megatron_core", "qalora_group_size", "velora_config",
}  # fmt: skip
_ALL_PARTS = sorted({part for parts in _PARTS.values() for part in parts})
_OF_ADALORA = {
    "rank_pattern", "alpha_pattern", "init_r", "target_r", "tinit", "tfinal", "deltaT", "beta1",
    "beta2", "orth_reg_weight", "total_step",
}  # fmt: skip
# Ways of starting that leave the base's weights as they are.
_STARTS = (True, False, None, "gaussian", "orthogonal", "eva")
_SIMPLE_PATTERN = re.compile(r"\w+(\.\w+)*")


def read_lora(model: Any, adapter: PeftAdapter, kind: str) -> PeftImport | None:
    """Put an adapter in our words, if it is of one kind.

    Args:
        model: the bare base, also on the meta device.
        adapter: config and tensors as they lie in the folder.
        kind: "lora", "rslora", "dora" or "lora_bitfit".

    Returns:
        Options of the method of that name and tensors by parameter name; None for other kinds.

    Raises:
        ModelError: a setting that is not understood, or tensors that do not fit the base.
    """
    config = adapter.config
    if config.get("peft_type") != "LORA" or _kind(config) != kind:
        return None
    return _read(model, adapter, kind)


def read_adalora(model: Any, adapter: PeftAdapter) -> PeftImport | None:
    """Put an adapter in our words, if it is an AdaLoRA; its layers keep the ranks they ended with.

    Args:
        model: the bare base, also on the meta device.
        adapter: config and tensors as they lie in the folder.

    Returns:
        Options of our AdaLoRA and tensors by parameter name; None for other kinds.

    Raises:
        ModelError: a setting that is not understood, or tensors that do not fit the base.
    """
    config = adapter.config
    if config.get("peft_type") != "ADALORA":
        return None
    start, alpha = _number(config.get("init_r", 12)), _number(config.get("lora_alpha", 8))
    ends = {
        name.removeprefix(PREFIX).removesuffix(".lora_E"): float(len(tensor))
        for name, tensor in adapter.tensors.items()
        if name.endswith(".lora_E") and len(tensor)
    }
    tensors = {name: value for name, value in adapter.tensors.items() if value.numel()}
    # The library goes on dividing by the rank at the start when directions are gone.
    alphas = {path: alpha * rank / start for path, rank in ends.items()}
    settings = {name: value for name, value in config.items() if name not in _OF_ADALORA}
    settings |= {"rank_pattern": ends, "alpha_pattern": alphas}
    if len(tensors) < len(adapter.tensors):  # layers that kept no direction are plain again
        settings["target_modules"] = list(ends)
    found = _read(model, PeftAdapter(settings, tensors), "adalora")
    least = min(ends.values(), default=1.0)
    return PeftImport(found.options | {"target_rank": int(least)}, found.tensors)


def _read(model: Any, adapter: PeftAdapter, kind: str) -> PeftImport:
    config = adapter.config
    _check_settings(config, kind)
    linear = {layer.path: layer for layer in linear_layers(model)}
    others = dict(adapter.tensors)
    of_norms = _take_norms(model, others) if kind == "lora_bitfit" else {}
    found = _by_layer(others)
    of_experts = _take_experts(model, config, found)
    check_all_there(config, list(linear), found)
    usual_rank, usual_alpha = _number(config.get("r", 8)), _number(config.get("lora_alpha", 8))
    ranks, alphas = (_patterns(config, name) for name in ("rank_pattern", "alpha_pattern"))
    own_ranks: dict[str, float] = {}
    own_alphas: dict[str, float] = {}
    tensors: dict[str, Tensor] = of_experts | of_norms
    for path, parts in found.items():
        rank = value_for(ranks, path, usual_rank)
        alpha = value_for(alphas, path, usual_alpha)
        if kind == "dora" and config.get("use_rslora"):
            alpha *= math.sqrt(rank)  # our DoRA divides by the rank itself
        _check_layer(linear.get(path), path, parts, rank, kind)
        if kind != "adalora":  # which has a value for each direction
            parts, rank, alpha = _fitted(parts, rank, alpha, kind)
        own_ranks[path], own_alphas[path] = rank, alpha
        if _BIAS in parts:  # the library multiplies it together with the product
            tensors[f"{path}.shift"] = parts.pop(_BIAS).float() * (alpha / rank)
        for part, tensor in parts.items():
            tensors[f"{path}.{part.removesuffix('.weight')}"] = tensor.float()
    pairs = set(zip(own_ranks.values(), own_alphas.values(), strict=True))
    if of_experts and pairs - {(usual_rank, usual_alpha)}:
        raise no_fit("Experts and linear layers differ in rank or alpha", "rank_pattern")
    names = {path.rpartition(".")[2] for path in found}
    every = {path for path in linear if path.rpartition(".")[2] in names}
    options = {
        "rank": usual_value(own_ranks) if own_ranks else usual_rank,
        "alpha": usual_value(own_alphas) if own_alphas else usual_alpha,
        "dropout": config.get("lora_dropout", 0.0),
        "targets": sorted(names if every == found.keys() else found)
        + ([EXPERTS] if of_experts else []),
        "rank_pattern": write_values(unusual_values(own_ranks)),
        "alpha_pattern": write_values(unusual_values(own_alphas)),
    }
    return PeftImport(
        options | ({"norms": bool(of_norms)} if _BIAS in _PARTS[kind] else {}), tensors
    )


def _take_experts(
    model: Any, config: Mapping[str, Any], found: dict[str, dict[str, Tensor]]
) -> dict[str, Tensor]:
    """Take what belongs to 3-D weights of experts out of what was found, in our words."""
    targets = config.get("target_parameters") or []
    paths = {path for path, _ in experts_of(model)}
    own = {path: found.pop(path) for path in list(found) if path.removesuffix(NESTED) in paths}
    if not own:
        return {}
    tensors = read_experts(model, targets, own, int(_number(config.get("r", 8))))
    if tensors is None:
        raise no_fit("The updates of the experts do not fit this base", "target_parameters")
    if not all(bool(value.isfinite().all()) for value in tensors.values()):
        raise no_fit("A tensor holds values that are no numbers", "target_parameters")
    return tensors


def _kind(config: Mapping[str, Any]) -> str:
    if config.get("use_dora"):
        return "dora"
    if config.get("use_rslora"):
        return "rslora"
    return "lora_bitfit" if config.get("lora_bias") else "lora"


def _check_settings(config: Mapping[str, Any], kind: str) -> None:
    if config.get("init_lora_weights", True) not in _STARTS:
        raise ModelError(
            f"The adapter started with {config['init_lora_weights']!r}, which changes the base too",
            where="adapter_config.json, init_lora_weights",
            fix="Save it converted to a plain LoRA, with path_initial_model_for_weight_conversion",
        )
    strange = [name for name, value in config.items() if value and name not in _UNDERSTOOD]
    if kind != "lora_bitfit":
        strange += ["lora_bias"] if config.get("lora_bias") else []
        strange += ["bias"] if config.get("bias", "none") != "none" else []
    if strange:
        raise ModelError(
            f"The adapter uses {strange[0]!r}, which cannot be taken over",
            where="adapter_config.json",
            fix="Merge it into its base with the program it comes from, and open the result",
        )


def _take_norms(model: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Take the biases of norms, which the library saves whole, out of an adapter's tensors."""
    biases = {f"{PREFIX}{path}.bias": f"{path}.bias" for path in norms_with_bias(model)}
    found = {biases[name]: tensors.pop(name).float() for name in list(tensors) if name in biases}
    for name, bias in found.items():
        if not bool(bias.isfinite().all()):
            raise no_fit("A tensor holds values that are no numbers", name)
    return found


def _by_layer(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Sort tensors by the path of the layer they belong to."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        for part in _ALL_PARTS:
            if name.startswith(PREFIX) and name.endswith(f".{part}"):
                path = name.removeprefix(PREFIX).removesuffix(f".{part}")
                found.setdefault(path, {})[part] = tensor
                break
        else:
            raise no_fit("There is a tensor that is none of a LoRA layer", name)
    if not found:
        raise no_fit("The adapter has no tensors", "adapter_model.safetensors")
    return found


def _patterns(config: Mapping[str, Any], name: str) -> dict[str, float]:
    """Read numbers by layer name; the library takes regular expressions, of which plain ones do."""
    patterns = config.get(name) or {}
    plain: dict[str, float] = {}
    for pattern, value in patterns.items() if isinstance(patterns, dict) else ():
        key = pattern.removeprefix("^").removesuffix("$").replace("\\.", ".")
        if not _SIMPLE_PATTERN.fullmatch(key):
            raise ModelError(
                f"The adapter names layers by a regular expression, {pattern!r}",
                where=f"adapter_config.json, {name}",
                fix="Write layer names there instead",
            )
        plain.setdefault(key, _number(value))
    return plain


def _check_layer(
    layer: LinearLayer | None, path: str, parts: Mapping[str, Tensor], rank: float, kind: str
) -> None:
    if layer is None:
        raise no_fit("The base has no such linear layer", path)
    narrow, wide, *more = _PARTS[kind]
    shapes: dict[str, tuple[float, ...]] = {
        narrow: (rank, layer.in_features),
        wide: (layer.out_features, rank),
    }
    for part in more:
        shapes[part] = (rank, 1) if part == "lora_E" else (layer.out_features,)
    for part in sorted(shapes.keys() ^ parts.keys()):
        what = "The adapter lacks a tensor" if part in shapes else "There is a tensor too many"
        raise no_fit(what, f"{path}.{part}")
    for part, shape in shapes.items():
        if tuple(parts[part].shape) != shape:
            has, wanted = tuple(parts[part].shape), tuple(int(size) for size in shape)
            raise no_fit(f"A tensor has shape {has} instead of {wanted}", f"{path}.{part}")
        if not bool(parts[part].isfinite().all()):
            raise no_fit("A tensor holds values that are no numbers", f"{path}.{part}")


def _fitted(
    parts: dict[str, Tensor], rank: float, alpha: float, kind: str
) -> tuple[dict[str, Tensor], float, float]:
    """Bring an update down to the rank that its layer can have.

    The library gives one rank to all layers, also to a gate of one output.
    """
    narrow, wide, *_ = _PARTS[kind]
    down, up = within_width(parts[narrow], parts[wide])
    ratio = len(down) / rank
    fitted = parts | {narrow: down, wide: up}
    return fitted, len(down), alpha * (math.sqrt(ratio) if kind == "rslora" else ratio)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ModelError(
            f"{value!r} is no rank and no alpha",
            where="adapter_config.json",
            fix="Give a number above 0",
        )
    return value
