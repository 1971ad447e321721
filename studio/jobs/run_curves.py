"""The curves of runs for charts that are looked at again and again: read when there is more."""

import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from data_prep.curves import Curves, read_curves
from engine.jobs import Job

_SECONDS_BETWEEN_READS = 2.0
_MOST_RUNS = 32
_MOST_POINTS = 500
_Sizes = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class _Read:
    """What was read of a run, of which files, and when."""

    curves: Curves
    sizes: _Sizes
    at: float


class RunCurves:
    """Remembers the curves of the runs that were looked at last; threads may share it."""

    def __init__(self) -> None:
        """Begin without any."""
        self._reads: OrderedDict[str, _Read] = OrderedDict()
        self._lock = Lock()

    def of(self, job: Job, *, is_over: bool = False) -> Curves:
        """Give a run's curves, two seconds old at most.

        Args:
            job: a train job.
            is_over: the run has ended, so what came last must be there at once.

        Returns:
            The curves; empty where nothing is written yet.

        Raises:
            RunError: a file went away or may not be read.
        """
        with self._lock:  # who asks meanwhile waits, and finds it read
            known = self._reads.get(str(job.folder))
            now = time.monotonic()
            if known and not is_over and now - known.at < _SECONDS_BETWEEN_READS:
                return known.curves
            attempts = job.attempt_events()
            sizes = tuple(_size(number, path) for number, path in attempts.items())
            if not known or known.sizes != sizes:
                known = _Read(read_curves(attempts, max_points=_MOST_POINTS), sizes, now)
            self._reads[str(job.folder)] = known
            self._reads.move_to_end(str(job.folder))
            while len(self._reads) > _MOST_RUNS:
                self._reads.popitem(last=False)
            return known.curves


def _size(number: int, path: Path) -> tuple[int, int, int]:
    try:
        stat = path.stat()
    except FileNotFoundError:  # deleted just now
        return number, 0, 0
    return number, stat.st_size, stat.st_mtime_ns
