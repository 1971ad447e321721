"""A Hub over real HTTP: repositories with a history, LFS, tokens, and switches for faults.

`serve_publish_hub()` gives a `Hub`. Its `repos` are what is published, its `requests` what was
asked, and every `Fault` in its `faults` spoils requests. It stands by itself, so that a test of the
page may serve it too.
"""

import base64
import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

USER, ORGANISATION = "alice", "a-team"
WRITE_TOKEN = "hf_a_token_that_may_write"
READ_TOKEN = "hf_a_token_for_members"
_ROLES = {WRITE_TOKEN: "write", READ_TOKEN: "read"}
_LFS_BYTES, _LFS_ENDINGS = 10_000_000, (".safetensors", ".bin")
_REPO = re.compile(r"/api/models/([^/]+/[^/]+?)(?:/(preupload|commit|revision|tree)/?(.*))?")
_BATCH = re.compile(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch")
_FILE = re.compile(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)")


@dataclass
class Fault:
    """Spoils the requests whose "METHOD /path" begins with what `at` matches.

    Attributes:
        at: a regular expression.
        status: answer with this instead of the work; 0: do the work.
        headers: of that answer.
        skip: how many such requests pass first.
        times: how many are spoilt then.
        delay_seconds: pause first, or where `afterwards`, between the work and the answer.
        reset: cut the connection instead of answering.
        afterwards: the work is done and only its answer is spoilt.
        wrong_etag: the work is done, and the answer names another content.
        meanwhile: called first, such as for somebody else's commit.
    """

    at: str
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    skip: int = 0
    times: int = 1
    delay_seconds: float = 0.0
    reset: bool = False
    afterwards: bool = False
    wrong_etag: bool = False
    meanwhile: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class Asked:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Commit:
    """A state of a repository: all its files, by path."""

    oid: str
    parent: str
    summary: str
    files: dict[str, bytes]


@dataclass
class Repo:
    """A repository, its newest commit last."""

    private: bool
    commits: list[Commit]

    @property
    def head(self) -> Commit:
        return self.commits[-1]

    def add(self, files: dict[str, bytes], summary: str = "by somebody", oid: str = "") -> Commit:
        """Commit on top; files that are not named stay."""
        parent = self.head.oid if self.commits else ""
        content = {**(self.head.files if self.commits else {}), **files}
        seed = repr((parent, summary, len(self.commits), sorted(content))).encode()
        commit = Commit(
            oid or hashlib.sha1(seed, usedforsecurity=False).hexdigest(), parent, summary, content
        )
        self.commits.append(commit)
        return commit


def is_lfs(path: str, content: bytes) -> bool:
    return len(content) > _LFS_BYTES or path.endswith(_LFS_ENDINGS)


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass
class Hub:
    """What a test sees of the server."""

    url: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    requests: list[Asked] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    stored: dict[str, bytes] = field(default_factory=dict)
    parts: dict[str, dict[int, bytes]] = field(default_factory=dict)
    part_bytes: int = 5_000_000
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def add_repo(self, name: str, *, private: bool = True, files: dict[str, bytes] | None = None,
                 oid: str = "") -> Repo:  # fmt: skip
        """Make a repository as somebody else would."""
        repo = self.repos[name] = Repo(private, [])
        repo.add({".gitattributes": b"*.safetensors filter=lfs\n", **(files or {})}, "first", oid)
        return repo

    def spoil(self, line: str) -> Fault | None:
        """Find the fault that this request meets, and count it."""
        with self.lock:
            for fault in self.faults:
                if not re.match(fault.at, line):
                    continue
                if fault.skip:
                    fault.skip -= 1
                elif fault.times:
                    fault.times -= 1
                    return fault
        return None


class _Refused(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, words: str, code: str = "", **content: object) -> None:
        self.status, self.words, self.code, self.content = status, words, code, content


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None:
        pass

    def handle_any(self) -> None:
        body = self._read_body()
        path = unquote(self.path.partition("?")[0])
        with self.hub.lock:
            self.hub.requests.append(Asked(self.command, path, dict(self.headers), body))
            self.hub.paths.append(path)
        fault = self.hub.spoil(f"{self.command} {path}") or Fault("", times=0)
        fault.meanwhile()
        if not fault.afterwards:
            time.sleep(fault.delay_seconds)
        if fault.reset and not fault.afterwards:
            return self._cut()
        try:
            if fault.status and not fault.afterwards:
                raise _Refused(fault.status, "a fault of the test")
            with self.hub.lock:
                status, content, headers = 200, *self._work(path, body)
        except _Refused as refused:
            status = refused.status
            content = json.dumps({"error": refused.words, **refused.content}).encode()
            headers = {"X-Error-Code": refused.code, "X-Error-Message": refused.words,
                       **fault.headers}  # fmt: skip
        if fault.wrong_etag and "ETag" in headers:
            headers["ETag"] = '"0123456789"'
        if fault.afterwards:
            time.sleep(fault.delay_seconds)
            if fault.reset:
                return self._cut()
            if fault.status:
                status, content = fault.status, b"{}"
        self._answer(status, content, headers)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        content = b""
        while True:
            size = int(self.rfile.readline().strip() or b"0", 16)
            content += self.rfile.read(size)
            self.rfile.readline()
            if not size:
                return content

    def _answer(self, status: int, content: bytes, headers: Mapping[str, str]) -> None:
        try:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)
        except OSError:  # who asked did not wait for the answer
            self.close_connection = True

    def _cut(self) -> None:
        """Reset the connection: the other side gets no answer and no orderly end."""
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.close()
        self.close_connection = True

    def finish(self) -> None:
        try:
            super().finish()
        except (OSError, ValueError):  # cut on purpose
            pass

    def _work(self, path: str, body: bytes) -> tuple[bytes, dict[str, str]]:
        """Do what is asked; gives content and headers."""
        if path.startswith("/_store/"):
            return self._store(path.removeprefix("/_store/"), body)
        if path.startswith("/_complete/"):
            return self._complete(json.loads(body))
        if path == "/_verify":
            asked = json.loads(body)
            content = self.hub.stored.get(asked["oid"], b"")
            if (sha256(content), len(content)) != (asked["oid"], asked["size"]):
                raise _Refused(422, "The object is not what was announced")
            return _as_json({"message": "ok"})
        if path == "/api/whoami-v2":
            return self._whoami()
        if path == "/api/validate-yaml":
            text = json.loads(body)["content"]
            if not text.startswith("---\n"):
                raise _Refused(400, "bad card", errors=[{"message": "no front matter"}])
            return _as_json({"errors": [], "warnings": []})
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path == "/api/repos/delete":
            name, _ = self._named(json.loads(body))
            if self.hub.repos.pop(name, None) is None:
                raise _Refused(404, "Repository not found", "RepoNotFound")
            return _as_json({})
        batch = _BATCH.fullmatch(path)
        if batch:
            self._may_write(batch[1])
            return self._batch(json.loads(body))
        file = _FILE.fullmatch(path)
        if file:
            return self._resolve(file[1], file[2])
        found = _REPO.fullmatch(path)
        if found:
            return self._repo(found[1], found[2] or "", body)
        raise _Refused(404, f"There is nothing at {path}")

    def _role(self) -> str:
        return _ROLES.get(self.headers.get("Authorization", "").removeprefix("Bearer "), "")

    def _seen(self, name: str) -> Repo:
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and not self._role()):
            raise _Refused(404 if self._role() else 401, "Repository not found", "RepoNotFound")
        return repo

    def _may_write(self, name: str) -> Repo:
        repo = self._seen(name)
        if self._role() != "write":
            raise _Refused(403 if self._role() else 401, "You have no right to write here")
        return repo

    def _whoami(self) -> tuple[bytes, dict[str, str]]:
        role = self._role()
        if not role:
            raise _Refused(401, "Invalid credentials in Authorization header")
        token = {"displayName": "a token", "role": role}
        return _as_json({
            "type": "user", "name": USER, "fullname": "Alice",
            "orgs": [{"type": "org", "name": ORGANISATION}],
            "auth": {"type": "access_token", "accessToken": token},
        })  # fmt: skip

    def _named(self, asked: dict[str, Any]) -> tuple[str, str]:
        owner = asked.get("organization") or USER
        if not self._role():
            raise _Refused(401, "Invalid credentials in Authorization header")
        if self._role() != "write" or owner not in (USER, ORGANISATION):
            raise _Refused(403, f"You don't have the rights to do this under {owner}")
        name = f"{owner}/{asked['name']}"
        return name, f"{self.hub.url}/{name}"

    def _create(self, asked: dict[str, Any]) -> tuple[bytes, dict[str, str]]:
        name, url = self._named(asked)
        if name in self.hub.repos:
            raise _Refused(409, "You already created this model repo", url=url)
        self.hub.add_repo(name, private=asked.get("visibility") == "private")
        return _as_json({"url": url, "name": name, "id": name})

    def _store(self, place: str, body: bytes) -> tuple[bytes, dict[str, str]]:
        oid, _, number = place.partition("/")
        if number:
            self.hub.parts.setdefault(oid, {})[int(number)] = body
        else:
            self.hub.stored[oid] = body
        return b"", {"ETag": f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'}

    def _complete(self, asked: dict[str, Any]) -> tuple[bytes, dict[str, str]]:
        parts = self.hub.parts.get(asked["oid"], {})
        for part in asked["parts"]:
            content = parts.get(part["partNumber"], b"")
            if part["etag"].strip('"') != hashlib.md5(content, usedforsecurity=False).hexdigest():
                raise _Refused(400, f"Part {part['partNumber']} is not what was received")
        self.hub.stored[asked["oid"]] = b"".join(parts[number] for number in sorted(parts))
        return _as_json({})

    def _batch(self, asked: dict[str, Any]) -> tuple[bytes, dict[str, str]]:
        objects = []
        for wanted in asked["objects"]:
            oid, size = wanted["oid"], wanted["size"]
            entry: dict[str, Any] = {"oid": oid, "size": size}
            known = self.hub.stored.get(oid)
            if known is None or sha256(known) != oid:
                href, header = f"{self.hub.url}/_store/{oid}", {}
                if size > self.hub.part_bytes and "multipart" in asked["transfers"]:
                    numbers = range(1, -(-size // self.hub.part_bytes) + 1)
                    header = {f"{number:05d}": f"{href}/{number}" for number in numbers}
                    header["chunk_size"] = str(self.hub.part_bytes)
                    href = f"{self.hub.url}/_complete/{oid}"
                verify = {"href": f"{self.hub.url}/_verify"}
                upload = {"href": href, "header": header}
                entry["actions"] = {"upload": upload, "verify": verify}
            objects.append(entry)
        return _as_json({"transfer": "basic", "objects": objects})

    def _resolve(self, name: str, path: str) -> tuple[bytes, dict[str, str]]:
        repo = self._seen(name)
        content = repo.head.files.get(path)
        if content is None:
            raise _Refused(404, "Entry not found", "EntryNotFound")
        oid = sha256(content) if is_lfs(path, content) else git_oid(content)
        headers = {"X-Repo-Commit": repo.head.oid, "ETag": f'"{oid}"'}
        if is_lfs(path, content):
            headers |= {"X-Linked-Size": str(len(content)), "X-Linked-ETag": f'"{oid}"'}
        return content, headers

    def _repo(self, name: str, action: str, body: bytes) -> tuple[bytes, dict[str, str]]:
        if action == "preupload":
            files = self._may_write(name).head.files
            return _as_json({"files": [_mode(file, files) for file in json.loads(body)["files"]]})
        if action == "commit":
            return self._commit(name, self._may_write(name), body)
        repo = self._seen(name)
        if action == "tree":
            return _as_json([_entry(path, file) for path, file in sorted(repo.head.files.items())])
        siblings = [{"rfilename": path} for path in sorted(repo.head.files)]
        return _as_json({
            "_id": "0", "id": name, "modelId": name, "private": repo.private, "tags": [],
            "sha": repo.head.oid, "siblings": siblings, "downloads": 0, "likes": 0,
        })  # fmt: skip

    def _commit(self, name: str, repo: Repo, body: bytes) -> tuple[bytes, dict[str, str]]:
        lines = [json.loads(line) for line in body.splitlines() if line.strip()]
        header = lines[0]["value"]
        if header.get("parentCommit") not in (None, repo.head.oid):
            raise _Refused(412, "A commit has happened since. Please refresh and try again.")
        files = {}
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                content = self.hub.stored.get(value["oid"], b"")
                if (sha256(content), len(content)) != (value["oid"], value["size"]):
                    raise _Refused(400, f"The LFS object of {value['path']} is not there")
                files[value["path"]] = content
            else:
                raise _Refused(400, f"This Hub does not know {line['key']!r}")
        commit = repo.add(files, header["summary"])
        url = f"{self.hub.url}/{name}/commit/{commit.oid}"
        return _as_json({
            "success": True, "commitOid": commit.oid, "commitUrl": url, "hookOutput": "",
            "pullRequestUrl": None,
        })  # fmt: skip


def _as_json(content: object) -> tuple[bytes, dict[str, str]]:
    return json.dumps(content).encode(), {"Content-Type": "application/json"}


def _mode(file: dict[str, Any], files: dict[str, bytes]) -> dict[str, Any]:
    path, content = file["path"], files.get(file["path"])
    lfs = file["size"] > _LFS_BYTES or path.endswith(_LFS_ENDINGS)
    oid = None
    if content is not None:
        oid = sha256(content) if lfs else git_oid(content)
    return {"path": path, "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False,
            "oid": oid}  # fmt: skip


def _entry(path: str, content: bytes) -> dict[str, Any]:
    entry = {"type": "file", "path": path, "size": len(content), "oid": git_oid(content)}
    if is_lfs(path, content):
        lfs = {"oid": sha256(content), "size": len(content), "pointerSize": 130}
        return {**entry, "oid": "0" * 40, "lfs": lfs}
    return entry


@contextmanager
def serve_publish_hub(models: Mapping[str, Path] | None = None, *, oid: str = "") -> Iterator[Hub]:
    """Serve a Hub on a free port of this machine.

    Args:
        models: repositories that are there already; those with "private" in their name are.
        oid: the commit they are at.
    """
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    for name, folder in (models or {}).items():
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        hub.add_repo(name, private="private" in name, files=files, oid=oid)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
