"""Writes down what a step does to each row, and sums it up in a StepReport."""

from collections import Counter
from collections.abc import Callable

from templates.dataset import Change, StepReport
from templates.example import Example

_BETWEEN_PARTS = " | "
_MAX_SAMPLES = 5
_SAMPLE_CHARACTERS = 300
# Enough that a sample is still cut after masking, which would miss a number cut in half.
_NOTED_CHARACTERS = 50_000


class Ledger:
    """The notebook of one step."""

    def __init__(self, step: str) -> None:
        """Open an empty notebook.

        Args:
            step: the name of the step.
        """
        self._step = step
        self._rows: set[int] = set()
        self._samples: list[Change] = []
        self._changed = 0
        self.counts: Counter[str] = Counter()

    def changed(self, before: Example, after: Example) -> None:
        """Note that the texts or the label of an example changed.

        Args:
            before: the example as it was.
            after: the example as it is.
        """
        pairs = zip(_parts(before), _parts(after), strict=False)
        old, new = next(((a, b) for a, b in pairs if a != b), ("", ""))
        self._changed += 1
        self._note(before.source_rows, old, new)

    def dropped(self, rows: tuple[int, ...], text: str, reason: str) -> None:
        """Note that a row leaves.

        Args:
            rows: its upload rows.
            text: what to show as a sample.
            reason: counted in the report.
        """
        self.counts[reason] += 1
        self._note(rows, text, None)

    def added(self, before: Example, after: Example) -> None:
        """Note that a new example was made from another one.

        Args:
            before: the original.
            after: the new one.
        """
        self._sample(before.source_rows, show(before), show(after))

    def report(self, rows_in: int, rows_out: int) -> StepReport:
        """Close the notebook.

        Args:
            rows_in: examples before the step.
            rows_out: examples after it.

        Returns:
            The report; its samples are long, and go through `show_samples` to be kept.
        """
        return StepReport(
            step=self._step,
            rows_in=rows_in,
            rows_out=rows_out,
            rows_changed=self._changed,
            counts=dict(sorted((+self.counts).items())),
            rows=tuple(sorted(self._rows)),
            samples=tuple(self._samples),
        )

    def _note(self, rows: tuple[int, ...], old: str, new: str | None) -> None:
        self._rows.update(rows)
        self._sample(rows, old, new)

    def _sample(self, rows: tuple[int, ...], old: str, new: str | None) -> None:
        if len(self._samples) < _MAX_SAMPLES and rows:
            after = None if new is None else new[:_NOTED_CHARACTERS]
            self._samples.append(Change(row=rows[0], before=old[:_NOTED_CHARACTERS], after=after))


def show_samples(report: StepReport, rewrite: Callable[[str], str]) -> StepReport:
    """Make the samples of a report fit to be shown and kept.

    Args:
        report: as the step gave it.
        rewrite: masks a text; it sees the text before it is cut.

    Returns:
        The report with rewritten, short samples.
    """

    def short(text: str) -> str:
        masked = _BETWEEN_PARTS.join(map(rewrite, rewrite(text).split(_BETWEEN_PARTS)))
        return masked[:_SAMPLE_CHARACTERS]

    samples = tuple(
        Change(
            row=change.row,
            before=short(change.before),
            after=None if change.after is None else short(change.after),
        )
        for change in report.samples
    )
    shown: StepReport = report.model_copy(update={"samples": samples})
    return shown


def show(example: Example) -> str:
    """Show an example in a report.

    Args:
        example: any.

    Returns:
        Its texts and label in one piece.
    """
    return _BETWEEN_PARTS.join(_parts(example))


def _parts(example: Example) -> tuple[str, ...]:
    return (*example.texts(), *([example.label] if example.label is not None else []))
