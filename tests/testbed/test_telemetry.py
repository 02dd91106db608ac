"""What a listener hears of a running trial: real children, real meters, over real sockets."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import httpx
import pytest
import uvicorn

from contract import routes
from contract.attempt_state import AttemptState
from contract.errors import TooManyListenersError
from contract.node_info import TemperatureReading
from contract.telemetry import TelemetrySample
from contract.trial_result import AttemptStatus
from contract.trial_spec import EngineSpec, MeterSpec, ModelSpec, SamplingSpec, TrialSpec, WorkloadSpec
from contract.units import PROTOCOL_HEADER, PROTOCOL_VERSION
from orchestrator.clients.http_client import HttpClient
from testbed.clock import SystemClock
from testbed.http_api import create_app
from testbed.live_socket import LIVE_SOCKET
from testbed.meters.live_feed import LiveFeed, LiveSeries
from testbed.meters.sampler import Samples
from testbed.node import TestbedNode
from testbed.telemetry.board import LINGER_S, MAX_LISTENERS, STALE_S, Running, TelemetryBoard
from tests.testbed.node_doubles import wait_final, wait_until

TOKEN = "a-token-for-tests-only"
ROOT = Path(__file__).parents[2]
STAND_IN = ROOT / "tests" / "stand_ins" / "energibridge"
PATIENCE_S = 60.0


def trial(*, meter: str = "estimate", lifetime: str = "trial", n_items: int = 6) -> TrialSpec:
    """A second of a fake engine per item."""
    return TrialSpec(
        experiment="test",
        run_id="run_0_repetition_0",
        repetition=0,
        treatment={},
        seed=1,
        model=ModelSpec(name="fake", source="fake:small"),
        engine=EngineSpec.model_validate({"name": "fake", "lifetime": lifetime, "options": {"tokens_per_s": 12.0}}),
        sampling=SamplingSpec(max_tokens=12),
        workload=WorkloadSpec(name="fake", options={"n_items": n_items}),
        meter=MeterSpec(name=meter, period_s=0.1),
        baseline_s=0.5,
    )


@contextmanager
def served(node: TestbedNode) -> Iterator[str]:
    """The node's API on a port of its own."""
    bound = socket.create_server(("127.0.0.1", 0))
    app = create_app(node, TOKEN, telemetry_period_s=0.2)
    server = uvicorn.Server(
        uvicorn.Config(app, log_level="error", lifespan="off", ws="none", timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
    finally:
        node.end_waits()
        server.should_exit = True
        thread.join()
        bound.close()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[TestbedNode]:
    node = TestbedNode.open(tmp_path / "data")
    yield node
    node.close()


@pytest.fixture
def client(node: TestbedNode) -> Iterator[HttpClient]:
    with served(node) as url:
        client = HttpClient(url, TOKEN)
        yield client
        client.close()


def listen_until(
    samples: Iterator[TelemetrySample], is_enough: Callable[[list[TelemetrySample]], bool]
) -> list[TelemetrySample]:
    """Events up to and with the one that is enough."""
    heard: list[TelemetrySample] = []
    end_s = time.monotonic() + PATIENCE_S
    for sample in samples:
        heard.append(sample)
        if is_enough(heard):
            return heard
        assert time.monotonic() < end_s, f"heard only {heard[-1]}"
    raise AssertionError("the stream ended")


def times(heard: list[TelemetrySample], quantity: str = "power_w") -> list[float]:
    """Of all points of the one series of a quantity."""
    return [
        time_s
        for sample in heard
        for series in sample.series
        if series.quantity == quantity
        for time_s in series.time_s
    ]


def has_ended(heard: list[TelemetrySample]) -> bool:
    return heard[-1].state is not None and heard[-1].state.is_final


@pytest.mark.parametrize("lifetime", ["trial", "block"])
def test_points_arrive_while_the_trial_runs(
    client: HttpClient, node: TestbedNode, tmp_path: Path, lifetime: str
) -> None:
    node.submit("a1", trial(lifetime=lifetime))
    heard = listen_until(client.telemetry(), has_ended)
    measured = [sample for sample in heard if sample.state is AttemptState.MEASURING]
    assert sum(bool(times([sample])) for sample in measured) >= 4
    all_times = times(heard)
    assert all(earlier < later for earlier, later in pairwise(all_times))
    # The measured phase takes six seconds, and a point is a tenth of one.
    assert len(all_times) >= 20
    (key,) = {(each.domain, each.quantity, each.source) for sample in heard for each in sample.series}
    assert key == ("cpu_package", "power_w", "estimate")
    assert all(value > 0 for sample in heard for each in sample.series for value in each.values)
    assert measured[-1].power_w["cpu_package"] > 0
    marks = heard[-1].marks
    assert [mark.state for mark in marks][:2] == [AttemptState.LOADING, AttemptState.BASELINE]
    assert AttemptState.MEASURING in [mark.state for mark in marks]
    assert all(earlier.at_s < later.at_s for earlier, later in pairwise(marks))
    assert heard[-1].state is AttemptState.SUCCEEDED
    result = node.result("a1")
    assert {artifact.name for artifact in result.artifacts}.isdisjoint({LIVE_SOCKET})
    assert not list((tmp_path / "data").rglob(LIVE_SOCKET))


def test_what_is_told_is_what_was_measured(client: HttpClient, node: TestbedNode, tmp_path: Path) -> None:
    node.submit("a1", trial(meter="fake"))
    heard = listen_until(client.telemetry(), has_ended)
    rows = (tmp_path / "data" / "attempts" / "a1" / "trace_fake.csv").read_text().splitlines()
    sampled = {round(float(field), 4) for row in rows[1:] for field in row.split(",") if _is_float(field)}
    assert len(times(heard)) >= 20
    assert set(times(heard)) <= sampled


def test_who_comes_late_hears_the_past_and_who_comes_back_hears_nothing_twice(
    client: HttpClient, node: TestbedNode
) -> None:
    node.submit("a1", trial(n_items=100))
    wait_until(node, "a1", lambda status: status.n_requests_done >= 2)
    late = listen_until(client.telemetry(), lambda heard: len(times(heard)) >= 15)
    assert late[0].is_restart
    assert not any(sample.is_restart for sample in late[1:])
    # The baseline was long before anybody listened.
    began = {mark.state: mark.at_s for mark in late[-1].marks}
    assert times(late)[0] < began[AttemptState.MEASURING]
    back = listen_until(client.telemetry(late[-1].event_id), lambda heard: bool(times(heard)))
    assert not back[0].is_restart
    assert times(back)[0] > times(late)[-1]
    both = times(late) + times(back)
    assert both == sorted(set(both))
    forged = listen_until(client.telemetry("a1:00000000:17"), lambda heard: len(times(heard)) >= 15)
    assert forged[0].is_restart
    node.cancel("a1")
    wait_final(node, "a1")


def test_of_a_log_that_energibridge_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOULEBED_ENERGIBRIDGE", str(STAND_IN))
    node = TestbedNode.open(tmp_path / "data")
    try:
        with served(node) as url:
            client = HttpClient(url, TOKEN)
            node.submit("a1", trial(meter="energibridge"))
            heard = listen_until(client.telemetry(), has_ended)
            client.close()
    finally:
        node.close()
    power = [each for sample in heard for each in sample.series if each.quantity == "power_w"]
    assert {each.source for each in power} == {"energibridge"}
    assert {each.domain for each in power} >= {"cpu_package", "gpu:0"}
    cpu = [time_s for each in power if each.domain == "cpu_package" for time_s in each.time_s]
    assert len(cpu) >= 20
    assert all(earlier < later for earlier, later in pairwise(cpu))
    (measuring,) = [mark.at_s for mark in heard[-1].marks if mark.state is AttemptState.MEASURING]
    assert cpu[0] < measuring < cpu[-1]


def test_a_child_that_outlives_its_testbed_is_heard_again(tmp_path: Path) -> None:
    spec_path = tmp_path / "spec.json"
    spec_path.write_text(trial().model_dump_json())
    code = (
        "import sys, time; from pathlib import Path; from contract.trial_spec import TrialSpec\n"
        "from testbed.node import TestbedNode\n"
        "node = TestbedNode.open(Path(sys.argv[1]))\n"
        "node.submit('a1', TrialSpec.model_validate_json(Path(sys.argv[2]).read_bytes()))\n"
        "listener = node.listen()\n"
        "while True:\n"
        "    sample = listener.next()\n"
        "    print(sample.model_dump_json(), flush=True)\n"
        "    time.sleep(0.1)\n"
    )
    first = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "data"), str(spec_path)],
        stdout=subprocess.PIPE,
        cwd=ROOT,
        text=True,
    )
    assert first.stdout is not None
    heard = listen_until(
        (TelemetrySample.model_validate_json(line) for line in first.stdout), lambda all_: bool(times(all_))
    )
    first.kill()
    first.wait()
    node = TestbedNode.open(tmp_path / "data")
    try:
        assert node.info().running_attempt_id == "a1"
        with node.listen(heard[-1].event_id) as listener:
            again = listen_until(_every(listener.next), has_ended)
    finally:
        node.close()
    assert again[0].is_restart
    assert times(again)[-1] > times(heard)[-1]
    assert all(earlier < later for earlier, later in pairwise(times(again)))


