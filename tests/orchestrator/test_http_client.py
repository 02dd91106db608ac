"""The HTTP client against a small server over real sockets, which misbehaves on demand."""

import hashlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from contract.attempt_state import AttemptState
from contract.errors import (
    ArtifactCorruptError,
    ConfigError,
    ErrorBody,
    JouleBedError,
    ModelNotFoundError,
    ProtocolMismatchError,
    TestbedUnreachableError,
    TooManyListenersError,
    UnauthorizedError,
)
from contract.node_info import CheckReport
from contract.telemetry import TelemetrySample
from contract.trial_result import ArtifactRef, AttemptStatus
from contract.units import PROTOCOL_HEADER, PROTOCOL_VERSION
from orchestrator.clients import http_client
from orchestrator.clients.event_stream import event_data
from orchestrator.clients.fake_client import FakeClient
from orchestrator.clients.http_client import HttpClient, read_token
from orchestrator.pool_file import entries_of
from tests.contract.examples import EXAMPLES, SPEC
from tests.orchestrator.doubles import spec

TOKEN = "0123456789abcdef"
CONTENT = bytes(range(256)) * 4096

Behaviour = Callable[["Handler"], None]
Serve = Callable[..., tuple[HttpClient, "Server"]]


class Handler(BaseHTTPRequestHandler):
    """Answers with the next behaviour of its server's list, then with the last one for ever."""

    server: "Server"
    protocol_version = "HTTP/1.1"

    def _any(self) -> None:
        n_bytes = int(self.headers.get("Content-Length", 0))
        self.body = self.rfile.read(n_bytes)
        self.server.requests.append((self.command, self.path, dict(self.headers)))
        behaviours = self.server.behaviours
        behaviour = behaviours.pop(0) if len(behaviours) > 1 else behaviours[0]
        behaviour(self)

    do_GET = do_PUT = do_POST = do_DELETE = _any

    def answer(self, content: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        values = {PROTOCOL_HEADER: str(PROTOCOL_VERSION), "Content-Type": "application/json"}
        values |= {name.replace("_", "-"): value for name, value in headers.items()}
        values.setdefault("Content-Length", str(len(content)))
        for name, value in values.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    behaviours: list[Behaviour]
    requests: list[tuple[str, str, dict[str, str]]]


@pytest.fixture
def serve() -> Iterator[Callable[..., tuple[HttpClient, Server]]]:
    opened: list[tuple[HttpClient, Server]] = []

    def start(*behaviours: Behaviour, unreachable_after_s: float = 2.0) -> tuple[HttpClient, Server]:
        server = Server(("127.0.0.1", 0), Handler)
        server.behaviours, server.requests = list(behaviours), []
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        client = HttpClient(f"http://127.0.0.1:{server.server_port}", TOKEN, unreachable_after_s=unreachable_after_s)
        opened.append((client, server))
        return client, server

    yield start
    for client, server in opened:
        client.close()
        server.shutdown()
        server.server_close()


def node(handler: Handler) -> None:
    handler.answer(FakeClient().node().model_dump_json().encode())


def drop(handler: Handler) -> None:
    handler.close_connection = True


def reset(handler: Handler) -> None:
    """Close in the middle of a body."""
    handler.answer(b'{"protocol', Content_Length="500")
    handler.wfile.flush()
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def bad_gateway(handler: Handler) -> None:
    handler.answer(b"<html>502 Bad Gateway</html>", 502, **{PROTOCOL_HEADER: "", "Content_Type": "text/html"})


def page(handler: Handler) -> None:
    handler.answer(b"<html>It works!</html>", 200, **{PROTOCOL_HEADER: "", "Content_Type": "text/html"})


def error(status: int, body: ErrorBody, version: int = PROTOCOL_VERSION) -> Behaviour:
    return lambda handler: handler.answer(body.model_dump_json().encode(), status, **{PROTOCOL_HEADER: str(version)})


def status_answer(handler: Handler) -> None:
    handler.answer(FakeClient().submit("a1", spec(0)).model_dump_json().encode())


Serve = Callable[..., tuple[HttpClient, Server]]


def test_sends_token_and_version(serve: Serve) -> None:
    client, server = serve(node)
    assert client.node().identity.hostname == "fake"
    _, path, headers = server.requests[0]
    assert path == "/v1/node"
    assert headers["Authorization"] == f"Bearer {TOKEN}"
    assert headers[PROTOCOL_HEADER] == str(PROTOCOL_VERSION)


@pytest.mark.parametrize("trouble", [drop, reset, bad_gateway])
def test_trouble_on_the_way_is_tried_again(serve: Serve, trouble: Behaviour) -> None:
    client, server = serve(trouble, trouble, status_answer)
    assert client.submit("a1", spec(0)).state is AttemptState.SUBMITTED
    assert [method for method, _, _ in server.requests] == ["PUT"] * 3


def test_a_trouble_that_stays_is_an_unreachable_testbed(serve: Serve) -> None:
    client, server = serve(bad_gateway, unreachable_after_s=0.5)
    begin_s = time.monotonic()
    with pytest.raises(TestbedUnreachableError, match="502"):
        client.node()
    assert 0.4 < time.monotonic() - begin_s < 5
    assert len(server.requests) > 2


def test_nobody_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    client = HttpClient(url, TOKEN, unreachable_after_s=0.3)
    with pytest.raises(TestbedUnreachableError) as caught:
        client.node()
    assert url in caught.value.message and "testbed serve" in caught.value.message
    assert TOKEN not in caught.value.message
    client.close()


def test_an_error_comes_back_as_its_own_class_and_is_not_repeated(serve: Serve) -> None:
    body = ModelNotFoundError("There is no model x. Copy it there.", model="x").body()
    client, server = serve(error(422, body))
    with pytest.raises(ModelNotFoundError) as caught:
        client.submit("a1", spec(0))
    assert caught.value.body() == body
    assert len(server.requests) == 1


def test_a_fault_with_a_reason_is_not_repeated(serve: Serve) -> None:
    client, server = serve(error(500, ErrorBody(code="internal", message="The testbed failed.")))
    with pytest.raises(JouleBedError, match="The testbed failed"):
        client.node()
    assert len(server.requests) == 1


def test_wrong_token(serve: Serve) -> None:
    client, _ = serve(error(401, UnauthorizedError("The bearer token is wrong.").body()))
    with pytest.raises(UnauthorizedError):
        client.node()


@pytest.mark.parametrize(("theirs", "upgrade"), [(PROTOCOL_VERSION + 1, "this machine"), (0, "the testbed")])
def test_another_version_names_both_and_what_to_upgrade(serve: Serve, theirs: int, upgrade: str) -> None:
    answers = [
        error(426, ErrorBody(code="protocol_mismatch", message="Mine is another."), theirs),
        lambda handler: handler.answer(json.dumps({"new": 1}).encode(), **{PROTOCOL_HEADER: str(theirs)}),
        lambda handler: handler.answer(json.dumps({"protocol_version": theirs}).encode()),
    ]
    for answer in answers:
        client, _ = serve(answer)
        with pytest.raises(ProtocolMismatchError) as caught:
            client.node()
        assert f"version {theirs}" in caught.value.message
        assert f"version {PROTOCOL_VERSION}" in caught.value.message
        assert f"on {upgrade}" in caught.value.message


@pytest.mark.parametrize(
    "answer",
    [
        page,
        lambda handler: handler.answer(b'{"hello": "printer"}', **{PROTOCOL_HEADER: ""}),
        lambda handler: handler.answer(b'{"hello": "printer"}'),
        lambda handler: handler.answer(b"", 302, Location="/login", **{PROTOCOL_HEADER: ""}),
        lambda handler: handler.answer(b"[1]", **{PROTOCOL_HEADER: ""}),
        lambda handler: handler.answer(b"not found", 404),
    ],
)
def test_something_else_answers(serve: Serve, answer: Behaviour) -> None:
    client, server = serve(answer)
    with pytest.raises(TestbedUnreachableError, match="not a JouleBed testbed") as caught:
        client.node()
    assert client.url in caught.value.message
    assert len(server.requests) == 1


def test_long_poll_waits_longer_than_the_server(serve: Serve) -> None:
    def slow(handler: Handler) -> None:
        time.sleep(0.3)
        status_answer(handler)

    client, server = serve(slow)
    assert client.status("a1", after_version=3, wait_s=99.0).version == 0
    assert server.requests[0][1] == "/v1/attempts/a1?wait_s=30&after_version=3"


def test_check_is_sent_in_parts(serve: Serve) -> None:
    client, server = serve(lambda handler: handler.answer(CheckReport(problems=[]).model_dump_json().encode()))
    specs = [spec(number) for number in range(1500)]
    assert client.check(specs) == []
    sizes = [int(headers["Content-Length"]) for _, _, headers in server.requests]
    assert len(sizes) > 1
    assert max(sizes) < 1024 * 1024
    assert client.check([]) == []
    assert len(server.requests) == len(sizes)


def artifact(content: bytes = CONTENT) -> ArtifactRef:
    return ArtifactRef(name="data.bin", size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def ranged(content: bytes, *, stop_after: int | None = None, honours: bool = True) -> Behaviour:
    """Serves a file; `stop_after` bytes the connection breaks."""

    def behave(handler: Handler) -> None:
        wanted = handler.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and honours else 0
        part = content[start:]
        headers = {"Content_Length": str(len(part))}
        if wanted and honours:
            headers["Content_Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        handler.answer(part[:stop_after], 206 if wanted and honours else 200, **headers)
        if stop_after is not None:
            handler.wfile.flush()
            handler.connection.shutdown(socket.SHUT_RDWR)
            handler.close_connection = True

    return behave


def ranges(server: Server) -> list[str | None]:
    return [headers.get("Range") for _, _, headers in server.requests]


def test_a_download_goes_on_where_it_broke(serve: Serve, tmp_path: Path) -> None:
    client, server = serve(ranged(CONTENT, stop_after=300_000), ranged(CONTENT))
    client.fetch_artifacts("a1", [artifact()], tmp_path)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    first, second = ranges(server)
    assert first is None
    assert second is not None and 0 < int(second.removeprefix("bytes=").rstrip("-")) <= 300_000
    assert [path.name for path in tmp_path.iterdir()] == ["data.bin"]


def test_a_download_of_an_earlier_process_counts(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "data.bin.part").write_bytes(CONTENT[:1000])
    client, server = serve(ranged(CONTENT))
    client.fetch_artifacts("a1", [artifact()], tmp_path)
    assert ranges(server) == ["bytes=1000-"]
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    client.fetch_artifacts("a1", [artifact()], tmp_path)
    assert len(server.requests) == 1


def test_a_server_that_ignores_ranges_starts_over(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "data.bin.part").write_bytes(b"x" * 1000)
    client, _ = serve(ranged(CONTENT, honours=False))
    client.fetch_artifacts("a1", [artifact()], tmp_path)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT


def test_a_wrong_part_is_thrown_away_and_fetched_afresh(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "data.bin.part").write_bytes(b"x" * 1000)
    client, server = serve(ranged(CONTENT))
    client.fetch_artifacts("a1", [artifact()], tmp_path)
    assert (tmp_path / "data.bin").read_bytes() == CONTENT
    assert ranges(server) == ["bytes=1000-", None]


@pytest.mark.parametrize("content", [CONTENT[:-1], CONTENT + b"x", CONTENT[::-1]])
def test_a_file_that_never_verifies(serve: Serve, tmp_path: Path, content: bytes) -> None:
    client, server = serve(ranged(content))
    with pytest.raises(ArtifactCorruptError, match=r"data\.bin"):
        client.fetch_artifacts("a1", [artifact()], tmp_path)
    assert len(server.requests) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_part_longer_than_the_testbeds_file(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "data.bin.part").write_bytes(b"x" * 1000)

    def refuse(handler: Handler) -> None:
        handler.answer(ErrorBody(code="invalid_request", message="No such range.").model_dump_json().encode(), 416)

    client, server = serve(refuse, ranged(CONTENT))
    client.fetch_artifacts("a1", [artifact()], tmp_path)
    assert ranges(server) == ["bytes=1000-", None]


def small(name: str, content: bytes) -> ArtifactRef:
    return ArtifactRef(name=name, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def brought(contents: dict[str, bytes]) -> Callable[[Any], None]:
    status = EXAMPLES["attempt_status"].model_copy(update={"attempt_id": "a1", "contents": contents})
    return lambda handler: handler.answer(status.model_dump_json().encode())


def test_files_that_came_with_the_status_are_not_asked_for(serve: Serve, tmp_path: Path) -> None:
    files = {"a.csv": b"aa", "b.csv": b"", "c.bin": bytes(range(256))}
    client, server = serve(brought(files))
    assert client.status("a1", with_result=True).contents == {}
    client.fetch_artifacts("a1", [small(name, content) for name, content in files.items()], tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files
    assert len(server.requests) == 1


def test_what_did_not_come_or_does_not_verify_is_fetched(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_bytes(b"dd")
    client, server = serve(brought({"a.csv": b"aa", "b.csv": b"bXb", "d.csv": b"XX"}), ranged(b"bbb"), ranged(CONTENT))
    client.submit("a1", SPEC, wait_s=1.0)
    wanted = [small("a.csv", b"aa"), small("b.csv", b"bbb"), artifact(), small("d.csv", b"dd")]
    client.fetch_artifacts("a1", wanted, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "b.csv", "d.csv", "data.bin"]
    assert (tmp_path / "b.csv").read_bytes() == b"bbb"
    assert [path.rpartition("/")[2] for _, path, _ in server.requests[1:]] == ["b.csv", "data.bin"]


def test_what_came_for_another_attempt_is_not_taken(serve: Serve, tmp_path: Path) -> None:
    client, server = serve(brought({"a.csv": b"aa"}), ranged(b"aa"))
    client.status("a1", with_result=True)
    client.fetch_artifacts("a2", [small("a.csv", b"aa")], tmp_path)
    assert server.requests[-1][1] == "/v1/attempts/a2/artifacts/a.csv"


def test_a_submission_acknowledges_others_on_its_way(serve: Serve) -> None:
    client, server = serve(brought({}))
    client.submit("a1", SPEC, wait_s=0.1, acknowledges=["x1", "x2"])
    assert server.requests[0][1] == "/v1/attempts/a1?wait_s=0.1&acknowledges=x1&acknowledges=x2"


def test_token_comes_from_file_or_environment(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    assert read_token(file, {}) == TOKEN
    assert read_token(None, {"JOULEBED_TOKEN": TOKEN}) == TOKEN
    for missing in ({}, {"JOULEBED_TOKEN": " "}):
        with pytest.raises(ConfigError, match="JOULEBED_TOKEN"):
            read_token(None, missing)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_token(tmp_path / "none", {})
    file.write_text("two\nlines")
    with pytest.raises(ConfigError, match="one line"):
        read_token(file, {})


@pytest.mark.parametrize(
    "url", ["gpu-box:8765", "ftp://gpu-box", "http://", "http://[::1", "http://gpu\nbox", " http://gpu-box:8765", ""]
)
def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(ConfigError, match="like http://gpu-box:8765"):
        HttpClient(url, TOKEN)


SECRET_URLS = (
    "http://user:hunter2@gpu-box",
    "http://hunter2@gpu-box:8765",
    "ftp://user:hunter2@gpu-box",
    "http://user:hunter2@gpu-box:no-port",
    "user:hunter2@gpu-box:8765",
    "http://user:hunter2%40gpu-box:8765",
    "http://gpu-box:8765?token=hunter2",
    "http://gpu-box:8765/#hunter2",
    "http://user:hunter2",
    "http://user:hunter2 ",
)


@pytest.mark.parametrize("url", SECRET_URLS)
def test_a_url_with_a_secret_is_refused_and_not_repeated(url: str, tmp_path: Path) -> None:
    pool = tmp_path / "pool.toml"
    pool.write_text(f'[[testbed]]\nurl = "{url}"\n')
    for take in (lambda: HttpClient(url, TOKEN), lambda: entries_of([url, url], None), lambda: entries_of((), pool)):
        with pytest.raises(ConfigError) as caught:
            take()
        assert "hunter2" not in caught.value.message
    assert "line 2" in caught.value.message


def test_clock_difference(serve: Serve) -> None:
    client, _ = serve(lambda handler: handler.answer(b'{"live": true}'))
    offset_s = client.clock_offset_s()
    assert offset_s is not None and abs(offset_s) <= 2


def test_status_version_zero_is_an_answer(serve: Serve) -> None:
    client, _ = serve(status_answer)
    assert isinstance(client.cancel("a1"), AttemptStatus)
    assert isinstance(client.acknowledge("a1"), AttemptStatus)


def events_of(*bodies: bytes) -> Behaviour:
    """A stream of server-sent events that breaks off after the last one."""

    def behaviour(handler: Handler) -> None:
        with suppress(ConnectionError):  # a client that has enough of it goes away
            handler.answer(b"".join(bodies), Content_Type="text/event-stream", Content_Length="100000000")
        handler.close_connection = True

    return behaviour


def event(attempt_id: str) -> bytes:
    sample = TelemetrySample(event_id=f"{attempt_id}:0:0", attempt_id=attempt_id, at=datetime(2026, 11, 21, tzinfo=UTC))
    return f"id: {sample.event_id}\ndata: {sample.model_dump_json()}\n\n".encode()


class TestTelemetry:
    def test_events_come_one_by_one_and_the_end_of_the_stream_is_told(self, serve: Serve) -> None:
        client, server = serve(events_of(event("a1"), b": a comment\n\n", event("a2"), b"data: {"))
        heard = []
        with pytest.raises(TestbedUnreachableError, match="broke off"):
            heard += [sample.attempt_id for sample in client.telemetry("a0:1234:5")]
        assert server.requests[0][2]["Last-Event-ID"] == "a0:1234:5"

    def test_what_came_before_it_broke_off_is_not_lost(self, serve: Serve) -> None:
        client, _ = serve(events_of(event("a1"), event("a2")))
        events = client.telemetry()
        assert [next(events).attempt_id, next(events).attempt_id] == ["a1", "a2"]
        with pytest.raises(TestbedUnreachableError):
            next(events)

    @pytest.mark.parametrize("data", [b"data: {}\n\n", b"data: nonsense\n\n", b"data: " + b"x" * 9_000_000])
    def test_of_something_else(self, serve: Serve, data: bytes) -> None:
        client, _ = serve(events_of(data))
        with pytest.raises(TestbedUnreachableError):
            next(client.telemetry())

    def test_a_refusal_is_its_own_error(self, serve: Serve) -> None:
        body = TooManyListenersError("Eight listen already. Close one.").body().model_dump_json().encode()
        client, _ = serve(lambda handler: handler.answer(body, 503))
        with pytest.raises(TooManyListenersError, match="Eight"):
            next(client.telemetry())


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_events_may_be_cut_anywhere(size: int) -> None:
    body = b"id: 1\r\ndata: one\r\n\r\nretry: 5\n\ndata:two\ndata: three\n\ndata: never ended\n"
    chunks = [body[begin : begin + size] for begin in range(0, len(body), size)]
    assert list(event_data(chunks)) == [b"one", b"two\nthree"]


def test_certificates_are_checked_and_read_once() -> None:
    context = http_client._certificates()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert http_client._certificates() is context
