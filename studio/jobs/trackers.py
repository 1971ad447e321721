"""Where a run's numbers also go: always metrics.csv, and TensorBoard and trackio when asked.

A resumed run takes some steps again. What an earlier attempt said of them is removed first, so
that every tracker tells one story. A tracker that fails is switched off; the run goes on.

    tensorboard --logdir <home>/jobs
    TRACKIO_DIR=<home>/trackio trackio show --project tuning-studio
"""

import importlib
import os
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from engine.events import Evaluated, Event, Started, Stepped
from templates.errors import PlanError, RunError, StudioError
from templates.files import disk_errors, write_atomically

METRICS = "metrics.csv"
_COLUMNS = (
    "step", "loss", "learning_rate", "gradient_norm", "num_tokens", "seconds",
    "validation_loss", "validation_token_accuracy_ratio",
)  # fmt: skip
_PROJECT = "tuning-studio"
_SECONDS_BETWEEN_FLUSHES = 1.0
Metrics = Mapping[str, float | int]


class Tracker(Protocol):
    """One place that numbers go to."""

    name: str

    def start(self, first_step: int) -> None:
        """Forget what is known of `first_step` and later."""

    def log(self, step: int, metrics: Metrics) -> None:
        """Take numbers of a step, named as in `metrics.csv`; keeping them may wait."""

    def flush(self) -> None:
        """Bring all numbers to the disk."""

    def close(self) -> None:
        """Let go of files; nothing waits any more."""


