from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from data_prep.upload import read_upload

# Busy machines are slow, and a red build must be red again when it is repeated.
settings.register_profile(
    "house", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("house")


@pytest.fixture
def make_upload(tmp_path: Path) -> Callable[..., Path]:
    """Write bytes or text to a file, upload it, give the upload folder."""

    def make(content: bytes | str, name: str = "table.csv", **options: str) -> Path:
        number = sum(1 for _ in tmp_path.glob("up-*"))
        folder = tmp_path / f"up-{number}"
        path = tmp_path / f"source-{number}"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        read_upload(path, folder, name=name, **options)
        return folder

    return make


@pytest.fixture
def labelled_csv() -> str:
    """A clean little table: 40 rows, two classes."""
    rows = [
        f"number {number} is {'odd' if number % 2 else 'even'},{number % 2}" for number in range(40)
    ]
    return "text,label\n" + "\n".join(rows) + "\n"
