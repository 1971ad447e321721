"""Data sets on a Hub over real HTTP, as listing and downloading see them."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_a_token_for_members"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONVERTED = "refs/convert/parquet"


@dataclass
class DataSet:
    """One repository: the files of its branches, and what spoils it."""

    files: dict[str, bytes] = field(default_factory=dict)
    converted: dict[str, bytes] = field(default_factory=dict)
    card: dict[str, Any] = field(default_factory=dict)
    private: bool = False
    gated: bool = False
    status: int = 0
    sizes: dict[str, int] = field(default_factory=dict)  # announced, where they are not true
    hashes: dict[str, str] = field(default_factory=dict)
    raw: bytes = b""  # answered instead of the listing


@dataclass
class DataSetHub:
    """What a test sees of the server."""

    url: str = ""
    data_sets: dict[str, DataSet] = field(default_factory=dict)
    paths: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    slow: threading.Event = field(default_factory=threading.Event)  # files wait until it is set


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: DataSetHub

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        self.hub.paths.append(path)
        self.hub.tokens.add(token)
        listing = path.startswith("/api/datasets/")
        owner, name, *rest = path.removeprefix("/api").removeprefix("/datasets/").split("/")
        found = self.hub.data_sets.get(f"{owner}/{name}")
        if found is None or (found.private and token != TOKEN):
            return self._answer(401 if not token else 404, b"{}", "RepoNotFound")
        if found.gated and token != TOKEN:
            return self._answer(403, b"{}", "GatedRepo")
        if found.status:
            return self._answer(found.status, b"{}")
        if listing:
            revision = "/".join(rest[1:])
            files = {"main": found.files, COMMIT: found.files, CONVERTED: found.converted}.get(
                revision
            )
            if files is None or (revision == CONVERTED and not files):
                return self._answer(404, b"{}", "RevisionNotFound")
            assert parse_qs(parts.query) == {"blobs": ["true"]}
            return self._answer(200, found.raw or self._listing(found, files))
        content = {**found.files, **found.converted}.get("/".join(rest[2:]))
        if content is None:
            return self._answer(404, b"{}", "EntryNotFound")
        self.hub.slow.wait(30)
        self._answer(200, content)

    def _listing(self, found: DataSet, files: dict[str, bytes]) -> bytes:
        siblings = []
        for path, content in files.items():
            entry: dict[str, Any] = {
                "rfilename": path, "size": found.sizes.get(path, len(content)),
            }  # fmt: skip
            if path.endswith(".parquet"):
                told = found.hashes.get(path, sha256(content).hexdigest())
                entry["lfs"] = {"sha256": told, "size": len(content), "pointerSize": 131}
            siblings.append(entry)
        answer = {"id": "x/y", "sha": COMMIT, "siblings": siblings, "cardData": found.card}
        return json.dumps(answer).encode()

    def _answer(self, status: int, content: bytes, code: str = "") -> None:
        try:
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            if code:
                self.send_header("X-Error-Code", code)
            self.end_headers()
            self.wfile.write(content)
        except OSError:  # who asked did not wait for the answer
            self.close_connection = True


@contextmanager
def serve_data_sets(**data_sets: DataSet) -> Iterator[DataSetHub]:
    """Serve data sets of the owner `org`."""
    hub = DataSetHub(data_sets={f"org/{name}": one for name, one in data_sets.items()})
    hub.slow.set()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        hub.slow.set()
        server.shutdown()
        thread.join()
        server.server_close()