def test_the_socket_is_the_users_own(node: TestbedNode, tmp_path: Path) -> None:
    node.submit("a1", trial())
    folder = tmp_path / "data" / "attempts" / "a1"
    assert not (folder / LIVE_SOCKET).exists()
    with node.listen() as listener:
        listener.next()
        assert (folder / LIVE_SOCKET).stat().st_mode & 0o777 == 0o600
        assert folder.stat().st_mode & 0o077 == 0
    node.cancel("a1")
    wait_final(node, "a1")
    assert not (folder / LIVE_SOCKET).exists()


def test_too_many_listeners_are_refused_with_words(client: HttpClient, node: TestbedNode) -> None:
    listeners = [node.listen() for _ in range(MAX_LISTENERS)]
    with pytest.raises(TooManyListenersError, match=str(MAX_LISTENERS)):
        next(client.telemetry())
    listeners[0].close()
    assert next(client.telemetry()).attempt_id is None


def test_an_event_id_of_any_length_does_no_harm(node: TestbedNode) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}", PROTOCOL_HEADER: str(PROTOCOL_VERSION)}
    with served(node) as url:
        answer = httpx.get(url + routes.TELEMETRY, headers={**headers, "Last-Event-ID": "x" * 5000})
        assert answer.status_code == 422


class Board:
    """A board over one attempt that is only a folder."""

    def __init__(self, folder: Path, *, linger_s: float = LINGER_S) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.now_s = 1000.0
        self.attempt_id: str | None = "a1"
        self.board = TelemetryBoard(
            running=self.running,
            find=lambda attempt_id: self.status(attempt_id, AttemptState.SUCCEEDED),
            temperatures=lambda: [TemperatureReading(sensor="cpu", temp_c=41.5)],
            clock=SystemClock(),
            monotonic_s=lambda: self.now_s,
            linger_s=linger_s,
        )

    def status(self, attempt_id: str, state: AttemptState) -> AttemptStatus:
        return AttemptStatus.model_validate(
            {
                "attempt_id": attempt_id,
                "run_id": "run_0_repetition_0",
                "spec_sha256": "0" * 64,
                "state": state,
                "version": 1,
                "updated_at": "2026-11-21T12:00:00Z",
            }
        )

    def running(self) -> Running | None:
        if self.attempt_id is None:
            return None
        return Running(self.status(self.attempt_id, AttemptState.MEASURING), self.folder, {})


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    board = Board(tmp_path / ("long-" * 30) / "a1")  # longer than a socket's name may be
    yield board
    board.board.close()


