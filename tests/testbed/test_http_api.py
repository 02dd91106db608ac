"""The HTTP surface, over a real socket."""

import http.client
import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from prometheus_client.parser import text_string_to_metric_families

from contract import routes
from contract.attempt_state import AttemptState
from contract.errors import ErrorBody
from contract.failed_logins import FailedLogins
from contract.node_info import CheckReport, NodeInfo
from contract.security_headers import security_headers
from contract.telemetry import TelemetrySample
from contract.trial_result import AttemptStatus, TrialResult
from contract.trial_spec import TrialSpec
from contract.units import PROTOCOL_HEADER, PROTOCOL_VERSION
from testbed.http_api import create_app
from testbed.node import TestbedNode
from testbed.prometheus import exposition
from tests.contract.examples import EXAMPLES
from tests.testbed.node_doubles import make_node, spec, wait_final

TOKEN = "a-token-for-tests-only"
HEADERS = {"Authorization": f"Bearer {TOKEN}", PROTOCOL_HEADER: str(PROTOCOL_VERSION)}


@pytest.fixture
def node(tmp_path: Path) -> Iterator[TestbedNode]:
    node = make_node(tmp_path / "data")
    yield node
    node.close()


@pytest.fixture
def url(node: TestbedNode) -> Iterator[str]:
    bound = socket.create_server(("127.0.0.1", 0))
    app = create_app(node, TOKEN, max_body_bytes=20_000, telemetry_period_s=0.05)
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="error", lifespan="off", ws="none", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    node.end_waits()
    server.should_exit = True
    thread.join()
    bound.close()


@pytest.fixture
def client(url: str) -> Iterator[httpx.Client]:
    headers = {**HEADERS, "Content-Type": "application/json"}
    with httpx.Client(base_url=url, headers=headers, timeout=40) as client:
        yield client


def put(client: httpx.Client, attempt_id: str, trial: TrialSpec) -> httpx.Response:
    return client.put(f"/v1/attempts/{attempt_id}", content=trial.model_dump_json())


def error(response: httpx.Response, status: int, code: str) -> ErrorBody:
    assert response.status_code == status, response.text
    assert response.headers[PROTOCOL_HEADER] == str(PROTOCOL_VERSION)
    body = ErrorBody.model_validate_json(response.content)
    assert body.code == code
    return body


def test_a_trial_over_http(client: httpx.Client) -> None:
    trial = spec(sleep_s=0.3)
    answer = put(client, "a1", trial)
    assert answer.status_code == 200
    status = AttemptStatus.model_validate_json(answer.content)
    assert (status.state, status.spec_sha256) == (AttemptState.SUBMITTED, trial.sha256())
    error(client.get("/v1/attempts/a1/result"), 409, "attempt_not_finished")
    start_s = time.monotonic()
    while not status.state.is_final:
        answer = client.get("/v1/attempts/a1", params={"after_version": status.version, "wait_s": 20})
        status = AttemptStatus.model_validate_json(answer.content)
    assert time.monotonic() - start_s < 15
    result = TrialResult.model_validate_json(client.get("/v1/attempts/a1/result").content)
    assert result.state is AttemptState.SUCCEEDED
    assert put(client, "a1", trial).json()["state"] == "SUCCEEDED"
    assert client.delete("/v1/attempts/a1").json()["state"] == "SUCCEEDED"
    assert client.post("/v1/attempts/a1/acknowledgement").json()["state"] == "SUCCEEDED"


def test_node_and_check(client: httpx.Client) -> None:
    answer = client.get(routes.NODE)
    assert NodeInfo.model_validate_json(answer.content).temperatures[0].temp_c == 41.5
    assert answer.headers[PROTOCOL_HEADER] == str(PROTOCOL_VERSION)
    report = client.post(routes.CHECK, content=json.dumps({"specs": [spec().model_dump(mode="json")]}))
    assert CheckReport.model_validate_json(report.content).problems == []


def test_conflict_and_busy(client: httpx.Client) -> None:
    put(client, "a1", spec(sleep_s=30.0))
    error(put(client, "a1", spec(sleep_s=31.0)), 409, "attempt_conflict")
    busy = error(put(client, "a2", spec()), 409, "testbed_busy")
    assert busy.detail["running_attempt_id"] == "a1"
    assert busy.retryable
    assert client.delete("/v1/attempts/a1").status_code == 200