class Trackers:
    """All trackers of one attempt."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        """Hold them.

        Args:
            trackers: not started yet.
        """
        self._trackers = list(trackers)
        self._notices: list[str] = []
        self._flush_at = 0.0

    def write(self, event: Event) -> None:
        """Pass on what an event measured. Never fails: see `notices`.

        Args:
            event: the trainer's next one.
        """
        now = time.monotonic()
        # A step waits for the next, because its evaluation belongs beside it. A resumed run
        # begins at a save, so what is known by then must not get lost.
        if not isinstance(event, Stepped):
            self._tell(event)
            self._each(lambda tracker: tracker.flush())
        else:
            if now >= self._flush_at:
                self._each(lambda tracker: tracker.flush())
                self._flush_at = now + _SECONDS_BETWEEN_FLUSHES
            self._tell(event)

    def notices(self) -> tuple[str, ...]:
        """Say which trackers were switched off.

        Returns:
            A sentence for each, and why.
        """
        return tuple(self._notices)

    def close(self) -> None:
        """Bring what waits to the disk and let go of files. Never fails."""
        self._each(lambda tracker: tracker.flush())
        self._each(lambda tracker: tracker.close())
        self._trackers = []

    def _tell(self, event: Event) -> None:
        if isinstance(event, Started):
            first_step = event.first_step
            self._each(lambda tracker: tracker.start(first_step))
        elif isinstance(event, Stepped | Evaluated):
            step, metrics = event.step, _metrics(event)
            self._each(lambda tracker: tracker.log(step, metrics))

    def _each(self, act: Callable[[Tracker], None]) -> None:
        for tracker in tuple(self._trackers):
            try:
                with disk_errors(tracker.name):
                    act(tracker)
            except Exception as error:  # whatever a library raises, the run is worth more
                self._trackers.remove(tracker)
                reason = error.what if isinstance(error, StudioError) else str(error)
                reason = reason or type(error).__name__
                self._notices.append(f"{tracker.name} gets no more of this run: {reason}")
                with suppress(Exception):
                    tracker.close()


class _MetricsCsv:
    name = METRICS

    def __init__(self, job_folder: Path) -> None:
        self._path = job_folder / METRICS
        self._descriptor = -1
        self._size_bytes = 0
        self._lines: list[str] = []
        self._row: dict[str, float | int] = {}

    def start(self, first_step: int) -> None:
        kept = [",".join(_COLUMNS)]
        if self._path.is_file():
            *lines, _torn = self._path.read_text(encoding="ascii", errors="replace").split("\n")
            kept += [line for line in lines if _is_row_before(line, first_step)]
        content = ("\n".join(kept) + "\n").encode()
        write_atomically(self._path, content)
        self._size_bytes = len(content)
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    def log(self, step: int, metrics: Metrics) -> None:
        if self._row.get("step") != step:
            self._end_row()
            self._row["step"] = step
        self._row.update(metrics)

    def flush(self) -> None:
        self._end_row()
        left = content = "".join(self._lines).encode()
        try:
            while left:  # one call, unless the disk is nearly full
                left = left[os.write(self._descriptor, left) :]
        except OSError:
            os.ftruncate(self._descriptor, self._size_bytes)  # whole lines only
            raise
        self._size_bytes += len(content)
        self._lines = []

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _end_row(self) -> None:
        if self._row:
            cells = (self._row.get(name, "") for name in _COLUMNS)
            line = ",".join(f"{cell:.6g}" if type(cell) is float else str(cell) for cell in cells)
            self._lines.append(line + "\n")
            self._row = {}


class _TensorBoard:
    name = "TensorBoard"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._library = _import(self.name, "tensorboard", "torch.utils.tensorboard")
        self._writer: Any = None

    def start(self, first_step: int) -> None:
        self._writer = self._library.SummaryWriter(str(self._folder), purge_step=first_step)

    def log(self, step: int, metrics: Metrics) -> None:
        for name, value in metrics.items():
            self._writer.add_scalar(_tag(name), value, step)

    def flush(self) -> None:
        if self._writer:
            self._writer.flush()

    def close(self) -> None:
        if self._writer:
            self._writer.close()


class _Trackio:
    """Writes to trackio's store without `trackio.init`.

    That would ask the Hub for the person's name, send the numbers to a Space or server named in
    the environment, watch the machine from threads, and turn errors into warnings.
    """

    name = "trackio"

    def __init__(self, folder: Path, run_id: str) -> None:
        library = _import(self.name, "trackio", "trackio.sqlite_storage")
        # Read from the environment at import, which may have been for another home.
        library.TRACKIO_DIR = folder
        self._storage = library.SQLiteStorage
        self._run_id = run_id
        self._waiting: list[tuple[int, str, dict[str, float | int]]] = []

    def start(self, first_step: int) -> None:
        path = self._storage.init_db(_PROJECT)
        with closing(sqlite3.connect(path)) as database, database:
            database.execute(
                "DELETE FROM metrics WHERE run_id = ? AND step >= ?", (self._run_id, first_step)
            )

    def log(self, step: int, metrics: Metrics) -> None:
        tagged = {_tag(name): value for name, value in metrics.items()}
        self._waiting.append((step, datetime.now(UTC).isoformat(), tagged))

    def flush(self) -> None:
        if not self._waiting:
            return
        steps, times, metrics = zip(*self._waiting, strict=True)
        self._storage.bulk_log(
            project=_PROJECT,
            run=self._run_id,
            run_id=self._run_id,
            metrics_list=list(metrics),
            steps=list(steps),
            timestamps=list(times),
        )
        self._waiting = []

    def close(self) -> None:
        self._waiting = []


def open_trackers(
    job_folder: Path, home_root: Path, names: Sequence[str], *, run_id: str
) -> Trackers:
    """Prepare the trackers of an attempt, before anything is trained.

    Args:
        job_folder: holds `metrics.csv` and the folder `tensorboard`.
        home_root: its folder `trackio` holds trackio's store.
        names: "tensorboard" and "trackio", or neither; `metrics.csv` is always written.
        run_id: what trackio calls the run.

    Returns:
        What to pass every event to.

    Raises:
        PlanError: there is no such tracker.
        RunError: its package is not installed.
    """
    trackers: list[Tracker] = [_MetricsCsv(job_folder)]
    for name in names:
        if name == "tensorboard":
            trackers.append(_TensorBoard(job_folder / "tensorboard"))
        elif name == "trackio":
            trackers.append(_Trackio(home_root / "trackio", run_id))
        else:
            raise PlanError(
                f"There is no tracker called {name!r}", fix="Choose tensorboard, trackio or both"
            )
    return Trackers(trackers)


def _import(name: str, package: str, module: str) -> Any:
    try:
        importlib.import_module(package)
        return importlib.import_module(module)
    except ImportError:
        raise RunError(
            f"{name} is not installed",
            fix="Install it with: pip install -r requirements-trackers.txt",
        ) from None


def _metrics(event: Stepped | Evaluated) -> Metrics:
    if isinstance(event, Evaluated):
        return {
            "validation_loss": event.loss,
            "validation_token_accuracy_ratio": event.token_accuracy_ratio,
        }
    return {
        "loss": event.loss,
        "learning_rate": event.learning_rate,
        "gradient_norm": event.gradient_norm,
        "num_tokens": event.num_tokens,
        "seconds": event.seconds,
    }


def _tag(column: str) -> str:
    """Group charts: validation_loss -> validation/loss, loss -> train/loss."""
    group, _, name = column.partition("validation_")
    return f"train/{group}" if group else f"validation/{name}"


def _is_row_before(line: str, first_step: int) -> bool:
    step, *cells = line.split(",")
    return len(cells) == len(_COLUMNS) - 1 and step.isdecimal() and int(step) < first_step
