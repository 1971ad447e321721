"""A text that is tried on a run: put into the task's fields, and into what the engine is asked."""

from collections.abc import Mapping
from typing import Any

from data_prep.prepare import rewrite_new_rows
from studio.home import Home
from studio.records import planned, require_finished
from templates.dataset import Dataset, read_manifest
from templates.errors import DataError
from templates.example import Example, Turn
from templates.template import Template


def tried_dataset(home: Home, run_id: str) -> Dataset:
    """Read what a finished run was trained on.

    Args:
        home: the folder behind all steps.
        run_id: a train job.

    Returns:
        The manifest; its template says which texts are asked for.
    """
    job = home.job(home.find("train", run_id).name)
    require_finished(job)
    return read_manifest(home.find("dataset", planned(job).dataset_id))


def tried_example(template: Template, texts: Mapping[str, str]) -> Example:
    """Put texts into the fields of the task.

    Args:
        template: of the task.
        texts: by slot; for chat, what the user says as "user".

    Returns:
        A new row. An optional field without text is left out.

    Raises:
        DataError: a field that is needed has no text.
    """
    if template.task == "chat":
        if not texts.get("user", "").strip():
            raise DataError("There is nothing to answer", fix="Write what the user says")
        return Example(turns=(Turn("user", texts["user"]),), source_rows=(1,))
    for slot in template.slots:
        if slot not in template.optional_slots and not texts.get(slot, "").strip():
            raise DataError(f"The field {slot!r} has no text", fix="Write something there")
    given = {slot: text for slot, text in texts.items() if text.strip()}
    if not given:
        raise DataError(
            "There is nothing to answer", fix=f"Write something for {template.slots[0]}"
        )
    return Example(fields=given, source_rows=(1,))


def try_arguments(
    home: Home, run_id: str, example: Example, *, max_new_tokens: int = 0
) -> dict[str, Any]:
    """Say what the engine's operation "try" needs.

    Args:
        home: the folder behind all steps.
        run_id: a finished train job.
        example: what to answer; it gets the rewriting steps that the training rows had.
        max_new_tokens: longest answer; 0: a little more than in training.

    Returns:
        The arguments.
    """
    job = home.job(home.find("train", run_id).name)
    require_finished(job)
    dataset_folder = home.find("dataset", planned(job).dataset_id)
    [rewritten] = rewrite_new_rows(dataset_folder, [example])
    return {
        "run_folder": job.folder.absolute(),
        "dataset_folder": dataset_folder.absolute(),
        "fields": dict(rewritten.fields),
        "turns": [{"role": turn.role, "content": turn.content} for turn in rewritten.turns],
        "max_new_tokens": max_new_tokens,
        "device_lock": home.lock("cpu").absolute(),
    }