class TestAccess:
    @pytest.mark.parametrize("given", [None, "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", TOKEN, "Bearer é"])
    def test_every_route_but_live_wants_the_token(self, url: str, given: str | None) -> None:
        headers = {PROTOCOL_HEADER: str(PROTOCOL_VERSION)}
        if given is not None:
            headers["Authorization"] = given
        encoded = {name: value.encode("latin-1") for name, value in headers.items()}
        attempt = "/v1/attempts/a1"
        surface = [
            ("GET", routes.NODE),
            ("POST", routes.CHECK),
            ("PUT", attempt),
            ("GET", attempt),
            ("DELETE", attempt),
            ("GET", f"{attempt}/result"),
            ("GET", f"{attempt}/artifacts/x"),
            ("GET", f"{attempt}/artifacts?name=x"),
            ("POST", f"{attempt}/acknowledgement"),
            ("GET", routes.TELEMETRY),
            ("GET", "/v1/openapi.json"),
            ("GET", "/nowhere"),
        ]
        with httpx.Client(base_url=url, headers=encoded) as client:
            for method, path in surface:
                answer = client.request(method, path)
                error(answer, 401, "unauthorized")
                assert answer.headers["www-authenticate"] == "Bearer"
                assert TOKEN not in answer.text
            assert client.get(routes.LIVE).json() == {"live": True}

    def test_so_does_every_route_that_there_will_be(self, client: httpx.Client, url: str) -> None:
        surface = client.get("/v1/openapi.json").json()["paths"]
        asked = [(method, path) for path, methods in surface.items() for method in methods if path != routes.LIVE]
        assert len(asked) >= 10
        for method, path in asked:
            answer = httpx.request(method, url + re.sub(r"{\w+}", "a1", path))
            error(answer, 401, "unauthorized")

    @pytest.mark.parametrize("version", [None, "0", "999", "", "1.0", "x" * 500])
    def test_another_protocol_version_is_refused(self, url: str, version: str | None) -> None:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        if version is not None:
            headers[PROTOCOL_HEADER] = version
        body = error(httpx.get(url + routes.NODE, headers=headers), 426, "protocol_mismatch")
        assert "Install the same version" in body.message
        assert str(PROTOCOL_VERSION) in body.message
        assert len(body.message) < 300

    def test_an_app_without_a_token_is_not_made(self, node: TestbedNode) -> None:
        with pytest.raises(ValueError, match="empty token"):
            create_app(node, "")


class TestBadRequests:
    def test_unknown_routes_and_methods(self, client: httpx.Client) -> None:
        error(client.get("/v1/nothing"), 404, "invalid_request")
        error(client.patch("/v1/attempts/a1"), 405, "invalid_request")

    def test_unknown_attempts(self, client: httpx.Client) -> None:
        for method, path in [("GET", ""), ("DELETE", ""), ("GET", "/result"), ("POST", "/acknowledgement")]:
            error(client.request(method, f"/v1/attempts/a1{path}"), 404, "attempt_not_found")

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"experiment": 1}', b"\xff\xfe", b"[" * 5000])
    def test_what_is_no_spec(self, client: httpx.Client, content: bytes) -> None:
        body = error(client.put("/v1/attempts/a1", content=content), 422, "invalid_request")
        assert "The request" in body.message

    def test_a_wrong_field_is_named(self, client: httpx.Client) -> None:
        wrong: dict[str, Any] = {**spec().model_dump(mode="json"), "sed": 1}
        body = error(client.put("/v1/attempts/a1", json=wrong), 422, "invalid_request")
        assert "body.sed" in body.message

    def test_wrong_names_and_queries(self, client: httpx.Client) -> None:
        error(put(client, ".hidden", spec()), 422, "invalid_request")
        for query in ("wait_s=-1", "wait_s=nan", "wait_s=x", "after_version=x"):
            error(client.get(f"/v1/attempts/a1?{query}"), 422, "invalid_request")
        engine = spec().engine.model_copy(update={"name": "steam"})
        error(put(client, "a1", spec().model_copy(update={"engine": engine})), 422, "unknown_name")

    def test_large_bodies(self, client: httpx.Client) -> None:
        error(client.put("/v1/attempts/a1", content=b"x" * 20_001), 413, "invalid_request")
        chunks = (b"x" * 1000 for _ in range(30))
        error(client.put("/v1/attempts/a1", content=chunks), 413, "invalid_request")

    def test_a_fault_of_our_own_tells_no_secrets(self, client: httpx.Client, node: TestbedNode) -> None:
        node.info = lambda: 1 / 0  # type: ignore[method-assign, assignment, return-value]
        body = error(client.get(routes.NODE), 500, "internal")
        assert "ZeroDivisionError" in body.message
        assert "Traceback" not in body.model_dump_json()


