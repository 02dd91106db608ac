"""Stands in for the Hugging Face hub and for a release page: repositories of a few kilobytes, on loopback.

Speaks what the hub's client asks of the real one: description, list of files, access check, files with ranges.
"""

import hashlib
import io
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import polars as pl

from testbed.deploy.superglue_download import TASKS
from testbed.workloads.superglue_items import HUB_REPOSITORY
from testbed.workloads.superglue_task import find_task

TOKEN = "hf_stand_in"


@dataclass
class Repository:
    """What the hub would hold of one.

    Attributes:
        files: path -> content; .safetensors and .parquet are large files, kept by their hash.
        revision: its only commit.
        is_gated: whether it needs the token.
        sizes: path -> a size that the list claims instead of the real one.
    """

    files: dict[str, bytes]
    revision: str
    is_gated: bool = False
    sizes: dict[str, int] = field(default_factory=dict)


@dataclass
class Hub:
    """The running server's state; tests change it and read it.

    Attributes:
        url: of the hub.
        repositories: "models/ORG/NAME" or "datasets/ORG/NAME" -> repository.
        releases: path -> bytes of plain downloads.
        cut: path of a file -> bytes after which the connection is dropped, and nothing more of it is given.
        ranges: (path, Range header) of every request for a large file's bytes.
    """

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    releases: dict[str, bytes] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    ranges: list[tuple[str, str | None]] = field(default_factory=list)


def small_model(*, n_bytes: int = 300_000, is_gated: bool = True, revision: str = "") -> Repository:
    """A repository of a model's shape."""
    content = hashlib.shake_256(b"weights").digest(n_bytes)
    files = {
        "config.json": b'{"model_type": "llama"}',
        "tokenizer.json": b"{}",
        "model.safetensors": content,
        "original/consolidated.00.pth": b"pickle",
    }
    return Repository(files, revision or hashlib.sha1(content).hexdigest(), is_gated)


def superglue() -> Repository:
    """Parquet files of SuperGLUE's schema as the hub converts it: numbers for labels, spans flat."""
    files = {}
    for task in map(find_task, TASKS):
        rows = [
            {
                **{name: f"{task.name} {name} {index}" for name in task.columns},
                **({"question": "cause"} if task.name == "COPA" else {}),
                **({"span2_index": 1} if task.name == "WSC" else {}),
                "idx": index,
                "label": index % len(task.labels),
            }
            for index in range(4)
        ]
        buffer = io.BytesIO()
        pl.DataFrame(rows).write_parquet(buffer)
        files[f"{task.hub_config}/validation/0000.parquet"] = buffer.getvalue()
        files[f"{task.hub_config}/test/0000.parquet"] = b"no labels"
    return Repository(files, hashlib.sha1(b"superglue").hexdigest())


def _is_large(path: str) -> bool:
    return path.endswith((".safetensors", ".parquet"))


def _etag(path: str, content: bytes) -> str:
    return (hashlib.sha256 if _is_large(path) else hashlib.sha1)(content).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(self.path.partition("?")[0]).lstrip("/")
        if path in self.hub.releases:
            self._answer(200, self.hub.releases[path], name=path)
        elif match := re.fullmatch(
            r"api/((?:models|datasets)/[^/]+/[^/]+)(?:/(auth-check|tree|revision)(?:/(.+))?)?", path
        ):
            self._api(match[1], match[2])
        elif match := re.fullmatch(r"(datasets/)?([^/]+/[^/]+)/resolve/([0-9a-f]{40})/(.+)", path):
            self._file(f"{match[1] or 'models/'}{match[2]}", match[4])
        else:
            self._error(404, "RepoNotFound")

    def _repository(self, name: str) -> Repository | None:
        repository = self.hub.repositories.get(name)
        if repository is None:
            self._error(401, "RepoNotFound")
        return repository

    def _may_read(self, repository: Repository) -> bool:
        if repository.is_gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._error(401, "GatedRepo")
            return False
        return True

    def _api(self, name: str, what: str | None) -> None:
        repository = self._repository(name)
        if repository is None:
            return
        if what == "auth-check":
            if self._may_read(repository):
                self._answer(200, b"{}")
        elif what == "tree":
            self._answer(
                200, json.dumps([self._entry(repository, *item) for item in repository.files.items()]).encode()
            )
        else:
            siblings = [{"rfilename": path} for path in repository.files]
            document = {"id": name.partition("/")[2], "sha": repository.revision, "siblings": siblings}
            self._answer(200, json.dumps({**document, "tags": [], "downloads": 0, "private": False}).encode())

    def _entry(self, repository: Repository, path: str, content: bytes) -> dict[str, object]:
        size = repository.sizes.get(path, len(content))
        entry: dict[str, object] = {"type": "file", "path": path, "size": size, "oid": _etag(path, content)}
        if _is_large(path):
            entry["lfs"] = {"oid": _etag(path, content), "size": size, "pointerSize": 130}
        return entry

    def _file(self, name: str, path: str) -> None:
        repository = self._repository(name)
        if repository is None or not self._may_read(repository):
            return
        if path not in repository.files:
            self._error(404, "EntryNotFound")
            return
        content = repository.files[path]
        etag = _etag(path, content)
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": repository.revision, "X-Linked-Size": str(len(content))}
        if _is_large(path):
            headers["X-Linked-Etag"] = f'"{etag}"'
            if self.command == "GET":
                self.hub.ranges.append((path, self.headers.get("Range")))
        self._answer(200, content, headers, name=path)

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None, *, name: str = "") -> None:
        start = 0
        total = len(body)
        if match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or ""):
            start = int(match[1])
        limit = self.hub.cut.get(name) if self.command == "GET" else None
        if limit is not None and start > 0:
            # The line stays dead until the test mends it.
            self._error(503, "")
            return
        self.send_response(206 if start else status)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        self.send_header("Content-Length", str(total - start))
        self.send_header("Accept-Ranges", "bytes")
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[start:limit] if limit is not None else body[start:])
            if limit is not None:
                self.wfile.flush()
                self.close_connection = True

    def _error(self, status: int, code: str) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub for the length of a block, with the SuperGLUE items on it."""
    hub = Hub(repositories={f"datasets/{HUB_REPOSITORY}": superglue()})
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
