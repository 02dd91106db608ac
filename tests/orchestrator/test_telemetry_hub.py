"""One stream per testbed for many pages: who hears what, also late, slow, and while a testbed is away."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from queue import Queue

import pytest

from contract.attempt_state import AttemptState
from contract.errors import TestbedUnreachableError, TooManyListenersError, UnauthorizedError
from contract.telemetry import TelemetrySample, TelemetrySeries
from orchestrator.telemetry_hub import Subscription, TelemetryHub
from orchestrator.trial_memory import MAX_POINTS, MAX_SERIES, TrialMemory

AT = datetime(2026, 11, 21, 12, tzinfo=UTC)
PATIENCE_S = 30.0


def sample(
    *times: float, attempt_id: str | None = "a1", is_restart: bool = False, domain: str = "gpu:0"
) -> TelemetrySample:
    series = [
        TelemetrySeries(
            domain=domain, quantity="power_w", source="nvml", time_s=list(times), values=[10 * each for each in times]
        )
    ]
    return TelemetrySample(
        event_id=f"{attempt_id}:{times[-1] if times else 0}",
        attempt_id=attempt_id,
        state=AttemptState.MEASURING if attempt_id else None,
        series=series if times else [],
        is_restart=is_restart,
        at=AT,
    )


class Source:
    """A testbed that tells what the test puts in; an exception ends its stream."""

    def __init__(self) -> None:
        self.told: Queue[TelemetrySample | Exception | None] = Queue()
        self.asked_after: list[str] = []
        self.n_open = 0

    def telemetry(self, after: str = "") -> Iterator[TelemetrySample]:
        self.asked_after.append(after)
        self.n_open += 1
        try:
            while (event := self.told.get()) is not None:
                if isinstance(event, Exception):
                    raise event
                yield event
        finally:
            self.n_open -= 1


@pytest.fixture
def source() -> Iterator[Source]:
    source = Source()
    yield source
    for _ in range(10):
        source.told.put(None)


@pytest.fixture
def hub(source: Source) -> Iterator[TelemetryHub]:
    hub = TelemetryHub({"box": source}, first_pause_s=0.01, longest_pause_s=0.02)
    yield hub
    hub.close()


def wait_for(is_so: Callable[[], bool]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not is_so():
        assert time.monotonic() < end_s
        time.sleep(0.005)


def take(subscription: Subscription) -> TelemetrySample | None:
    told = subscription.get(PATIENCE_S)
    assert told is not None
    assert told[0] == "box"
    return told[1]


def times(event: TelemetrySample | None) -> list[float]:
    assert event is not None
    return [time_s for series in event.series for time_s in series.time_s]


def test_nobody_is_asked_while_nobody_listens(hub: TelemetryHub, source: Source) -> None:
    assert source.asked_after == []
    first, second = hub.subscribe(), hub.subscribe()
    source.told.put(sample(1.0))
    assert times(take(first)) == times(take(second)) == [1.0]
    assert source.asked_after == [""]
    first.close()
    source.told.put(sample(2.0))
    assert times(take(second)) == [2.0]
    second.close()
    source.told.put(sample(3.0))
    wait_for(lambda: source.n_open == 0)
    assert source.asked_after == [""]


def test_who_comes_late_hears_the_past_in_one_event(hub: TelemetryHub, source: Source) -> None:
    with hub.subscribe() as first:
        for time_s in (1.0, 2.0, 3.0):
            source.told.put(sample(time_s))
        assert [times(take(first)) for _ in range(3)] == [[1.0], [2.0], [3.0]]
        with hub.subscribe() as late:
            source.told.put(sample(4.0))
            past = take(late)
            assert past is not None
            assert past.is_restart
            assert times(past) == [1.0, 2.0, 3.0]
            assert times(take(late)) == [4.0]


def test_who_is_slow_holds_nobody_up_and_misses_nothing(hub: TelemetryHub, source: Source) -> None:
    with hub.subscribe() as quick, hub.subscribe() as slow:
        for number in range(1, 301):
            source.told.put(sample(float(number)))
            assert times(take(quick)) == [float(number)]
        heard: list[float] = []
        n_events = 0
        while (told := slow.get(0)) is not None:
            assert told[1] is not None
            heard = times(told[1]) if told[1].is_restart else heard + times(told[1])
            n_events += 1
        assert n_events <= 64
        assert heard == [float(number) for number in range(1, 301)]


def test_a_testbed_that_is_away_is_told_once_and_asked_for_the_rest(hub: TelemetryHub, source: Source) -> None:
    with hub.subscribe() as subscription:
        source.told.put(sample(1.0))
        assert times(take(subscription)) == [1.0]
        for _ in range(4):
            source.told.put(TestbedUnreachableError("No answer from the testbed. Check it."))
        assert take(subscription) is None
        wait_for(lambda: len(source.asked_after) >= 4)
        assert hub.why_away() == {"box": "No answer from the testbed. Check it."}
        with hub.subscribe() as late:
            assert take(late) is None
        source.told.put(sample(2.0))
        assert times(take(subscription)) == [2.0]
        assert source.asked_after[0] == ""
        assert set(source.asked_after[1:]) == {"a1:1.0"}
        assert hub.why_away() == {}


def test_a_refusal_and_a_stream_that_ends_are_away_too(hub: TelemetryHub, source: Source) -> None:
    with hub.subscribe() as subscription:
        source.told.put(UnauthorizedError("The token is wrong. Give the right one."))
        assert take(subscription) is None
        assert hub.why_away() == {"box": "The token is wrong. Give the right one."}
        source.told.put(sample(1.0))
        assert times(take(subscription)) == [1.0]
        source.told.put(None)
        assert take(subscription) is None


def test_one_testbed_that_is_away_does_not_silence_another(source: Source) -> None:
    other = Source()
    hub = TelemetryHub({"box": source, "laptop": other}, first_pause_s=0.01)
    with hub.subscribe() as subscription:
        source.told.put(TestbedUnreachableError("No answer."))
        assert subscription.get(PATIENCE_S) == ("box", None)
        other.told.put(sample(1.0))
        told = subscription.get(PATIENCE_S)
        assert told is not None
        assert told[0] == "laptop"
    hub.close()
    other.told.put(None)


def test_their_number_is_bounded(source: Source) -> None:
    hub = TelemetryHub({"box": source}, max_subscriptions=2)
    first = hub.subscribe()
    hub.subscribe()
    with pytest.raises(TooManyListenersError):
        hub.subscribe()
    first.close()
    first.close()
    hub.subscribe()
    hub.close()
    with pytest.raises(TooManyListenersError):
        hub.subscribe()


def test_in_an_event_loop(hub: TelemetryHub, source: Source) -> None:
    async def listen() -> list[list[float]]:
        heard = []
        with hub.subscribe() as subscription:
            threading.Timer(0.05, lambda: [source.told.put(sample(float(number))) for number in range(3)]).start()
            async for name, event in subscription:
                assert name == "box"
                heard.append(times(event))
                if len(heard) == 3:
                    break
        return heard

    assert asyncio.run(asyncio.wait_for(listen(), PATIENCE_S)) == [[0.0], [1.0], [2.0]]


def test_closing_the_hub_ends_who_waits(hub: TelemetryHub) -> None:
    async def listen() -> int:
        subscription = hub.subscribe()
        threading.Timer(0.05, hub.close).start()
        return len([event async for event in subscription])

    assert asyncio.run(asyncio.wait_for(listen(), PATIENCE_S)) == 0
    with pytest.raises(TooManyListenersError):
        hub.subscribe()


class TestMemory:
    def test_a_new_trial_begins_anew(self) -> None:
        memory = TrialMemory()
        assert memory.past() is None
        memory.add(sample(1.0, 2.0))
        memory.add(sample(3.0))
        assert times(memory.past()) == [1.0, 2.0, 3.0]
        memory.add(sample(4.0, attempt_id="a2"))
        assert times(memory.past()) == [4.0]
        memory.add(sample(attempt_id=None))
        assert times(memory.past()) == []

    def test_a_restart_replaces(self) -> None:
        memory = TrialMemory()
        memory.add(sample(1.0, 2.0))
        memory.add(sample(1.5, 2.0, 2.5, is_restart=True))
        assert times(memory.past()) == [1.5, 2.0, 2.5]

    def test_it_does_not_grow_without_bound(self) -> None:
        memory = TrialMemory()
        memory.add(sample(*(float(number) for number in range(3 * MAX_POINTS))))
        assert times(memory.past()) == [float(number) for number in range(2 * MAX_POINTS, 3 * MAX_POINTS)]
        for number in range(2 * MAX_SERIES):
            memory.add(sample(1.0, domain=f"zone{number}"))
        past = memory.past()
        assert past is not None
        assert len(past.series) == MAX_SERIES
