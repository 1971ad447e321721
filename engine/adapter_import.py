"""An adapter folder of the `peft` library, from anywhere: looked at, checked, put on a base.

Only JSON and safetensors are read; nothing in the folder is ever run. What a config means is said
by the methods themselves, in `import_peft`.
"""

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from engine.answering.generation import generate
from engine.base_model import BaseFolder, load_base, load_skeleton
from engine.comparing.prompting import Question, answers_to, build_prompts
from engine.language_model import LanguageModel
from engine.method import (
    MethodOptions,
    MethodSpec,
    PeftAdapter,
    attach_method,
    load_trained,
    parse_options,
    trainable,
)
from engine.methods import all_methods, get_method
from engine.model_folder import PICKLE_SUFFIXES, is_hub_id, keys_asking_for_code
from engine.peft_adapter import no_fit
from engine.plan import Precision
from engine.publishing.publication import RECORD
from templates.builtin import TEMPLATES
from templates.errors import ModelError
from templates.example import Example, Turn
from templates.values import Value

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"


@dataclass(frozen=True)
class ImportedAdapter:
    """What an adapter is here.

    Attributes:
        method: its name.
        options: of that method.
        tensors: what was learned, by parameter name.
        seed: fixed the start values, of which some methods keep a part that is not among them.
    """

    method: str
    options: MethodOptions
    tensors: dict[str, Tensor]
    seed: int = 0


class LearnedPart(Value):
    """Layers of one name in which tensors of the same shapes were learned."""

    layer: str = Field(description="The last part of the layers' paths.")
    num_layers: int
    shapes: dict[str, tuple[int, ...]] = Field(description="Of each learned tensor of a layer.")
    num_values: int = Field(description="In all of these layers.")


class AdapterAbout(Value):
    """What an adapter is, in words for people and for programs."""

    method: str
    title: str = Field(description="What people call the method.")
    options: dict[str, Any] = Field(description="Of that method.")
    num_values: int
    file_bytes: int
    learned: tuple[LearnedPart, ...]


def read_adapter(folder: Path, base: BaseFolder) -> ImportedAdapter:
    """Look at an adapter folder and say which method, options and tensors it holds.

    Args:
        folder: from the `peft` library, or published here.
        base: the base it is to be used with.

    Returns:
        The adapter in our words; every tensor fits the base.

    Raises:
        ModelError: a file is missing, damaged or could run code, the adapter was made for another
            base, or no method here can take it over.
    """
    config = _read_config(folder / CONFIG)
    _check_base(config, base)
    _check_fingerprint(folder, base)
    adapter = PeftAdapter(config, _read_tensors(folder))
    skeleton = load_skeleton(base)
    for spec in all_methods().values():
        found = spec.import_peft(skeleton, adapter) if spec.import_peft else None
        if found:
            options = parse_options(spec, found.options)
            _try_on(skeleton, spec, options, found.tensors)
            return ImportedAdapter(spec.name, options, found.tensors)
    known = sorted(spec.title for spec in all_methods().values() if spec.import_peft)
    raise ModelError(
        f"Adapters of type {config.get('peft_type')!r} cannot be opened",
        where=f"{CONFIG}, peft_type",
        fix=f"Choose an adapter of {', '.join(known)}",
    )


def open_adapter(folder: Path, base: BaseFolder, precision: Precision) -> LanguageModel:
    """Put an adapter on its base.

    Args:
        folder: as for `read_adapter`.
        base: the base it was made for.
        precision: how to hold the base.

    Returns:
        The model in evaluation mode.
    """
    adapter = read_adapter(folder, base)  # refused before a base is loaded
    return attach_adapter(load_base(base, precision), adapter)


def attach_adapter(language_model: LanguageModel, adapter: ImportedAdapter) -> LanguageModel:
    """Put an adapter that was read on a base that is loaded.

    Args:
        language_model: the base that the adapter was read for; changed in place.
        adapter: from `read_adapter`.

    Returns:
        The model in evaluation mode.
    """
    spec = able_to_hold(get_method(adapter.method), language_model.precision)
    tuned = attach_method(language_model, spec, adapter.options, seed=adapter.seed)
    load_trained(tuned.model, adapter.tensors)
    tuned.model.eval()
    return tuned


def describe_adapter(folder: Path, adapter: ImportedAdapter) -> AdapterAbout:
    """Say what an adapter is; its base is not loaded for it.

    Args:
        folder: where it lies.
        adapter: what `read_adapter` found there.

    Returns:
        Method, options, size, and what learned where.
    """
    return AdapterAbout(
        method=adapter.method,
        title=get_method(adapter.method).title,
        options=adapter.options.model_dump(mode="json"),
        num_values=sum(tensor.numel() for tensor in adapter.tensors.values()),
        file_bytes=(folder / TENSORS).stat().st_size,
        learned=_learned_parts(adapter.tensors),
    )