class TestArtifacts:
    @pytest.fixture(autouse=True)
    def finished(self, node: TestbedNode) -> None:
        node.submit("a1", spec())
        wait_final(node, "a1")

    def test_whole_and_in_parts(self, client: httpx.Client) -> None:
        path = "/v1/attempts/a1/artifacts/data.bin"
        whole = client.get(path)
        assert whole.content == bytes(range(256)) * 4
        for header, start, end in [("bytes=1000-", 1000, 1024), ("bytes=10-19", 10, 20), ("bytes=-5", 1019, 1024)]:
            part = client.get(path, headers={"Range": header})
            assert part.status_code == 206
            assert part.content == whole.content[start:end]
            assert part.headers["content-range"] == f"bytes {start}-{end - 1}/1024"

    def test_small_ones_come_with_the_last_status(self, client: httpx.Client) -> None:
        status = AttemptStatus.model_validate_json(client.get("/v1/attempts/a1?with_result=true").content)
        assert status.result is not None
        assert set(status.contents) == {artifact.name for artifact in status.result.artifacts}
        assert status.contents["data.bin"] == client.get("/v1/attempts/a1/artifacts/data.bin").content
        assert client.get("/v1/attempts/a1").json()["contents"] == {}

    @pytest.mark.parametrize("header", ["bytes=1024-", "bytes=9-3", "bytes=0-1,5-6", "lines=1-2", "bytes=", "x"])
    def test_impossible_ranges(self, client: httpx.Client, header: str) -> None:
        answer = client.get("/v1/attempts/a1/artifacts/data.bin", headers={"Range": header})
        error(answer, 416, "invalid_request")
        assert answer.headers["content-range"] == "bytes */1024"

    @pytest.mark.parametrize(
        "name", ["spec.json", "process.json", "..%2Fa1%2Fdata.bin", "%2Fetc%2Fpasswd", "..", "%2e%2e%2f", "data.bin%00"]
    )
    def test_no_path_leads_elsewhere(self, client: httpx.Client, name: str) -> None:
        # Not by httpx, which would tidy the path up.
        connection = http.client.HTTPConnection("127.0.0.1", client.base_url.port, timeout=10)
        connection.request("GET", f"/v1/attempts/a1/artifacts/{name}", headers=HEADERS)
        answer = connection.getresponse()
        assert answer.status in (404, 422)
        ErrorBody.model_validate_json(answer.read())
        connection.close()


def test_telemetry_stream(client: httpx.Client, node: TestbedNode) -> None:
    node.submit("a1", spec(sleep_s=30.0))
    samples: list[TelemetrySample] = []
    with client.stream("GET", routes.TELEMETRY) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            if line.startswith("data: "):
                samples.append(TelemetrySample.model_validate_json(line.removeprefix("data: ")))
            if samples and samples[-1].power_w:
                break
    assert samples[-1].power_w == {"cpu": 7.0}
    assert samples[-1].state is AttemptState.MEASURING
    node.cancel("a1")
    wait_final(node, "a1")
    with client.stream("GET", routes.TELEMETRY) as stream:
        first = next(line for line in stream.iter_lines() if line.startswith("data: "))
    assert TelemetrySample.model_validate_json(first.removeprefix("data: ")).attempt_id is None


def test_many_long_polls_leave_room_for_others(client: httpx.Client, url: str) -> None:
    version = AttemptStatus.model_validate_json(put(client, "a1", spec(sleep_s=30.0)).content).version + 1000
    waiting = []
    for _ in range(50):
        connection = socket.create_connection(("127.0.0.1", int(url.rsplit(":", 1)[1])))
        lines = [f"GET /v1/attempts/a1?wait_s=20&after_version={version} HTTP/1.1", "Host: x"]
        lines += [f"{name}: {value}" for name, value in HEADERS.items()]
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        waiting.append(connection)
    time.sleep(0.3)
    start_s = time.monotonic()
    assert client.get(routes.NODE).status_code == 200
    assert time.monotonic() - start_s < 2.0
    client.delete("/v1/attempts/a1")
    for connection in waiting:
        connection.close()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", routes.LIVE, 200),
        ("GET", routes.NODE, 200),
        ("GET", routes.METRICS, 200),
        ("GET", "/v1/openapi.json", 200),
        ("GET", "/nowhere", 404),
        ("PUT", "/v1/attempts/a1", 422),
    ],
)
def test_answers_tell_browsers_to_keep_nothing_and_run_nothing(
    client: httpx.Client, method: str, path: str, status: int
) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    for name, value in security_headers().items():
        assert answer.headers.get_list(name) == [value]
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_even_refusals_and_faults_carry_them(client: httpx.Client, url: str, node: TestbedNode) -> None:
    node.info = lambda: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    for answer in (httpx.get(url + routes.NODE), client.get(routes.NODE)):
        assert answer.status_code in (401, 500)
        assert {name: answer.headers.get(name) for name in security_headers()} == security_headers()


