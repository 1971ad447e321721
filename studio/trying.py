"""A text that is tried on a run: put into the task's fields, and into what the engine is asked."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from data_prep.prepare import rewrite_new_rows
from studio.child_service import Answer, ChildService
from studio.home import Home
from studio.records import planned, require_finished
from templates.dataset import Dataset, read_manifest
from templates.errors import DataError, RunError
from templates.example import Example, Turn
from templates.template import Template


class Tries:
    """What is asked of runs and not answered yet, one thing a project. Safe for threads."""

    def __init__(
        self, engine: ChildService, operation: str = "try", busy: str = "Another text"
    ) -> None:
        """Begin with none.

        Args:
            engine: answers them.
            operation: of the engine.
            busy: what is being answered where a second one is asked, for the sentence.
        """
        self._engine, self._operation, self._busy = engine, operation, busy
        self._stopped: dict[str, threading.Event] = {}

    @contextmanager
    def answer(self, project: str, arguments: Mapping[str, Any]) -> Iterator[Answer]:
        """Let the engine answer; at the end of the context its work on it is over.

        Args:
            project: the id of the project it is asked in.
            arguments: of the engine's operation.

        Yields:
            The answer to iterate; without a result where it was stopped.

        Raises:
            RunError: something else of the project is being answered.
        """
        stopped = threading.Event()
        if self._stopped.setdefault(project, stopped) is not stopped:
            raise RunError(f"{self._busy} is being answered", fix="Wait for it, or stop it")
        answer = self._engine.stream(self._operation, arguments, cancelled=stopped)
        try:
            yield answer
        finally:
            # First the engine: until its turn is free, the next text would only wait.
            try:
                answer.close()
            finally:
                del self._stopped[project]

    def stop(self, project: str) -> None:
        """Stop the answer to a project's text, also before its first word; without one, nothing.

        Args:
            project: its id.
        """
        stopped = self._stopped.get(project)
        if stopped is not None:
            stopped.set()

    def is_busy(self, project: str) -> bool:
        """Say whether a text of a project is being answered.

        Args:
            project: its id.

        Returns:
            Whether one is.
        """
        return project in self._stopped


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
    arguments = run_arguments(home, run_id)
    [rewritten] = rewrite_new_rows(arguments["dataset_folder"], [example])
    return {
        **arguments,
        "fields": dict(rewritten.fields),
        "turns": [{"role": turn.role, "content": turn.content} for turn in rewritten.turns],
        "max_new_tokens": max_new_tokens,
    }


def run_arguments(home: Home, run_id: str) -> dict[str, Any]:
    """Say what the engine needs to open a run.

    Args:
        home: the folder behind all steps.
        run_id: a finished train job.

    Returns:
        The arguments of the engine's operation "inside", and some of those of "try".
    """
    job = home.job(home.find("train", run_id).name)
    require_finished(job)
    return {
        "run_folder": job.folder.absolute(),
        "dataset_folder": home.find("dataset", planned(job).dataset_id).absolute(),
        "device_lock": home.lock("cpu").absolute(),
    }
