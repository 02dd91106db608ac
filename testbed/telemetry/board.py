"""Who listens to a testbed's telemetry, and what each of them is told next.

While nobody listens nothing is done. While somebody does, the running attempt has one feed, however many listen.
"""

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from contract.errors import TooManyListenersError
from contract.node_info import TemperatureReading
from contract.telemetry import TelemetrySample, TelemetrySeries
from contract.trial_result import AttemptStatus
from testbed.clock import Clock, utc_now
from testbed.telemetry.feed import AttemptFeed

MAX_LISTENERS = 8
STALE_S = 30.0
"""A listener that took nothing for so long gives way to a new one, where there are too many."""

LINGER_S = 15.0
"""Kept after the last listener is gone: one that comes back finds its place again."""

EVENT_POINTS = 6000
"""Most points of one event."""

_EVENT_ID = re.compile(r"([A-Za-z0-9._-]{1,128}):([0-9a-f]{8}):([0-9]{1,12})")


@dataclass(frozen=True)
class Running:
    """What the node runs now.

    Attributes:
        status: where it is.
        folder: its files.
        power_w: what its last line of progress told.
    """

    status: AttemptStatus
    folder: Path
    power_w: dict[str, float]


class TelemetryBoard:
    """Thread-safe.

    Args:
        running: what runs now, or None.
        find: the status of an attempt that may have ended.
        temperatures: of the machine; asked while nothing runs, once a second at most.
        clock: of this machine.
        monotonic_s: of the listeners' patience.
        linger_s: see `LINGER_S`.
    """

    def __init__(
        self,
        *,
        running: Callable[[], Running | None],
        find: Callable[[str], AttemptStatus | None],
        temperatures: Callable[[], list[TemperatureReading]],
        clock: Clock,
        monotonic_s: Callable[[], float] = time.monotonic,
        linger_s: float = LINGER_S,
    ) -> None:
        self._running = running
        self._find = find
        self._temperatures = temperatures
        self._clock = clock
        self._monotonic_s = monotonic_s
        self._linger_s = linger_s
        self._lock = threading.RLock()
        self._listeners: list[TelemetryListener] = []
        self._feed: AttemptFeed | None = None
        self._linger: threading.Timer | None = None
        self._read_temps: tuple[float, list[TemperatureReading]] = (float("-inf"), [])

    @property
    def n_listeners(self) -> int:
        """How many listen."""
        return len(self._listeners)

    def listen(self, after: str = "") -> "TelemetryListener":
        """Listen from now on.

        Args:
            after: `event_id` of the last event that was taken; anything else begins anew.

        Raises:
            TooManyListenersError: as many listen as may.
        """
        match = _EVENT_ID.fullmatch(after)
        with self._lock:
            now_s = self._monotonic_s()
            if len(self._listeners) >= MAX_LISTENERS:
                stale = min(self._listeners, key=lambda each: each.taken_s)
                if now_s - stale.taken_s < STALE_S:
                    raise TooManyListenersError(
                        f"{MAX_LISTENERS} listen to this testbed's telemetry already. Close a dashboard, then try "
                        "again."
                    )
                stale.close()
            if self._linger is not None:
                self._linger.cancel()
                self._linger = None
            place = (match[1], match[2], int(match[3])) if match else None
            listener = TelemetryListener(self, place, now_s)
            self._listeners.append(listener)
            return listener

    def attempt_ended(self, attempt_id: str) -> None:
        """The node's attempt is over: its last points are taken, and its socket goes. Cheap where nobody listens."""
        with self._lock:
            if self._feed is not None and self._feed.attempt_id == attempt_id:
                self._feed.read()
                self._feed.close()

    def close(self) -> None:
        """End all. Idempotent."""
        with self._lock:
            if self._linger is not None:
                self._linger.cancel()
                self._linger = None
            self._listeners.clear()
            self._drop()

    def sample(self, listener: "TelemetryListener") -> TelemetrySample:
        """The next event of a listener; called by it."""
        with self._lock:
            listener.taken_s = self._monotonic_s()
            running = self._running()
            current = self._current(running)
            old = listener.feed
            if old is not None and old is not current and (listener.owes_end or listener.position < old.end):
                # It has ended: its last points, and how.
                listener.owes_end = False
                return self._event(listener, old, self._find(old.attempt_id), {}, is_restart=False)
            listener.feed = current
            if current is None or running is None:
                return self._idle()
            is_new = old is not current
            if is_new:
                place, listener.place, listener.owes_end = listener.place, None, True
                is_known = place is not None and place[:2] == (current.attempt_id, current.epoch)
                listener.position = place[2] if place is not None and is_known else 0
                is_new = not is_known
            return self._event(listener, current, running.status, running.power_w, is_restart=is_new)

    def forget(self, listener: "TelemetryListener") -> None:
        """Called by a listener that closes. The last one's place is kept for a while."""
        with self._lock:
            now_s = self._monotonic_s()
            for each in [each for each in self._listeners if each is listener or now_s - each.taken_s >= STALE_S]:
                each.is_closed = True
                self._listeners.remove(each)
            if not self._listeners and self._feed is not None and self._linger is None:
                self._linger = threading.Timer(self._linger_s, self._give_up)
                self._linger.daemon = True
                self._linger.start()

    def _give_up(self) -> None:
        with self._lock:
            self._linger = None
            if not self._listeners:
                self._drop()

    def _drop(self) -> None:
        if self._feed is not None:
            self._feed.close()
            self._feed = None

    def _current(self, running: Running | None) -> AttemptFeed | None:
        """The feed of what runs, brought up to date."""
        if running is None:
            self._drop()
            return None
        status = running.status
        if self._feed is None or self._feed.attempt_id != status.attempt_id:
            self._drop()
            self._feed = AttemptFeed(status.attempt_id, status.run_id, running.folder, self._clock)
        self._feed.read()
        return self._feed

    def _event(
        self,
        listener: "TelemetryListener",
        feed: AttemptFeed,
        status: AttemptStatus | None,
        power_w: dict[str, float],
        *,
        is_restart: bool,
    ) -> TelemetrySample:
        series: list[TelemetrySeries]
        listener.position, series = feed.since(listener.position, EVENT_POINTS)
        return TelemetrySample(
            event_id=f"{feed.attempt_id}:{feed.epoch}:{listener.position}",
            attempt_id=feed.attempt_id,
            run_id=feed.run_id,
            state=status.state if status else None,
            n_requests_done=status.n_requests_done if status else 0,
            n_requests=status.n_requests if status else 0,
            power_w=power_w | feed.latest("power_w"),
            temperatures=feed.temperatures(),
            marks=feed.marks,
            series=series,
            is_restart=is_restart,
            at_s=self._clock.monotonic_ns() / 1e9,
            at=utc_now(self._clock),
        )

    def _idle(self) -> TelemetrySample:
        now_s = self._monotonic_s()
        read_s, temperatures = self._read_temps
        if now_s - read_s >= 1.0:
            temperatures = self._temperatures()
            self._read_temps = (now_s, temperatures)
        return TelemetrySample(
            temperatures=temperatures, at_s=self._clock.monotonic_ns() / 1e9, at=utc_now(self._clock)
        )


class TelemetryListener:
    """One listener's place. Made by `TelemetryBoard.listen`; a context manager.

    Attributes:
        taken_s: when it took its last event.
        feed: what it is told of now; the board's to change, as are the following.
        position: in the feed.
        place: attempt, epoch and position where it left off, before its first event.
        owes_end: it is still to be told how the feed's attempt ended.
        is_closed: it is told nothing further: closed, or too slow.
    """

    def __init__(self, board: TelemetryBoard, place: tuple[str, str, int] | None, now_s: float) -> None:
        self._board = board
        self.taken_s = now_s
        self.feed: AttemptFeed | None = None
        self.position = 0
        self.place = place
        self.owes_end = False
        self.is_closed = False

    def next(self) -> TelemetrySample:
        """What happened since the last call, now; never waits."""
        return self._board.sample(self)

    def close(self) -> None:
        """Listen no more. Idempotent."""
        self._board.forget(self)

    def __enter__(self) -> "TelemetryListener":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
