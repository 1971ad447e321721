"""The web process's way to the engine, where models and their tokenizers are opened."""

import sys
from pathlib import Path

from studio.child_service import ChildService, ChildWords

_LIMITS_SECONDS = {"estimate": 120.0, "try": 300.0, "inside": 600.0}
_WORDS = ChildWords(
    name="engine",
    too_slow="Try less text, or a base whose tokenizer and chat template are known to work",
    too_large="Try again; if it happens again, memory ran out: choose a smaller base",
)


class EngineService(ChildService):
    """The resident `python -m engine.service`."""

    def __init__(
        self,
        *,
        log: Path | None = None,
        memory_ratio: float = 0.8,
        idle_seconds: float = 300.0,
        offline: bool = True,
    ) -> None:
        """Describe the child; it starts with the first request.

        Args:
            log: file for what libraries print; None keeps nothing.
            memory_ratio: share of the machine's memory that the child may use.
            idle_seconds: a child that nobody asked for so long is ended; its memory is free then.
            offline: whether bases must be on this machine already.
        """
        super().__init__(
            [sys.executable, "-m", "engine.service", "--memory-ratio", str(memory_ratio)],
            _WORDS,
            log=log,
            idle_seconds=idle_seconds,
            offline=offline,
            limits_seconds=_LIMITS_SECONDS,
        )
