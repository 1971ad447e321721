"""The test Hub as fetching sees it: model folders under names, at one commit."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.hub_server import READ_TOKEN, serve_publish_hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = READ_TOKEN


@contextmanager
def serve_hub(models: dict[str, Path]) -> Iterator[tuple[str, list[str]]]:
    """Give the address, and the paths that were asked for; names with "private" want the token."""
    with serve_publish_hub(models, oid=COMMIT) as hub:
        yield hub.url, hub.paths
