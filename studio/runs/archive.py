"""How a run lies in one zip file.

manifest.json              first: versions, ids, and size and sha256 of every other file
job/request.json           job/about.json    job/metrics.csv
job/attempts/<n>/          events, and what was seen of a worker found dead
job/checkpoints/step-…/    the newest and the best
dataset/                   what it learned from

The base is not inside: the plan names it with its fingerprint. Logs stay at home, because they may
tell of the machine.
"""

import re
from collections.abc import Callable

from pydantic import Field

from templates.values import Value

MANIFEST = "manifest.json"
VERSION = 1
CHUNK_BYTES = 1 << 20
JOB_ID = re.compile(r"train-[a-z0-9-]{1,80}")
DATASET_ID = re.compile(r"ds-[a-z0-9-]{1,80}")
# What is written is what is taken in: no other name ever becomes a path.
CARRIED = re.compile(
    r"""job/(request\.json | about\.json | metrics\.csv
           | attempts/[1-9][0-9]{0,5}/(events\.jsonl | found_dead\.json)
           | checkpoints/step-[0-9]{8}(\.[0-9]{2,4})?/[a-z]{1,20}\.(safetensors | json))
        | dataset/[A-Za-z0-9_][A-Za-z0-9_.-]{0,80}""",
    re.VERBOSE,
)
Tick = Callable[[float, str], None]


class ArchivedFile(Value):
    """One file of an archive."""

    name: str
    size_bytes: int = Field(ge=0)
    sha256: str


class ArchiveManifest(Value):
    """What an archive says of itself."""

    version: int
    studio_version: str
    job_id: str
    dataset_id: str
    base_id: str
    files: tuple[ArchivedFile, ...]

    @property
    def size_bytes(self) -> int:
        """Of all files, unpacked."""
        return sum(file.size_bytes for file in self.files)


def no_tick(share: float, words: str) -> None:
    """Show no progress.

    Args:
        share: done, 0 to 1.
        words: what is being done.
    """
