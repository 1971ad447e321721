"""A small Hub over real HTTP: serves model folders as huggingface_hub asks for them."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_a_token_for_members"
_INFO = re.compile(r"/api/models/([^/]+/[^/]+?)(?:/revision/[^/]+)?")
_TREE = re.compile(r"/api/models/([^/]+/[^/]+)/tree/[^/]+")
_FILE = re.compile(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)")


@contextmanager
def serve_hub(models: dict[str, Path]) -> Iterator[tuple[str, list[str]]]:
    """Give the address, and the paths that were asked for; names with "private" want the token."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def answer(self, code: int, body: bytes, **headers: str) -> None:
            self.send_response(code)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_GET(self) -> None:
            path = unquote(self.path.partition("?")[0])
            asked.append(path)
            match = _FILE.fullmatch(path) or _TREE.fullmatch(path) or _INFO.fullmatch(path)
            name = match[1] if match else ""
            folder = models.get(name)
            if folder is None or (
                "private" in name and self.headers.get("Authorization") != f"Bearer {TOKEN}"
            ):
                words = json.dumps({"error": "Repository not found"}).encode()
                self.answer(401, words, X_Error_Code="RepoNotFound", X_Error_Message="not found")
                return
            names = sorted(file.name for file in folder.iterdir())
            if _FILE.fullmatch(path):
                content = (folder / match[2]).read_bytes()
                etag = hashlib.sha256(content).hexdigest()
                self.answer(200, content, ETag=f'"{etag}"', X_Repo_Commit=COMMIT)
            elif _TREE.fullmatch(path):
                tree = [
                    {"type": "file", "path": name, "size": (folder / name).stat().st_size,
                     "oid": "0" * 40}
                    for name in names
                ]  # fmt: skip
                self.answer(200, json.dumps(tree).encode())
            else:
                siblings = [{"rfilename": name} for name in names]
                info = {"id": name, "sha": COMMIT, "private": False, "siblings": siblings,
                        "tags": []}  # fmt: skip
                self.answer(200, json.dumps(info).encode())

        do_HEAD = do_GET

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
