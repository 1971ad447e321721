"""What can go wrong, said so that the person at the screen can mend it.

StudioError
├── DataError      the table, a cell or the column mapping
├── PlanError      an option, a schedule or a choice in the plan
├── ModelError     a base model, tokenizer or adapter folder
└── RunError       a run folder, a checkpoint, the disk
"""


class StudioError(Exception):
    """An expected failure with a remedy; shown as one sentence, never as a traceback."""

    def __init__(self, what: str, *, where: str = "", fix: str) -> None:
        """Build the sentence.

        Args:
            what: what happened, a clause without a final stop.
            where: file, row, line or field; may be empty.
            fix: what the person can do about it, an imperative clause.
        """
        self.what, self.where, self.fix = what, where, fix
        place = f" ({where})" if where else ""
        super().__init__(f"{what}{place}. {fix}.")

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the three parts when the error crosses a process border."""
        return (_rebuild, (type(self), self.what, self.where, self.fix))


def _rebuild(kind: type[StudioError], what: str, where: str, fix: str) -> StudioError:
    return kind(what, where=where, fix=fix)


class DataError(StudioError):
    """The table, a cell of it or the column mapping cannot be used as it is."""


class PlanError(StudioError):
    """An option, a schedule value or a combination in the plan is not possible."""


class ModelError(StudioError):
    """A base model, tokenizer or adapter folder cannot be used safely or at all."""


class RunError(StudioError):
    """A run folder, checkpoint or disk refuses to go on."""
