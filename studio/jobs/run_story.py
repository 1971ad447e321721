"""What runs went through, but for their steps: for a log that is looked at again and again.

An event file only grows, so each look reads what was added since the last.
"""

import contextlib
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from engine.events import Sample, Sampled, Stamped, Stepped, from_json
from engine.jobs import Job

_STEPPED = f'{{"event":"{Stepped.__name__}"'.encode()
_MOST_RUNS, _MOST_EVENTS = 32, 200


@dataclass(frozen=True)
class Story:
    """The events of a run's attempts, one after the other.

    Attributes:
        events: the last ones, without steps and samples.
        first_samples: what was answered before the first step; empty where nothing was.
    """

    events: tuple[Stamped, ...] = ()
    first_samples: tuple[Sample, ...] = ()


@dataclass
class _Reader:
    """Remembers how far each attempt's events were read, and what they told."""

    offsets: dict[Path, int] = field(default_factory=dict)
    events: deque[Stamped] = field(default_factory=lambda: deque(maxlen=_MOST_EVENTS))
    first_samples: tuple[Sample, ...] = ()
    story: Story = Story()

    def read(self, path: Path) -> bool:
        """Read what was added to a file; False where nothing was."""
        offset = self.offsets.get(path, 0)
        with path.open("rb") as file:
            file.seek(offset)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]  # the rest is being written just now
        self.offsets[path] = offset + len(whole)
        for line in whole.split(b"\n"):
            if line and not line.startswith(_STEPPED):
                with contextlib.suppress(ValueError):  # torn
                    self._take(from_json(line))
        return bool(whole)

    def _take(self, stamped: Stamped) -> None:
        if not isinstance(stamped.event, Sampled):
            self.events.append(stamped)
        elif stamped.event.step == 0:
            self.first_samples = stamped.event.samples


class RunStories:
    """Remembers the stories of the runs that were looked at last; threads may share it."""

    def __init__(self) -> None:
        """Begin without any."""
        self._readers: OrderedDict[Path, _Reader] = OrderedDict()
        self._lock = Lock()

    def of(self, job: Job) -> Story:
        """Tell what a run went through so far.

        Args:
            job: a train job.

        Returns:
            Its story; the very same object as long as nothing was added.
        """
        with self._lock:
            reader = self._readers.setdefault(job.folder, _Reader())
            paths = list(job.attempt_events().values())
            if not set(reader.offsets) <= set(paths):  # deleted, and made anew or brought back
                reader = self._readers[job.folder] = _Reader()
            for path in paths:
                with contextlib.suppress(FileNotFoundError):  # deleted just now
                    if path.stat().st_size > reader.offsets.get(path, 0) and reader.read(path):
                        reader.story = Story(tuple(reader.events), reader.first_samples)
            self._readers.move_to_end(job.folder)
            while len(self._readers) > _MOST_RUNS:
                self._readers.popitem(last=False)
            return reader.story
