"""What a tuning method is: one file in engine/methods that ends in a MethodSpec."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from engine.batches import Batch
from engine.language_model import LanguageModel
from engine.optimizers import ADAMW, NewOptimizer, OptimizerSpec
from engine.plan import Precision, Schedule
from templates.errors import ModelError, PlanError
from templates.values import Value, parse

PEFT = "transformers + peft"
VLLM, LORAX, LLAMA_CPP, OLLAMA = "vLLM", "LoRAX", "llama.cpp", "Ollama"


class MethodOptions(Value):
    """Base of every method's options: each field carries title, description and range.

    Forms are made of them. A field marked SIMPLE is one that a newcomer may want to change.
    """

    def adapter_servers(self) -> tuple[str, ...]:
        """Say who beside `peft` can load what these options publish, as an adapter and unmerged.

        Returns:
            Names of programs.
        """
        return ()

    @property
    def published_rank(self) -> int:
        """The rank of an adapter whose layers have one; 0: they have none."""
        return 0


@dataclass(frozen=True)
class PeftAdapter:
    """An adapter in the folder format of the `peft` library."""

    config: dict[str, Any]
    tensors: dict[str, Tensor]


@dataclass(frozen=True)
class PeftImport:
    """Such an adapter in our words: options of a method, and tensors by parameter name."""

    options: dict[str, Any]
    tensors: dict[str, Tensor]


Start = Callable[[LanguageModel, Mapping[str, Mapping[str, Tensor]], Sequence[Batch]], str]


@dataclass(frozen=True)
class MethodSpec:
    """Everything the studio knows about a method.

    Attributes:
        name: the file's name.
        title: what people call it.
        family: adaptation family, for grouping cards.
        summary: one sentence for the card.
        paper: author, year and arXiv number.
        options: pydantic class of its options.
        schedule: defaults that suit the method.
        rate_at_width: D for which the schedule's learning rate is meant; for another width it is
            scaled in inverse proportion. 0: one rate for all.
        attach: put the method's parameters on a frozen model; also on the meta device.
        detach: take them off again, leaving the base as it was.
        when_to_choose: one or two sentences for somebody who knows no method yet.
        quality_place: order by how good the answers usually are; 1 is best.
        least_rows: training rows below which methods of a later place do better.
        least_parameters: size of the base below which methods of a later place do better.
        optimizer: how its values learn.
        precisions: ways of holding the base that the method can train on, the default first.
        starts_as_base: whether outputs are unchanged before the first step.
        initialise: draw the start values from a generator.
        start: exchange the start values for what other runs learned: given the model, their tensors
            by run, and batches of validation examples. Gives a sentence for people.
        num_virtual_tokens: P positions put before every input.
        merge: fold the method into plain weights, in place.
        export: write the adapter for the `peft` library.
        export_method: the method whose `import_peft` reads what `export` wrote; "" where the
            exported tensors are the learned ones themselves.
        import_peft: put an adapter of that library in our words, given the bare base; None where
            it is another method's.
        optimizer_for: makes the optimizer that these options ask for; `optimizer` still says what
            it takes.
    """

    name: str
    title: str
    family: str
    summary: str
    paper: str
    options: type[MethodOptions]
    schedule: Schedule
    attach: Callable[[Any, Any], None]
    detach: Callable[[Any], None]
    when_to_choose: str
    quality_place: int = 9
    least_rows: int = 0
    least_parameters: int = 0
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    optimizer: OptimizerSpec = ADAMW
    starts_as_base: bool = True
    rate_at_width: int = 0
    initialise: Callable[[LanguageModel, Any, torch.Generator], None] | None = None
    start: Start | None = None
    num_virtual_tokens: Callable[[Any], int] | None = None
    merge: Callable[[Any], None] | None = None
    export: Callable[[LanguageModel, Any], PeftAdapter] | None = None
    export_method: str = ""
    import_peft: Callable[[Any, PeftAdapter], PeftImport | None] | None = None
    optimizer_for: Callable[[Any], NewOptimizer] | None = None

    @property
    def servable_by(self) -> tuple[str, ...]:
        """Programs that can answer with what is published, in one form or the other, by default.

        llama.cpp and Ollama can after converting it.
        """
        of_adapter = self.adapter_servers(self.options()) or ("transformers",)
        of_whole_model = (VLLM, LLAMA_CPP, OLLAMA) if self.merge else ()
        return tuple(dict.fromkeys((*of_adapter, *of_whole_model)))

    def adapter_servers(self, options: MethodOptions) -> tuple[str, ...]:
        """Say who can load the published adapter as it is, unmerged.

        Args:
            options: of the method.

        Returns:
            Names of programs; none where no adapter is published.
        """
        return (PEFT, *options.adapter_servers()) if self.export else ()

    def new_optimizer(self, options: MethodOptions) -> NewOptimizer:
        """Choose how what is learned is changed.

        Args:
            options: of the method.

        Returns:
            Makes the optimizer from parameters and schedule.
        """
        return self.optimizer_for(options) if self.optimizer_for else self.optimizer.new


def parse_options(spec: MethodSpec, options: Mapping[str, Any]) -> MethodOptions:
    """Validate plain options for a method.

    Args:
        spec: the method.
        options: from a form, a file or the command line.

    Returns:
        The options with defaults filled in.
    """
    return parse(spec.options, dict(options), where=f"method {spec.name}", error=PlanError)


def check_precision(spec: MethodSpec, precision: Precision) -> None:
    """Refuse a way of holding the base that a method cannot train on.

    Args:
        spec: the method.
        precision: of the base.

    Raises:
        PlanError: it is none of the method's.
    """
    if precision not in spec.precisions:
        raise PlanError(
            f"{spec.title} does not train on {precision} weights",
            where="base precision",
            fix=f"Choose {' or '.join(spec.precisions)}",
        )


def attach_method(
    language_model: LanguageModel, spec: MethodSpec, options: MethodOptions, *, seed: int
) -> LanguageModel:
    """Freeze everything, attach the method, draw its start values.

    Args:
        language_model: a base; its model is changed in place.
        spec: the method.
        options: of that method.
        seed: fixes the start values.

    Returns:
        The language model to use from now on.
    """
    check_precision(spec, language_model.precision)
    model = language_model.model
    model.requires_grad_(False)
    spec.attach(model, options)
    for parameter in trainable(model).values():
        parameter.data = parameter.data.float()  # learned values are kept exact
    virtual = spec.num_virtual_tokens(options) if spec.num_virtual_tokens else 0
    tuned = replace(language_model, num_virtual_tokens=virtual)
    if spec.initialise:
        spec.initialise(tuned, options, torch.Generator().manual_seed(seed))
    return tuned


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """List what is learned: whatever asks for a gradient.

    Args:
        model: a model with a method attached.

    Returns:
        Parameters by exact name; a tied one appears once.
    """
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def count_parameters(parameters: Iterable[Tensor]) -> int:
    """Count values, on any device.

    Args:
        parameters: tensors.

    Returns:
        How many numbers they hold.
    """
    return sum(parameter.numel() for parameter in parameters)


def load_trained(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put learned tensors back, by exact name and shape.

    Args:
        model: a model with the same method and options attached.
        tensors: from a checkpoint.

    Raises:
        ModelError: a name or shape differs.
    """
    own = trainable(model)
    for name in sorted(own.keys() ^ tensors.keys()):
        raise ModelError(
            "The checkpoint belongs to another base or other options",
            where=f"tensor {name}",
            fix="Open it with the plan it was trained with",
        )
    for name, parameter in own.items():
        if parameter.shape != tensors[name].shape:
            raise ModelError(
                f"The checkpoint has shape {tuple(tensors[name].shape)}, the model "
                f"{tuple(parameter.shape)}",
                where=f"tensor {name}",
                fix="Open it with the base it was trained on",
            )
        parameter.data.copy_(tensors[name])
