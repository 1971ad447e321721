"""The web process's way to the data reader, where people's tables are opened."""

import sys
from pathlib import Path

from studio.child_service import ChildService, ChildWords

_LIMITS_SECONDS = {"read": 1800.0, "clean": 600.0}
_WORDS = ChildWords(
    name="data reader",
    too_slow="Upload fewer rows or shorter cells",
    too_large="Try again; if it happens again, memory ran out: upload fewer rows",
)


class DataService(ChildService):
    """The resident `python -m data_prep.service`."""

    def __init__(
        self,
        *,
        log: Path | None = None,
        memory_ratio: float = 0.5,
        idle_seconds: float = 300.0,
    ) -> None:
        """Describe the child; it starts with the first request.

        Args:
            log: file for what libraries print; None keeps nothing.
            memory_ratio: share of the machine's memory that the child may use.
            idle_seconds: a child that nobody asked for so long is ended; its memory is free then.
        """
        super().__init__(
            [sys.executable, "-m", "data_prep.service", "--memory-ratio", str(memory_ratio)],
            _WORDS,
            log=log,
            idle_seconds=idle_seconds,
            offline=True,
            limits_seconds=_LIMITS_SECONDS,
        )
