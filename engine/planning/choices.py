"""What a person has chosen so far, as the pages send it to the engine. Free of torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from engine.model_folder import STARTER
from engine.plan import Precision
from templates.values import Value


class MethodsRequest(Value):
    """Data and base, and what holds for every method."""

    dataset_folder: Path
    base: str = STARTER
    revision: str = ""
    schedule: Mapping[str, Any] = Field(default={}, description="Changes to the method's own.")
    limits: Mapping[str, Any] = Field(default={}, description="Changes to the usual ones.")
    precision: Precision | None = Field(
        default=None, description="None, or one the method lacks: the method's first."
    )
    seed: int = Field(default=0, ge=0, lt=2**32)


class OtherBase(Value):
    """A base on this machine that may be proposed where the chosen one does not fit."""

    reference: str
    revision: str = ""
    title: str
    num_parameters: int = Field(ge=1)


class EstimateRequest(MethodsRequest):
    """The choices of a whole plan."""

    precision: Precision | None = Field(default=None, description="None: the method's first.")
    method: str = "lora"
    options: Mapping[str, Any] = Field(default={}, description="Changes to the method's own.")
    other_bases: tuple[OtherBase, ...] = ()
