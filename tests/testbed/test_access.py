"""Who gets in: limits on guessing, and TLS from end to end."""

import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import trustme
from starlette.responses import Response
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from contract import routes
from contract.errors import ErrorBody, TestbedUnreachableError, UsageError
from contract.failed_logins import MAX_FAILURES, WINDOW_S, FailedLogins
from contract.units import PROTOCOL_HEADER, PROTOCOL_VERSION
from orchestrator.clients.http_client import HttpClient
from testbed.http_guard import Guard
from testbed.server import load_certificate

TOKEN = "a-token-for-tests-only"


class Now:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        return self.s


async def inner(scope: Scope, receive: Receive, send: Send) -> None:
    await Response("in")(scope, receive, send)


def ask(now: Now, guard: Guard, token: str, address: str = "10.0.0.9") -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}", PROTOCOL_HEADER: str(PROTOCOL_VERSION)}
    return TestClient(guard, client=(address, 50000)).get(routes.NODE, headers=headers)


def test_an_address_that_guesses_has_to_wait() -> None:
    now = Now()
    guard = Guard(inner, TOKEN, now_s=now)
    codes = [ask(now, guard, f"guess-{index}").status_code for index in range(MAX_FAILURES + 1)]
    assert codes == [401] * MAX_FAILURES + [429]
    refused = ask(now, guard, TOKEN)
    assert refused.status_code == 429
    body = ErrorBody.model_validate_json(refused.content)
    assert (body.code, body.retryable) == ("too_many_failures", True)
    assert 0 < int(refused.headers["Retry-After"]) <= WINDOW_S
    assert ask(now, guard, TOKEN, "10.0.0.10").status_code == 200
    now.s += WINDOW_S
    assert ask(now, guard, TOKEN).status_code == 200


def test_who_shares_the_orchestrators_address_cannot_lock_it_out() -> None:
    now = Now()
    guard = Guard(inner, TOKEN, now_s=now)
    assert ask(now, guard, TOKEN).status_code == 200
    for index in range(3 * MAX_FAILURES):
        assert ask(now, guard, f"guess-{index}").status_code == 401
    assert ask(now, guard, TOKEN).status_code == 200


def test_liveness_is_never_refused() -> None:
    now = Now()
    guard = Guard(inner, TOKEN, now_s=now)
    for index in range(MAX_FAILURES + 1):
        ask(now, guard, f"guess-{index}")
    assert TestClient(guard, client=("10.0.0.9", 50000)).get(routes.LIVE).status_code == 200


def test_guessing_fills_no_log(caplog: pytest.LogCaptureFixture) -> None:
    now = Now()
    guard = Guard(inner, TOKEN, now_s=now)
    assert ask(now, guard, TOKEN).status_code == 200  # from now on this address is not refused unseen
    for index in range(10 * MAX_FAILURES):
        ask(now, guard, f"guess-{index}")
    lines = [record.getMessage() for record in caplog.records if record.name == "testbed.http_guard"]
    assert lines == ["A request from 10.0.0.9 was refused: its token is missing or wrong"] * 2
    now.s += WINDOW_S
    ask(now, guard, "guess")
    assert len([record for record in caplog.records if record.name == "testbed.http_guard"]) == 3


def test_failures_are_kept_in_bounded_memory() -> None:
    failed = FailedLogins(Now())
    for index in range(25_000):
        failed.note_failure(str(index))
        failed.note_success(str(index))
    assert len(failed._failures) == len(failed._known) == 10_000


@pytest.fixture
def authority(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A certificate authority's file, and a certificate and a key of 127.0.0.1."""
    ca = trustme.CA()
    leaf = ca.issue_cert("127.0.0.1")
    paths = (tmp_path / "ca.pem", tmp_path / "cert.pem", tmp_path / "key.pem")
    ca.cert_pem.write_to_path(paths[0])
    leaf.cert_chain_pems[0].write_to_path(paths[1])
    leaf.private_key_pem.write_to_path(paths[2])
    return paths


def test_tls_from_end_to_end(
    tmp_path: Path, authority: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    ca, cert, key = authority
    ready = tmp_path / "ready.json"
    command = [sys.executable, "-m", "testbed", "serve", "--port", "0", "--data-dir", str(tmp_path / "data")]
    command += ["--ready-file", str(ready), "--certfile", str(cert), "--keyfile", str(key)]
    served = subprocess.Popen(command, env={**os.environ, "JOULEBED_TOKEN": TOKEN})
    try:
        end_s = time.monotonic() + 60
        while not ready.exists():
            assert served.poll() is None and time.monotonic() < end_s
            time.sleep(0.05)
        url = httpx.Response(200, content=ready.read_bytes()).json()["url"]
        assert url.startswith("https://127.0.0.1:")
        monkeypatch.setenv("SSL_CERT_FILE", str(ca))
        client = HttpClient(url, TOKEN)
        assert client.node().protocol_version == PROTOCOL_VERSION
        client.close()
        monkeypatch.delenv("SSL_CERT_FILE")
        # An authority that nobody vouches for is not a testbed.
        stranger = HttpClient(url, TOKEN, unreachable_after_s=0.5)
        with pytest.raises(TestbedUnreachableError, match=r"(?i)certificate"):
            stranger.node()
        stranger.close()
    finally:
        served.terminate()
        served.wait(30)


def test_certificate_and_key_are_tried_before_anything_listens(
    tmp_path: Path, authority: tuple[Path, Path, Path]
) -> None:
    _, cert, key = authority
    other = tmp_path / "other.pem"
    trustme.CA().issue_cert("127.0.0.1").private_key_pem.write_to_path(other)
    assert load_certificate(None, None) is None
    assert load_certificate(cert, key) is not None
    for wrong in ((cert, None), (None, key), (cert, other), (tmp_path / "absent.pem", key)):
        with pytest.raises(UsageError, match=r"(?i)key"):
            load_certificate(*wrong)