def counter(n: int, period_s: float, watts: float = 50.0) -> Samples:
    return Samples([100.0 + i * period_s for i in range(n)], [watts * i * period_s for i in range(n)])


def test_a_counter_is_told_as_watts_and_a_wrap_is_unwound(board: Board) -> None:
    samples = counter(40, 0.1)
    samples.values = [value % 100.0 for value in samples.values]
    series = [LiveSeries("cpu_package", "power_w", samples, is_counter=True, wrap_j=100.0)]
    with board.board.listen() as listener:
        listener.next()
        feed = LiveFeed(board.folder, "rapl")
        feed.tell(104.0, lambda: series)
        (told,) = listener.next().series
    assert told.values == pytest.approx([50.0] * 39)
    assert told.time_s == pytest.approx(samples.time_s[1:])


def test_a_fast_meter_is_thinned_and_loses_no_energy(board: Board) -> None:
    """Watts over the intervals between points sum to the counter's joules, whatever is left out between."""
    samples = Samples([i / 1000 for i in range(3001)], [(i / 1000) ** 2 * 10 for i in range(3001)])
    feed = LiveFeed(board.folder, "rapl")
    series = [LiveSeries("cpu_package", "power_w", samples, is_counter=True)]
    with board.board.listen() as listener:
        listener.next()
        feed.tell(3.0, lambda: series)
        (told,) = listener.next().series
    assert len(told.time_s) < 40
    edges = [0.0, *told.time_s]
    energy_j = sum(watts * (end - begin) for watts, (begin, end) in zip(told.values, pairwise(edges), strict=True))
    assert energy_j == pytest.approx(10 * told.time_s[-1] ** 2, rel=1e-4)


