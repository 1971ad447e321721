"""An adapter that the `peft` library wrote, looked through before a method puts it in its words.

For methods whose tensors lie beside layers; what LoRA and its kin need besides is in lora_adapter.
Whatever would change what the adapter computes is either taken over by the method or refused here;
nothing is passed over.
"""

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from engine.layer_values import is_called
from engine.method import PeftAdapter
from templates.errors import ModelError

PREFIX = "base_model.model."  # of the library's tensor names
# Of no consequence for what a trained adapter computes; which layers it has, its tensors say.
UNDERSTOOD = {
    "peft_type", "task_type", "peft_version", "inference_mode", "auto_mapping", "revision",
    "base_model_name_or_path", "target_modules", "exclude_modules", "layers_to_transform",
    "layers_pattern", "runtime_config",
}  # fmt: skip


def tensors_by_layer(
    model: Any, adapter: PeftAdapter, parts: Collection[str], understood: Collection[str]
) -> dict[str, dict[str, Tensor]]:
    """Sort an adapter's tensors by the layers they lie beside.

    Args:
        model: the bare base, also on the meta device.
        adapter: config and tensors as they lie in the folder.
        parts: what may follow a layer's path in the name of a tensor.
        understood: settings that the method reads, or that change nothing.

    Returns:
        Tensors in fp32 by path and part.

    Raises:
        ModelError: a setting that nobody understands, a tensor of another name or with values that
            are no numbers, a layer that the base lacks, or none where the settings name one.
    """
    known = UNDERSTOOD | set(understood)
    for name, value in adapter.config.items():
        if value and name not in known:
            raise ModelError(
                f"The adapter uses {name!r}, which cannot be taken over",
                where="adapter_config.json",
                fix="Merge it into its base with the program it comes from, and open the result",
            )
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in adapter.tensors.items():
        part = next((part for part in parts if name.endswith(f".{part}")), None)
        if part is None or not name.startswith(PREFIX):
            raise no_fit("There is a tensor that belongs to no layer", name)
        if not bool(tensor.isfinite().all()):
            raise no_fit("A tensor holds values that are no numbers", name)
        path = name.removeprefix(PREFIX).removesuffix(f".{part}")
        found.setdefault(path, {})[part] = tensor.float()
    if not found:
        raise no_fit("The adapter has no tensors", "adapter_model.safetensors")
    paths = {path for path, _ in model.named_modules()}
    for path in sorted(found.keys() - paths):
        raise no_fit("The base has no such layer", path)
    check_all_there(adapter.config, sorted(paths), found)
    return found


def by_parameter(found: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Name tensors as our parameters, where these are called as the library's.

    Args:
        found: from `tensors_by_layer`.

    Returns:
        Tensors by name of the parameter.
    """
    return {f"{path}.{part}": value for path, own in found.items() for part, value in own.items()}


def check_all_there(
    config: Mapping[str, Any], paths: Collection[str], found: Collection[str]
) -> None:
    """Refuse a file that lacks layers which its settings name.

    Args:
        config: the settings; a regular expression in them is not tried out.
        paths: of the base's layers that could be named.
        found: paths of the layers whose tensors are there.

    Raises:
        ModelError: one is not.
    """
    targets, places = config.get("target_modules"), config.get("layers_to_transform")
    if not isinstance(targets, list) or config.get("exclude_modules"):
        return
    places = [places] if isinstance(places, int) else places
    names = [target for target in targets if isinstance(target, str)]
    for path in paths:
        inside = places is None or any(f".{place}." in path for place in places)
        if inside and path not in found and any(is_called(path, name) for name in names):
            raise no_fit("The adapter lacks the tensors of a layer", path)


def number_of(adapter: PeftAdapter, name: str, usual: float) -> float:
    """Read a number from an adapter's settings.

    Args:
        adapter: config and tensors.
        name: of the setting.
        usual: what the library takes where it is not there.

    Returns:
        The number.

    Raises:
        ModelError: it is none.
    """
    value: Any = adapter.config.get(name, usual)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ModelError(
            f"{value!r} is no number", where=f"adapter_config.json, {name}", fix="Write one there"
        )
    return value


def no_fit(what: str, where: str) -> ModelError:
    """Say that an adapter is damaged, or another base's.

    Args:
        what: went wrong.
        where: the tensor or file.

    Returns:
        The error to raise.
    """
    return ModelError(what, where=where, fix="Open the adapter with the base it was made for")
