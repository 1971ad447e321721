"""The data reader behind the web process: a resident child, as `templates/service.py` describes it.

People's tables are opened here, and nowhere else while the page runs.
"""

import argparse
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

from pydantic import Field

from data_prep.database import interrupt
from data_prep.recipe import (
    DEFAULT_STEPS,
    PrepRecipe,
    all_augmenters,
    all_cleaners,
    propose,
)
from data_prep.rehearsal import rehearse, render_rows
from data_prep.splits import SplitOptions
from data_prep.table import shortened
from data_prep.table_file import Corrections
from data_prep.table_preview import preview_table
from data_prep.upload import Reached, Upload, load_upload, read_rows, reading_upload
from templates.memory import limit_memory
from templates.service import Nothing, Operation, Server, Service, take_pipes
from templates.template import TaskKind
from templates.values import Value

_CELL_CHARACTERS = 2_000
_SAVE_MEMORY = "Upload fewer rows or shorter cells, or close other programs"


class PreviewRequest(Corrections):
    """Which file to look at, and what a person says about it."""

    path: Path
    name: str
    limit: int = Field(default=20, ge=1, le=200)


class ReadRequest(Corrections):
    """Which file to read, and the new folder to keep it in."""

    path: Path
    folder: Path
    name: str


class RowsRequest(Value):
    """Which rows of an upload."""

    folder: Path
    offset: int = Field(default=0, ge=0)
    limit: int = Field(default=50, ge=1, le=200)


class ProposeRequest(Value):
    """Which upload, and what is to be learned from it; None: found out."""

    folder: Path
    seed: int = Field(default=0, ge=0, lt=2**32)
    task: TaskKind | None = None


class CleanRequest(Value):
    """Which upload and recipe."""

    folder: Path
    recipe: PrepRecipe
    max_rows: int | None = Field(default=None, ge=1)
    num_examples: int = Field(default=20, ge=0, le=200)


class RenderRequest(Value):
    """Which upload, template and mapping."""

    folder: Path
    recipe: PrepRecipe
    count: int = Field(default=3, ge=1, le=20)


def read(request: ReadRequest) -> Generator[Reached, None, Upload]:
    """Read a file and keep it.

    Args:
        request: which.

    Returns:
        The reading, step by step.
    """
    return reading_upload(
        request.path, request.folder, name=request.name, corrections=_corrections(request)
    )


def preview(request: PreviewRequest) -> dict[str, Any]:
    """Look at the beginning of a file.

    Args:
        request: which.

    Returns:
        A `TablePreview`.
    """
    shown = preview_table(
        request.path, name=request.name, corrections=_corrections(request), limit=request.limit
    )
    return shown.model_dump(mode="json")


def show_rows(request: RowsRequest) -> dict[str, Any]:
    """Show rows of an upload; long cells are shortened.

    Args:
        request: which.

    Returns:
        The names of the columns, and each row's number and cells.
    """
    columns = [column.name for column in load_upload(request.folder).columns]
    rows = read_rows(request.folder, limit=request.limit, offset=request.offset)
    return {
        "columns": columns,
        "rows": [
            {
                "number": row.number,
                "cells": [shortened(row.cells[name], _CELL_CHARACTERS) for name in columns],
            }
            for row in rows
        ],
    }


def describe_steps() -> dict[str, Any]:
    """Say what a form needs to know of cleaners, augmenters and splits.

    Returns:
        Both kinds of step by name; the steps that nearly every table wants; the schema of splits.
    """
    cleaners = {name: _described(spec) for name, spec in all_cleaners().items()}
    for name, spec in all_cleaners().items():
        cleaners[name]["only_rewrites"] = spec.only_rewrites
    return {
        "cleaners": cleaners,
        "augmenters": {name: _described(spec) for name, spec in all_augmenters().items()},
        "default_steps": list(DEFAULT_STEPS),
        "splits": SplitOptions.model_json_schema(),
    }


def _described(spec: Any) -> dict[str, Any]:
    return {
        "title": spec.title,
        "summary": spec.summary,
        "options": spec.options.model_json_schema(),
        "defaults": spec.options().model_dump(mode="json"),
    }


def _propose(request: ProposeRequest) -> dict[str, Any]:
    upload = load_upload(request.folder)
    return propose(upload, seed=request.seed, task=request.task).model_dump(mode="json")


def _clean(request: CleanRequest) -> dict[str, Any]:
    found = rehearse(
        request.folder,
        request.recipe,
        num_examples=request.num_examples,
        max_rows=request.max_rows,
    )
    return found.model_dump(mode="json")


def _render(request: RenderRequest) -> dict[str, Any]:
    rows = render_rows(request.folder, request.recipe, request.count)
    return {"rows": [row.model_dump(mode="json") for row in rows]}


def _corrections(request: Corrections) -> Corrections:
    return Corrections(**{name: getattr(request, name) for name in Corrections.model_fields})


OPERATIONS = {
    "ping": Operation(Nothing, lambda _: {"pid": os.getpid()}),
    "preview": Operation(PreviewRequest, preview),
    "read": Operation(ReadRequest, read),
    "rows": Operation(RowsRequest, show_rows),
    "propose": Operation(ProposeRequest, _propose),
    "clean": Operation(CleanRequest, _clean),
    "render": Operation(RenderRequest, _render),
    "steps": Operation(Nothing, lambda _: describe_steps()),
}


def main() -> None:
    """Serve until the input ends."""
    parser = argparse.ArgumentParser(prog="python -m data_prep.service", description=__doc__)
    parser.add_argument(
        "--memory-ratio", type=float, default=0.5, help="Share of the machine's memory to use."
    )
    options = parser.parse_args()
    requests, answers = take_pipes()
    limit_memory(options.memory_ratio)
    server = Server(
        "data reader",
        OPERATIONS,
        lambda error: isinstance(error, MemoryError),
        _SAVE_MEMORY,
        interrupt,
    )
    Service(requests, answers, server).serve()


if __name__ == "__main__":
    main()