def answer_freely(language_model: LanguageModel, text: str, max_new_tokens: int) -> str:
    """Let a model answer a text of no task: as a chat where it knows chats, else by going on.

    Args:
        language_model: a base, or an adapter on one.
        text: what the user says, or what to go on with.
        max_new_tokens: longest answer.

    Returns:
        The answer.
    """
    if language_model.has_chat_template:
        example = Example(turns=(Turn("user", text), Turn("assistant", "")), source_rows=(1,))
        question = Question(TEMPLATES["chat"], (), max_new_tokens)
        prompts = build_prompts(language_model, [example], question)
        return answers_to(language_model, prompts, question)[0]
    opening = language_model.virtual_token_ids + language_model.opening_ids()
    prompt = language_model.encode(text)
    [answer] = generate(language_model, opening, [prompt], stop="", max_new_tokens=max_new_tokens)
    return answer


def able_to_hold(spec: MethodSpec, precision: Precision) -> MethodSpec:
    """Find the method, or one that differs in nothing but the precision, as QLoRA from LoRA.

    Args:
        spec: a method.
        precision: of the base.

    Returns:
        One that computes the same; the method itself where there is none.
    """
    alike = (
        other
        for other in (spec, *all_methods().values())
        if (other.attach, other.options) == (spec.attach, spec.options)
    )
    return next((other for other in alike if precision in other.precisions), spec)


def _learned_parts(tensors: dict[str, Tensor]) -> tuple[LearnedPart, ...]:
    """Put layers together whose last name and shapes are the same, in the order of the model."""
    by_path: dict[str, dict[str, Tensor]] = defaultdict(dict)
    for name, tensor in tensors.items():
        path, _, part = name.rpartition(".")
        by_path[path][part] = tensor
    groups: dict[tuple[str, str], list[dict[str, Tensor]]] = defaultdict(list)
    for path, own in by_path.items():
        layer = path.rpartition(".")[2]
        groups[layer, str([(part, tensor.shape) for part, tensor in own.items()])].append(own)
    return tuple(
        LearnedPart(
            layer=layer,
            num_layers=len(found),
            shapes={part: tuple(tensor.shape) for part, tensor in found[0].items()},
            num_values=sum(tensor.numel() for own in found for tensor in own.values()),
        )
        for (layer, _), found in groups.items()
    )


def _try_on(
    skeleton: Any, spec: MethodSpec, options: MethodOptions, tensors: dict[str, Tensor]
) -> None:
    """Attach and fill on the meta device: what fails, fails before weights are loaded."""
    skeleton.requires_grad_(False)
    spec.attach(skeleton, options)
    own = trainable(skeleton)
    for name in sorted(own.keys() ^ tensors.keys()):
        what = "The adapter lacks a tensor" if name in own else "There is a tensor too many"
        raise no_fit(what, name)
    for name, tensor in tensors.items():
        if tensor.shape != own[name].shape:
            has, wanted = tuple(tensor.shape), tuple(own[name].shape)
            raise no_fit(f"A tensor has shape {has} instead of {wanted}", name)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise ModelError(
            f"The folder has no readable {CONFIG}",
            where=path.parent.name,
            fix="Choose a complete adapter folder of the peft library",
        )
    asking = keys_asking_for_code(config)
    if asking:
        raise ModelError(
            "The adapter wants to run its own code, which the studio never does",
            where=f"{CONFIG}, {asking[0]}",
            fix="Choose an adapter that needs no code of its own",
        )
    return config


def _check_base(config: dict[str, Any], base: BaseFolder) -> None:
    """Refuse a base of another name, where both have names that the world knows."""
    named = config.get("base_model_name_or_path")
    if not isinstance(named, str) or named.startswith((".", "/", "~")) or not is_hub_id(named):
        return
    if is_hub_id(base.id) and named.casefold() != base.id.casefold():
        raise ModelError(
            f"The adapter was made for another base, {named}",
            where=base.id,
            fix=f"Choose {named} as the base",
        )


def _check_fingerprint(folder: Path, base: BaseFolder) -> None:
    """Refuse a base of other weights, where the studio wrote down which ones the adapter is for."""
    try:
        named = json.loads((folder / RECORD).read_text(encoding="utf-8"))["base"]
        name, pinned = named["id"], named["fingerprint"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return  # made elsewhere
    if pinned != base.fingerprint:
        raise ModelError(
            f"The adapter was made for another base or other weights of it, {name!r}",
            where=base.id,
            fix=f"Choose the base whose fingerprint is in the adapter's {RECORD}",
        )


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    path = folder / TENSORS
    if not path.is_file():
        pickles = sorted(own.name for own in folder.iterdir() if own.suffix in PICKLE_SUFFIXES)
        raise ModelError(
            "The adapter is in pickle format, which can run code when opened"
            if pickles
            else f"The folder holds no {TENSORS}",
            where=pickles[0] if pickles else folder.name,
            fix="Save it again as safetensors where you trust it, or choose another adapter",
        )
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"The adapter's tensors cannot be read: {str(error).splitlines()[0][:200]}",
            where=TENSORS,
            fix="Download the adapter again",
        ) from None
