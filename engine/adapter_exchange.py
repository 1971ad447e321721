"""One base stays in memory; the adapter on it is exchanged, folded in, and taken out again.

What the base is made of is remembered, not copied: modules, and the tensors that its parameters
hold. Going back puts the same tensors into the same modules, so that the base has the same bits
after any number of adapters. A W + s B A - s B A in floating point would not.
"""

from typing import Any

from torch import Tensor, nn

from engine.adapter_import import ImportedAdapter, able_to_hold
from engine.language_model import LanguageModel
from engine.method import attach_method, load_trained, trainable
from engine.methods import get_method
from templates.errors import ModelError, PlanError

_TABLES = ("_modules", "_parameters", "_buffers")


class AdapterExchange:
    """A frozen base with one adapter on it, another, or none."""

    def __init__(self, base: LanguageModel) -> None:
        """Remember the base as it is.

        Args:
            base: a base without a method; nobody else changes it meanwhile.
        """
        self._base = base
        self._remembered = _Remembered(base.model)
        self._adapter: ImportedAdapter | None = None
        self._is_merged = False

    def use(self, adapter: ImportedAdapter | None) -> LanguageModel:
        """Put an adapter on the base, instead of the one before.

        Args:
            adapter: None for the base alone.

        Returns:
            The model in evaluation mode; one that was given before must no longer be used.

        Raises:
            ModelError: the adapter does not fit the base, which is then bare.
        """
        self._put_back()
        if adapter is None:
            self._base.model.eval()
            return self._base
        try:
            tuned = self._attached(adapter)
        except Exception:
            self._put_back()
            raise
        self._adapter = adapter
        return tuned

    def merge(self) -> LanguageModel:
        """Fold the adapter into plain weights, which cost nothing when they answer.

        Returns:
            The plain model.

        Raises:
            PlanError: there is no adapter, or it cannot be folded in.
        """
        fold = get_method(self._adapter.method).merge if self._adapter else None
        if fold is None:
            raise PlanError(
                "There is nothing that could be merged into the base",
                where=self._adapter.method if self._adapter else "no adapter",
                fix="Put on an adapter that changes weights, such as LoRA",
            )
        if not self._is_merged:
            fold(self._base.model)
            self._base.model.eval()
            self._is_merged = True
        return self._base

    def unmerge(self) -> LanguageModel:
        """Take the adapter out of the weights again; it is on the base as before the merge.

        Returns:
            The model in evaluation mode.

        Raises:
            PlanError: nothing was merged.
        """
        if not self._is_merged:
            raise PlanError(
                "No adapter is merged into the base", where="unmerge", fix="Merge one first"
            )
        return self.use(self._adapter)

    def _attached(self, adapter: ImportedAdapter) -> LanguageModel:
        _check_finite(adapter)
        spec = able_to_hold(get_method(adapter.method), self._base.precision)
        tuned = attach_method(self._base, spec, adapter.options, seed=adapter.seed)
        for parameter in trainable(tuned.model).values():
            if self._remembered.holds(parameter):  # weights of the base itself, which may learn
                parameter.data = parameter.data.clone()
        load_trained(tuned.model, adapter.tensors)
        tuned.model.eval()
        return tuned

    def _put_back(self) -> None:
        self._remembered.restore()
        self._adapter, self._is_merged = None, False


class _Remembered:
    """Which modules a model consists of, and which tensors they hold."""

    def __init__(self, model: Any) -> None:
        self._config = model.config
        self._settings = dict(model.config.__dict__)
        self._modules = [(module, _inside(module)) for module in model.modules()]
        self._values = {
            id(parameter): (parameter, parameter.data, parameter.requires_grad)
            for parameter in model.parameters()
        }

    def holds(self, parameter: nn.Parameter) -> bool:
        """Say whether a parameter is one of the base."""
        return id(parameter) in self._values

    def restore(self) -> None:
        """Make the model what it was."""
        self._config.__dict__.clear()
        self._config.__dict__.update(self._settings)
        for module, inside in self._modules:
            module.__dict__.clear()
            module.__dict__.update(inside | {name: dict(inside[name]) for name in _TABLES})
        for parameter, values, learns in self._values.values():
            # Some methods write into vectors where they lie, so a copy is what they may have.
            parameter.data = values.clone() if values.dim() < 2 else values
            parameter.requires_grad_(learns)


def _inside(module: nn.Module) -> dict[str, Any]:
    return module.__dict__ | {name: dict(module.__dict__[name]) for name in _TABLES}


def _check_finite(adapter: ImportedAdapter) -> None:
    for name, tensor in adapter.tensors.items():
        if not bool(Tensor.isfinite(tensor).all()):
            raise ModelError(
                "A tensor holds values that are no numbers",
                where=f"tensor {name}",
                fix="Choose another checkpoint or adapter",
            )