def test_a_listener_who_reads_nothing_holds_nothing_up(board: Board) -> None:
    """The kernel's queue fills, then the feed waits for room and sends what is missing."""
    samples = Samples()
    feed = LiveFeed(board.folder, "rapl")
    series = [LiveSeries("cpu_package", "power_w", samples)]
    with board.board.listen() as listener:
        listener.next()
        for i in range(2000):
            samples.time_s.append(100.0 + i * 0.1)
            samples.values.append(float(i))
            feed.tell(samples.time_s[-1], lambda: series)
        heard: list[float] = []
        for _ in range(100):
            # Time passes, or it would wait for more to say.
            samples.time_s.append(samples.time_s[-1] + 1.0)
            samples.values.append(samples.values[-1] + 1.0)
            heard += [value for each in listener.next().series for value in each.values]
            feed.tell(samples.time_s[-1], lambda: series)
    assert heard == sorted(set(heard))
    # Neither the first sample, with which the first interval begins, nor the last two, which are still on their way.
    assert set(range(1, 2000)) <= set(heard)


def test_messages_that_are_none_of_ours_are_left_out(board: Board) -> None:
    good = {"v": 1, "source": "x", "series": [["d", "power_w", [1.0, 2.0], [3.0, float("nan")]]]}
    messages = [
        b"",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b"null",
        b"x" * 60000,
        json.dumps({**good, "v": 2}).encode(),
        json.dumps({**good, "source": 7}).encode(),
        json.dumps({**good, "series": [["d", "power_w", [1.0], []]]}).encode(),
        json.dumps({**good, "series": [["d", "no identifier!", [1.0], [1.0]]]}).encode(),
        json.dumps({**good, "series": [["d" * 500, "power_w", [1.0], [1.0]]]}).encode(),
        json.dumps(good).encode(),
    ]
    with board.board.listen() as listener:
        listener.next()
        folder = os.open(board.folder, os.O_RDONLY)
        sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        told = []
        for message in messages:
            sender.sendto(message, f"/proc/self/fd/{folder}/{LIVE_SOCKET}")
            told += listener.next().series
        sender.close()
        os.close(folder)
    (series,) = told
    assert (series.time_s, series.values) == ([1.0], [3.0])


def test_a_trial_that_ends_is_told_to_its_end_and_then_the_next(board: Board, tmp_path: Path) -> None:
    samples = counter(5, 0.1)
    feed = LiveFeed(board.folder, "rapl")
    with board.board.listen() as listener:
        assert listener.next().is_restart
        feed.tell(100.5, lambda: [LiveSeries("cpu_package", "power_w", samples, is_counter=True)])
        board.board.attempt_ended("a1")
        board.attempt_id, board.folder = "a2", tmp_path / "a2"
        board.folder.mkdir()
        last = listener.next()
        assert (last.attempt_id, last.state) == ("a1", AttemptState.SUCCEEDED)
        assert len(times([last])) == 4
        following = listener.next()
        assert (following.attempt_id, following.is_restart, following.series) == ("a2", True, [])
        board.attempt_id = None
        assert listener.next().attempt_id == "a2"
        idle = listener.next()
        assert (idle.attempt_id, idle.event_id) == (None, "")
        assert [reading.temp_c for reading in idle.temperatures] == [41.5]


def test_a_stalled_listener_gives_way(board: Board) -> None:
    stalled = board.board.listen()
    busy = [board.board.listen() for _ in range(MAX_LISTENERS - 1)]
    board.now_s += STALE_S
    for each in busy:
        each.next()
    with board.board.listen():
        assert stalled.is_closed
        with pytest.raises(TooManyListenersError):
            board.board.listen()


def test_the_last_one_to_leave_turns_it_off(tmp_path: Path) -> None:
    board = Board(tmp_path / "a1", linger_s=0.01)
    with board.board.listen() as listener:
        listener.next()
        assert (board.folder / LIVE_SOCKET).exists()
    end_s = time.monotonic() + PATIENCE_S
    while (board.folder / LIVE_SOCKET).exists():
        assert time.monotonic() < end_s
        time.sleep(0.01)
    board.board.close()


def _every(take: Callable[[], TelemetrySample]) -> Iterator[TelemetrySample]:
    while True:
        yield take()
        time.sleep(0.1)


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
