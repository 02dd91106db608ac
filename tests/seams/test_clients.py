"""One behaviour, four clients: scripted, in this process, over HTTP to the real app, and a Ray actor in a cluster of
this machine; the real ones run the fake engine in a child process."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from contract.attempt_state import AttemptState
from contract.errors import (
    ArtifactCorruptError,
    AttemptConflictError,
    AttemptNotFinishedError,
    AttemptNotFoundError,
    TestbedBusyError,
    UnauthorizedError,
)
from contract.trial_result import AttemptStatus
from contract.trial_spec import EngineSpec, MeterSpec, ModelSpec, SamplingSpec, TrialSpec, WorkloadSpec
from contract.units import PROTOCOL_VERSION
from orchestrator.clients.base import TestbedClient as Client
from orchestrator.clients.fake_client import FakeClient
from orchestrator.clients.http_client import HttpClient
from orchestrator.clients.local_client import LocalClient
from orchestrator.clients.ray_client import RayClient
from orchestrator.clients.ray_testbeds import RayTestbeds
from testbed.http_api import create_app
from testbed.node import TestbedNode
from tests.ray_cluster import RayCluster

TOKEN = "seam-test-token-0123456789"
KINDS = ["fake", "local", "http", "ray"]


class App:
    """A node behind uvicorn on a free loopback port."""

    def __init__(self, node: TestbedNode) -> None:
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._server = uvicorn.Server(uvicorn.Config(create_app(node, TOKEN), log_level="error", lifespan="off"))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]})
        self._thread.start()

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestbedNode]:
    node = TestbedNode.open(tmp_path_factory.mktemp("node"), default_meter="fake")
    yield node
    node.close()


@pytest.fixture(scope="module")
def app(node: TestbedNode) -> Iterator[App]:
    app = App(node)
    yield app
    app.close()


@pytest.fixture(scope="module")
def ray_client(cluster: RayCluster) -> Iterator[RayClient]:
    with RayTestbeds(cluster.address, meter="fake") as testbeds:
        yield testbeds.clients[0]


@pytest.fixture(params=KINDS)
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    if request.param == "fake":
        yield FakeClient()
    elif request.param == "local":
        yield LocalClient(request.getfixturevalue("node"))  # the node outlives this client
    elif request.param == "ray":
        yield request.getfixturevalue("ray_client")
    else:
        http = HttpClient(request.getfixturevalue("app").url, TOKEN)
        yield http
        http.close()


@pytest.fixture
def attempt_id(request: pytest.FixtureRequest) -> str:
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.name)
    return f"{name.strip('-')}-{time.monotonic_ns()}"


def spec(*, tokens_per_s: float = 0.0, n_items: int = 2, **changes: Any) -> TrialSpec:
    return TrialSpec(
        experiment="seam",
        run_id="run_0_repetition_0",
        repetition=0,
        treatment={},
        seed=1,
        model=ModelSpec(name="fake", source="fake:small"),
        engine=EngineSpec(name="fake", options={"tokens_per_s": tokens_per_s}),
        sampling=SamplingSpec(max_tokens=64),
        workload=WorkloadSpec(name="fake", options={"n_items": n_items, "prompt_words": 16}),
        meter=MeterSpec(name="fake"),
    ).model_copy(update=changes)


def follow(client: Client, status: AttemptStatus) -> list[AttemptStatus]:
    seen = [status]
    deadline_s = time.monotonic() + 60
    while not seen[-1].state.is_final:
        assert time.monotonic() < deadline_s, seen
        seen.append(client.status(status.attempt_id, after_version=seen[-1].version, wait_s=5.0))
    return seen


def test_node_describes_itself(client: Client) -> None:
    info = client.node()
    assert info.protocol_version == PROTOCOL_VERSION
    assert info.running_attempt_id is None
    names = {(each.seam, each.name) for each in info.capabilities if each.available}
    assert {("engine", "fake"), ("workload", "fake"), ("meter", "fake")} <= names


def test_a_sound_trial_passes_the_check(client: Client) -> None:
    assert client.check([spec()]) == []


def test_an_attempt_from_submission_to_acknowledgement(client: Client, attempt_id: str, tmp_path: Path) -> None:
    seen = follow(client, client.submit(attempt_id, spec()))
    assert seen[-1].state is AttemptState.SUCCEEDED, seen[-1].error
    versions = [status.version for status in seen]
    assert versions == sorted(set(versions))
    result = client.result(attempt_id)
    assert (result.attempt_id, result.run_id, result.spec_sha256) == (attempt_id, spec().run_id, spec().sha256())
    assert result.artifacts
    client.fetch_artifacts(attempt_id, result.artifacts, tmp_path)
    for artifact in result.artifacts:
        assert (tmp_path / artifact.name).stat().st_size == artifact.size_bytes
    assert not list(tmp_path.glob("*.part"))
    assert client.acknowledge(attempt_id).state is AttemptState.SUCCEEDED
    assert client.acknowledge(attempt_id) == client.status(attempt_id)
    assert client.result(attempt_id) == result


def test_submitting_again_answers_where_it_is(client: Client, attempt_id: str) -> None:
    first = client.submit(attempt_id, spec())
    assert client.submit(attempt_id, spec()).spec_sha256 == first.spec_sha256
    final = follow(client, first)[-1]
    assert client.submit(attempt_id, spec()) == final
    with pytest.raises(AttemptConflictError):
        client.submit(attempt_id, spec(seed=2))


def test_a_submission_may_wait_and_acknowledges_what_is_known(client: Client, attempt_id: str) -> None:
    other = f"{attempt_id}-before"
    follow(client, client.submit(other, spec()))
    status = client.submit(attempt_id, spec(), wait_s=5.0, acknowledges=[other, "never-seen"])
    assert status.attempt_id == attempt_id
    follow(client, status)
    assert client.acknowledge(other).attempt_id == other


def test_one_trial_at_a_time_and_cancellation(client: Client, attempt_id: str) -> None:
    slow = spec(tokens_per_s=1.0, n_items=8)
    status = client.submit(attempt_id, slow)
    assert client.node().running_attempt_id == attempt_id
    with pytest.raises(TestbedBusyError) as busy:
        client.submit(f"{attempt_id}-other", slow)
    assert attempt_id in busy.value.message
    with pytest.raises(AttemptNotFinishedError):
        client.result(attempt_id)
    with pytest.raises(AttemptNotFinishedError):
        client.acknowledge(attempt_id)
    client.cancel(attempt_id)
    final = follow(client, status)[-1]
    assert final.state is AttemptState.CANCELLED
    assert client.result(attempt_id).state is AttemptState.CANCELLED
    assert client.cancel(attempt_id) == final


@pytest.mark.parametrize(
    "question",
    [
        lambda client: client.status("never-seen"),
        lambda client: client.result("never-seen"),
        lambda client: client.cancel("never-seen"),
        lambda client: client.acknowledge("never-seen"),
    ],
)
def test_an_unknown_attempt(client: Client, question: Callable[[Client], object]) -> None:
    with pytest.raises(AttemptNotFoundError):
        question(client)


def test_a_status_that_is_known_is_waited_for_no_longer_than_asked(client: Client, attempt_id: str) -> None:
    final = follow(client, client.submit(attempt_id, spec()))[-1]
    begin_s = time.monotonic()
    assert client.status(attempt_id, after_version=final.version, wait_s=20.0) == final
    assert time.monotonic() - begin_s < 5


def test_the_status_of_what_is_over_may_bring_its_result(client: Client, attempt_id: str) -> None:
    status = client.submit(attempt_id, spec(n_items=2))
    assert client.status(attempt_id, with_result=True).result is None or status.state.is_final
    follow(client, status)
    brought = client.status(attempt_id, with_result=True).result
    assert brought in (None, client.result(attempt_id))
    assert client.status(attempt_id).result is None


def test_a_file_that_is_not_what_the_result_says(client: Client, attempt_id: str, tmp_path: Path) -> None:
    if isinstance(client, FakeClient):
        pytest.skip("its artifacts verify by script: see test_controller.py")
    follow(client, client.submit(attempt_id, spec()))
    largest = max(client.result(attempt_id).artifacts, key=lambda artifact: artifact.size_bytes)
    artifact = largest.model_copy(update={"sha256": "0" * 64})
    with pytest.raises(ArtifactCorruptError):
        client.fetch_artifacts(attempt_id, [artifact], tmp_path)
    assert list(tmp_path.iterdir()) == []
    missing = artifact.model_copy(update={"name": "no-such-file"})
    with pytest.raises(AttemptNotFoundError):
        client.fetch_artifacts(attempt_id, [missing], tmp_path)


def test_telemetry_tells_what_runs_for_as_long_as_it_is_asked(client: Client, attempt_id: str) -> None:
    client.node()  # it answers, so it is there
    events = client.telemetry()
    assert next(events).attempt_id is None
    client.submit(attempt_id, spec(tokens_per_s=5.0))
    try:
        heard = next(event for event in events if event.attempt_id is not None)
        assert (heard.attempt_id, heard.run_id) == (attempt_id, "run_0_repetition_0")
        assert heard.state is not None
    finally:
        events.close()  # type: ignore[attr-defined]
        status = client.cancel(attempt_id)
        follow(client, status)


def test_a_wrong_token_opens_nothing(app: App) -> None:
    intruder = HttpClient(app.url, "another-token-0123456789")
    questions = (
        intruder.node,
        lambda: intruder.submit("a", spec()),
        lambda: intruder.status("a"),
        lambda: next(intruder.telemetry()),
    )
    for question in questions:
        with pytest.raises(UnauthorizedError):
            question()
    intruder.close()