def test_what_is_no_http_is_answered_by_the_server_itself(url: str) -> None:
    """As docs/security.md says: one line, of nobody's making."""
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"\x16\x03\x01 no http\r\n\r\n")
        answer = connection.makefile("rb").read()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ") and body == b"Invalid HTTP request received."
    assert PROTOCOL_HEADER.lower().encode() not in head.lower()


def test_importing_it_imports_no_engine() -> None:
    code = (
        "import sys, testbed.http_api, testbed.cli, testbed.server;"
        "print([name for name in ('torch', 'vllm', 'transformers', 'ray') if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


class TestMetrics:
    def test_of_a_trial(self, client: httpx.Client, url: str) -> None:
        before = samples(url)
        assert before["joulebed_attempts_total", "SUCCEEDED"] == 0.0
        assert not [name for name, _ in before if name.startswith("joulebed_last_trial")]
        put(client, "a1", spec(sleep_s=0.1))
        end_s = time.monotonic() + 30
        while (now := samples(url))["joulebed_attempts_total", "SUCCEEDED"] != 1.0:
            assert time.monotonic() < end_s, now
            time.sleep(0.05)
        assert now["joulebed_attempt_running", ""] == 0.0
        assert now["joulebed_attempt_state", "MEASURING"] == 0.0
        assert now["joulebed_attempts_total", "FAILED"] == 0.0
        assert 0 < now["joulebed_disk_free_bytes", ""] < now["joulebed_disk_size_bytes", ""]
        assert now["joulebed_temperature_celsius", "cpu"] == 41.5
        assert abs(now["joulebed_time_seconds", ""] - time.time()) < 60
        assert abs(now["joulebed_last_trial_end_time_seconds", ""] - time.time()) < 60

    def test_of_a_running_one(self, client: httpx.Client, url: str) -> None:
        put(client, "a1", spec(sleep_s=30.0))
        end_s = time.monotonic() + 30
        while (now := samples(url))["joulebed_attempt_state", "MEASURING"] != 1.0:
            assert time.monotonic() < end_s, now
            time.sleep(0.05)
        assert now["joulebed_attempt_running", ""] == 1.0
        client.delete("/v1/attempts/a1")

    def test_of_wrong_tokens(self, url: str) -> None:
        for _ in range(3):
            assert httpx.get(f"{url}{routes.METRICS}").status_code == 401
        assert samples(url)["joulebed_auth_failures_total", ""] == 3.0

    def test_energy_never_goes_without_its_method(self, node: TestbedNode) -> None:
        result = EXAMPLES["trial_result"]
        assert isinstance(result, TrialResult) and result.summary is not None
        node.last_result = lambda: result  # type: ignore[method-assign]
        text = exposition(node, FailedLogins(time.monotonic)).decode()
        (line,) = [line for line in text.splitlines() if line.startswith("joulebed_last_trial_energy_joules{")]
        assert f'method="{result.summary.method.value}"' in line
        assert line.endswith(f" {result.summary.energy_j}")


def samples(url: str) -> dict[tuple[str, str], float]:
    """(name, value of its one label or nothing) -> value, by Prometheus' own parser."""
    found = {}
    for family in text_string_to_metric_families(scrape(url).text):
        assert family.documentation and family.type != "unknown", family.name
        for sample in family.samples:
            label = next(iter(sample.labels.values())) if len(sample.labels) == 1 else ""
            assert (sample.name, label) not in found
            found[sample.name, label] = sample.value
    return found


def scrape(url: str) -> httpx.Response:
    # As Prometheus asks: with the token, without a protocol version.
    answer = httpx.get(f"{url}{routes.METRICS}", headers={"Authorization": HEADERS["Authorization"]})
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain")
    return answer
