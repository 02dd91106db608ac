"""A bad network between the nodes: an HTTP proxy that breaks what passes, by a seed or by a script."""

import contextlib
import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

FAULTS = (
    "drop_request",
    "half_request",
    "drop_answer",
    "reset_mid_body",
    "cut_body",
    "latency",
    "duplicate",
    "late_duplicate",
    "overtaken",
)
"""Never sent on; connection reset in the middle of the request; carried out but never answered; connection reset, or
closed, in the middle of the answer; delayed; carried out twice; carried out again long after other requests; reset at
once and carried out long after other requests, the repetition of itself among them."""

KINDS = ("live", "node", "check", "submit", "poll", "result", "artifact", "acknowledge", "cancel")
"""Of messages: see `contract.routes`."""

_RESET = struct.pack("ii", 1, 0)
"""With a linger of 0, closing sends a reset instead of an orderly end."""

_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "host", "date", "server"})


def kind_of(method: str, path: str) -> str:
    """Which message a request is; one of `KINDS`, else its path."""
    path = path.partition("?")[0]
    parts = path.strip("/").split("/")[1:]
    if len(parts) == 1 and parts[0] in KINDS:
        return parts[0]
    if len(parts) == 2:
        return {"PUT": "submit", "DELETE": "cancel"}.get(method, "poll")
    last = parts[2] if len(parts) > 2 else path
    if last == "artifacts":
        return "artifact"
    return "acknowledge" if last == "acknowledgement" else last


class FaultProxy:
    """Stands between orchestrator and testbed. A context manager.

    Args:
        upstream: URL of the testbed.
        seed: of the faults.
        rate: share of requests that meet one.
        faults: kinds to choose from.
        latency_s: of `latency`.
        late_s: after which a `late_duplicate` arrives.
        every_other: every first, third, ... message of each kind meets a fault, and every other one passes.
    """

    def __init__(
        self,
        upstream: str,
        *,
        seed: int = 0,
        rate: float = 0.0,
        faults: Sequence[str] = FAULTS,
        latency_s: float = 0.3,
        late_s: float = 2.0,
        every_other: bool = False,
    ) -> None:
        parts = urlsplit(upstream)
        self._upstream = (str(parts.hostname), int(parts.port or 80))
        self._chance = random.Random(seed)
        self._rate = rate
        self._faults = tuple(faults)
        self._latency_s = latency_s
        self._late_s = late_s
        self._every_other = every_other
        self._seen: Counter[str] = Counter()
        self._partition_end_s = 0.0
        self._lock = threading.Lock()
        self._late: list[threading.Timer] = []
        self.met: Counter[str] = Counter()
        """How often each fault was met."""
        self.met_at: Counter[tuple[str, str]] = Counter()
        """The same by kind of message and fault."""
        self.n_requests = 0
        proxy = self

        class Handler(_Handler):
            owner = proxy

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "FaultProxy":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._rate, self._every_other = 0.0, False
        for timer in self._late:
            timer.join()
        self._server.shutdown()
        self._server.server_close()

    def partition(self, seconds: float) -> None:
        """From now on, for a while, nothing passes."""
        self._partition_end_s = time.monotonic() + seconds

    def choose(self, kind: str) -> str:
        """The fault of the next request, of a kind; empty for none."""
        with self._lock:
            self.n_requests += 1
            self._seen[kind] += 1
            if time.monotonic() < self._partition_end_s:
                fault = "partition"
            elif (self._every_other and self._seen[kind] % 2) or self._chance.random() < self._rate:
                fault = self._chance.choice(self._faults)
            else:
                return ""
            self.met[fault] += 1
            self.met_at[kind, fault] += 1
            return fault

    def forward_half(self, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        """The first half of a request, and a reset."""
        lines = [f"{method} {path} HTTP/1.1", "Host: testbed", *(f"{name}: {text}" for name, text in headers.items())]
        raw = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body
        with contextlib.suppress(OSError), socket.create_connection(self._upstream, timeout=10) as connection:
            connection.sendall(raw[: len(raw) // 2])
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    def forward(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, Any, bytes]:
        """Ask the testbed; a new connection each time, as after a real fault."""
        connection = http.client.HTTPConnection(*self._upstream, timeout=60)
        try:
            connection.request(method, path, body=body or None, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def forward_late(self, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        """The same request once more, when everybody has forgotten it."""

        def again() -> None:
            with contextlib.suppress(OSError):  # the testbed may be gone by then
                self.forward(method, path, headers, body)

        timer = threading.Timer(self._late_s, again)
        timer.start()
        self._late.append(timer)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: FaultProxy

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP}
        fault = self.owner.choose(kind_of(self.command, self.path))
        request = (self.command, self.path, headers, body)
        if fault in ("drop_request", "partition", "half_request", "overtaken"):
            if fault == "half_request":
                self.owner.forward_half(*request)
            elif fault == "overtaken":
                self.owner.forward_late(*request)
            self._break()
            return
        if fault == "latency":
            time.sleep(self.owner._latency_s)
        try:
            if fault == "duplicate":
                self.owner.forward(*request)
            status, answer_headers, content = self.owner.forward(*request)
        except OSError:
            self._break()
            return
        if fault == "late_duplicate":
            self.owner.forward_late(*request)
        if fault == "drop_answer":
            self._break()
            return
        self.send_response_only(status)
        for name, value in answer_headers.items():
            if name.lower() not in _HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if fault in ("reset_mid_body", "cut_body"):
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            self._break(reset=fault == "reset_mid_body")
            return
        self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_DELETE = handle_any

    def _break(self, *, reset: bool = True) -> None:
        self.close_connection = True
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.connection.close()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a fault would fill the screen."""

    def handle(self) -> None:
        try:
            super().handle()
        except (OSError, ValueError):
            self.close_connection = True  # what we broke is broken

    def finish(self) -> None:
        try:
            super().finish()
        except (OSError, ValueError):
            self.close_connection = True
