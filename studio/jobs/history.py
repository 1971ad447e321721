"""How the validation loss of a run went, read quickly from the events of all its attempts."""

import contextlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from engine.events import Evaluated, Launched, Stamped, Started, from_json
from engine.jobs import Job

_STEPPED = b'{"event":"Stepped"'


@dataclass(frozen=True)
class History:
    """What all attempts of a train job tell, but for its steps.

    Attributes:
        evaluations: validation loss at each step where it was measured.
        asked_step: where the newest attempt was to pause; 0: at the end.
        seconds: that the attempts took, loading the base included.
    """

    evaluations: dict[int, float]
    asked_step: int
    seconds: float

    @property
    def last_evaluated(self) -> int:
        """The newest step with a validation loss; 0 before the first."""
        return max(self.evaluations, default=0)

    def best_loss(self, until_step: float = math.inf) -> float | None:
        """Find the smallest validation loss.

        Args:
            until_step: later ones do not count.

        Returns:
            The loss; None where there is none yet.
        """
        return min(
            (loss for step, loss in self.evaluations.items() if step <= until_step), default=None
        )


def read_history(job: Job) -> History:
    """Read what a train job has gone through, without parsing its many steps.

    Args:
        job: its folder.

    Returns:
        The history; what a later attempt did again counts once.
    """
    evaluations: dict[int, float] = {}
    asked_step, seconds = 0, 0.0
    for path in job.attempt_events().values():
        lines = [line for line in path.read_bytes().split(b"\n") if line]
        # Long runs have many thousand steps, and none of them tells anything here but the time.
        ends = (lines[0], *lines[-2:]) if lines else ()
        times = [stamped.monotonic_seconds for stamped in _whole(ends)]
        seconds += times[-1] - times[0] if times else 0.0
        for stamped in _whole(line for line in lines if not line.startswith(_STEPPED)):
            event = stamped.event
            if isinstance(event, Launched):
                asked_step = event.until_step
            elif isinstance(event, Started):
                taken_again = event.first_step
                evaluations = {s: loss for s, loss in evaluations.items() if s < taken_again}
            elif isinstance(event, Evaluated):
                evaluations[event.step] = event.loss
    return History(evaluations, asked_step, seconds)


def _whole(lines: Iterable[bytes]) -> Iterator[Stamped]:
    for line in lines:
        with contextlib.suppress(ValueError):  # torn
            yield from_json(line)
