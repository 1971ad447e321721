"""What a worker hands to the work it does."""

import time
from dataclasses import dataclass, field

from engine.attempts import Attempt
from engine.events import Progressed
from engine.jobs import Job
from studio.home import Home
from studio.jobs.stopping import StopRequest

_SECONDS_BETWEEN_WORDS = 0.25
_SECONDS_BETWEEN_SAME_WORDS = 300.0  # a sign of life


@dataclass
class Context:
    """Where to work, whom to tell, and whether to go on.

    Attributes:
        home: the folder behind all steps.
        job: the job's own folder; what is delivered is written there.
        attempt: takes events.
        stop: tells whether somebody wants the work to stop.
        until_step: pause training there; 0: go on to the end.
        token: for the Hub; never written anywhere.
    """

    home: Home
    job: Job
    attempt: Attempt
    stop: StopRequest
    until_step: int = 0
    token: str = field(default="", repr=False)
    _told: tuple[float, str] = field(default=(0.0, ""), repr=False)
    _told_at: float = field(default=-_SECONDS_BETWEEN_WORDS, repr=False)

    def progress(self, done_ratio: float, words: str) -> None:
        """Tell how far the work is; may be called as often as is convenient.

        Args:
            done_ratio: share done, 0 to 1.
            words: what is being done.
        """
        now = time.monotonic()
        is_new = (done_ratio, words) != self._told
        if now - self._told_at >= (
            _SECONDS_BETWEEN_WORDS if is_new else _SECONDS_BETWEEN_SAME_WORDS
        ):
            self._told, self._told_at = (done_ratio, words), now
            self.attempt.write(Progressed(done_ratio, words))
