"""Hands the testbeds' telemetry to any number of pages: one connection to each testbed, while somebody looks.

A thread per testbed reads its stream and gives each event to the subscriptions, whose queues are bounded. Who comes
late, or falls behind, gets the recent past of the running trial again, in one sample with `is_restart`.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from contract.errors import JouleBedError, TestbedUnreachableError, TooManyListenersError
from contract.telemetry import TelemetrySample
from orchestrator.trial_memory import TrialMemory

_log = logging.getLogger(__name__)

Told = tuple[str, TelemetrySample | None]
"""Name of a testbed, and an event of its stream; None: it does not answer now."""

MAX_SUBSCRIPTIONS = 32
_QUEUED = 64
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 15.0


class TelemetrySource(Protocol):
    """A testbed that tells what it does; each `TestbedClient` is one."""

    def telemetry(self, after: str = "") -> Iterator[TelemetrySample]:
        """See `TestbedClient.telemetry`."""
        ...


class Subscription:
    """What one listener is told. A context manager, and an async iterator for an event loop.

    Made by `TelemetryHub.subscribe`.
    """

    def __init__(self, on_close: Callable[["Subscription"], None]) -> None:
        self._on_close = on_close
        self._changed = threading.Condition()
        self._queue: deque[Told] = deque()
        self._is_behind: set[str] = set()
        self._is_closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready: asyncio.Event | None = None

    def get(self, timeout_s: float | None = None) -> Told | None:
        """The next event; blocking. None: none came in time, or the subscription is closed.

        Args:
            timeout_s: None waits for ever.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._is_closed, timeout_s)
            return self._queue.popleft() if self._queue else None

    def __aiter__(self) -> "Subscription":
        return self

    async def __anext__(self) -> Told:
        """The next event; waits in the event loop, and holds no thread.

        Raises:
            StopAsyncIteration: the subscription, or the hub, was closed.
        """
        while True:
            with self._changed:
                if self._queue:
                    return self._queue.popleft()
                if self._is_closed:
                    raise StopAsyncIteration
                ready = asyncio.Event()
                self._loop, self._ready = asyncio.get_running_loop(), ready
            await ready.wait()

    def __enter__(self) -> "Subscription":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Listen no more. Idempotent."""
        self.end()
        self._on_close(self)

    def end(self) -> None:
        """Wake who waits, and tell nothing further. Called by the hub."""
        with self._changed:
            self._is_closed = True
            self._wake()

    def tell(self, name: str, sample: TelemetrySample | None, past: Callable[[], TelemetrySample | None]) -> None:
        """Called by the hub's threads; never waits for the listener.

        Args:
            name: of the testbed.
            sample: what it told; None: it is away.
            past: the recent past up to and with this sample, for a listener that had fallen behind.
        """
        with self._changed:
            if self._is_closed:
                return
            if len(self._queue) >= _QUEUED:
                # Too slow: what it did not take is told again, in one sample, when it has taken something.
                self._queue = deque(told for told in self._queue if told[0] != name)
                self._is_behind.add(name)
            if name in self._is_behind and sample is not None:
                sample = past() or sample
                self._is_behind.discard(name)
            self._queue.append((name, sample))
            self._wake()

    def _wake(self) -> None:
        self._changed.notify_all()
        if self._loop is not None and self._ready is not None:
            loop, ready, self._loop, self._ready = self._loop, self._ready, None, None
            try:
                loop.call_soon_threadsafe(ready.set)
            except RuntimeError:
                _log.debug("The event loop of a telemetry subscription is closed")


class TelemetryHub:
    """One stream per testbed, for many listeners. Thread-safe.

    Args:
        sources: name of each testbed -> its client; they stay the caller's to close, after the hub.
        max_subscriptions: more are refused.
        first_pause_s: before a stream that broke off is opened again; doubled up to `longest_pause_s`.
        longest_pause_s: between two tries.
    """

    def __init__(
        self,
        sources: Mapping[str, TelemetrySource],
        *,
        max_subscriptions: int = MAX_SUBSCRIPTIONS,
        first_pause_s: float = _FIRST_PAUSE_S,
        longest_pause_s: float = _LONGEST_PAUSE_S,
    ) -> None:
        self._max_subscriptions = max_subscriptions
        self._lock = threading.Lock()
        self._subscriptions: list[Subscription] = []
        self._readers = {
            name: _Reader(name, source, self._tell, first_pause_s, longest_pause_s) for name, source in sources.items()
        }
        self._is_closed = False

    @property
    def names(self) -> tuple[str, ...]:
        """The testbeds."""
        return tuple(self._readers)

    def why_away(self) -> dict[str, str]:
        """Testbed -> why it does not answer, in words; only those that were asked, and do not."""
        return {name: reader.problem for name, reader in self._readers.items() if reader.problem}

    def subscribe(self) -> Subscription:
        """Listen. The first one opens the connections; when the last one closes, they end with the next event.

        Raises:
            TooManyListenersError: as many listen as are allowed to, or the hub is closed.
        """
        subscription = Subscription(self._forget)
        with self._lock:
            if self._is_closed or len(self._subscriptions) >= self._max_subscriptions:
                raise TooManyListenersError(
                    f"{len(self._subscriptions)} pages look at this campaign's telemetry already. Close one, then "
                    "load this page again."
                )
            for name, reader in self._readers.items():
                known, is_away = reader.known()
                if is_away or known is not None:
                    subscription.tell(name, None if is_away else known, lambda: None)
            self._subscriptions.append(subscription)
            for reader in self._readers.values():
                reader.want(True)
        return subscription

    def close(self) -> None:
        """End all subscriptions and, with the next event, the connections. Idempotent."""
        with self._lock:
            self._is_closed = True
            ended, self._subscriptions = self._subscriptions, []
            for reader in self._readers.values():
                reader.want(False)
        for subscription in ended:
            subscription.end()

    def _forget(self, subscription: Subscription) -> None:
        with self._lock:
            if subscription in self._subscriptions:
                self._subscriptions.remove(subscription)
            if not self._subscriptions:
                for reader in self._readers.values():
                    reader.want(False)

    def _tell(self, name: str, memory: TrialMemory, sample: TelemetrySample | None) -> None:
        # Under the lock: who subscribes meanwhile gets this sample either with the past or by itself, never twice.
        with self._lock:
            if sample is not None:
                memory.add(sample)
            for subscription in self._subscriptions:
                subscription.tell(name, sample, memory.past)


class _Reader:
    """Reads one testbed's stream in a thread of its own, for as long as it is wanted."""

    def __init__(
        self,
        name: str,
        source: TelemetrySource,
        tell: Callable[[str, TrialMemory, TelemetrySample | None], None],
        first_pause_s: float,
        longest_pause_s: float,
    ) -> None:
        self._name = name
        self._source = source
        self._tell = tell
        self._first_pause_s = first_pause_s
        self._longest_pause_s = longest_pause_s
        self._guard = threading.Lock()
        self._unwanted = threading.Event()
        self._thread: threading.Thread | None = None
        self._memory = TrialMemory()
        self.problem = ""

    def known(self) -> tuple[TelemetrySample | None, bool]:
        """The recent past of the stream that is open now, and whether the testbed is away."""
        with self._guard:
            is_open = self._thread is not None and not self._unwanted.is_set()
            return (self._memory.past() if is_open else None), bool(is_open and self.problem)

    def want(self, is_wanted: bool) -> None:
        """Start, or end with the next event. Idempotent."""
        with self._guard:
            if not is_wanted:
                self._unwanted.set()
            elif self._thread is None or self._unwanted.is_set():
                # A thread that is still to notice that it was unwanted has an event of its own, and ends by it.
                self._unwanted = threading.Event()
                self._memory, self.problem = TrialMemory(), ""
                self._thread = threading.Thread(
                    target=self._read, args=(self._unwanted, self._memory), name=f"telemetry-{self._name}", daemon=True
                )
                self._thread.start()

    def _read(self, unwanted: threading.Event, memory: TrialMemory) -> None:
        pause_s = self._first_pause_s
        is_away = False
        while not unwanted.is_set():
            try:
                for sample in self._source.telemetry(memory.event_id):
                    if unwanted.is_set():
                        return
                    pause_s, is_away, self.problem = self._first_pause_s, False, ""
                    self._tell(self._name, memory, sample)
                problem = "its telemetry stream ended"
            except TestbedUnreachableError as error:
                problem = error.message
            except JouleBedError as error:
                # A refusal does not pass by asking again soon.
                problem, pause_s = error.message, self._longest_pause_s
            if unwanted.is_set():
                return
            self.problem = problem
            if not is_away:
                is_away = True
                self._tell(self._name, memory, None)
            unwanted.wait(pause_s)
            pause_s = min(2 * pause_s, self._longest_pause_s)
