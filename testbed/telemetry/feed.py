"""The recent past of one attempt, as points in the order in which they came."""

import secrets
from collections import deque
from itertools import islice
from pathlib import Path

from contract.node_info import TemperatureReading
from contract.telemetry import TelemetryMark, TelemetrySeries
from testbed import attempt_folder
from testbed.clock import Clock, unix_minus_monotonic_s
from testbed.telemetry.energibridge_tail import EnergiBridgeTail
from testbed.telemetry.mark_tail import MarkTail
from testbed.telemetry.source import LiveReceiver

MAX_POINTS = 20_000
"""Kept of all series together: some 120 bytes each."""

MAX_SERIES = 256

_Key = tuple[str, str, str]


class AttemptFeed:
    """Collects an attempt's points from the moment on that somebody listens. Not thread-safe.

    Args:
        attempt_id: of a running attempt.
        run_id: of its run.
        folder: its files.
        clock: of this machine.
    """

    def __init__(self, attempt_id: str, run_id: str, folder: Path, clock: Clock) -> None:
        self.attempt_id = attempt_id
        self.run_id = run_id
        self.epoch = secrets.token_hex(4)
        """Tells positions in this object from those in another one of the same attempt."""
        self._receiver = LiveReceiver(folder)
        self._log = EnergiBridgeTail(folder / attempt_folder.ENERGIBRIDGE_LOG, unix_minus_monotonic_s(clock))
        self._marks = MarkTail(folder / attempt_folder.PROGRESS)
        self._points: deque[tuple[_Key, float, float]] = deque(maxlen=MAX_POINTS)
        self._last: dict[_Key, tuple[float, float]] = {}
        self.end = 0
        """Position after the newest point."""

    @property
    def marks(self) -> list[TelemetryMark]:
        """The states so far."""
        return list(self._marks.marks)

    def read(self) -> None:
        """Take what is new; never waits."""
        self._marks.read()
        for source in (self._receiver, self._log):
            for series in source.new():
                key = (series.domain, series.quantity, series.source)
                if key not in self._last and len(self._last) >= MAX_SERIES:
                    continue
                for time_s, value in series.points:
                    # A meter that lost sight of us and found us again begins with what we have.
                    if key in self._last and time_s <= self._last[key][0]:
                        continue
                    self._last[key] = (time_s, value)
                    self._points.append((key, time_s, value))
                    self.end += 1

    def since(self, position: int, limit: int) -> tuple[int, list[TelemetrySeries]]:
        """Points from a position on; from the oldest one that is kept, where that is later.

        Args:
            position: of the first.
            limit: most points.

        Returns:
            The position after them, and the points by series.
        """
        oldest = self.end - len(self._points)
        first = max(position, oldest)
        found: dict[_Key, tuple[list[float], list[float]]] = {}
        n_points = 0
        for key, time_s, value in islice(self._points, first - oldest, first - oldest + limit):
            times, values = found.setdefault(key, ([], []))
            times.append(time_s)
            values.append(value)
            n_points += 1
        series = [
            TelemetrySeries(domain=domain, quantity=quantity, source=source, time_s=times, values=values)
            for (domain, quantity, source), (times, values) in found.items()
        ]
        return first + n_points, series

    def latest(self, quantity: str) -> dict[str, float]:
        """Domain -> the newest value of a quantity."""
        return {domain: value for (domain, of, _), (_, value) in self._last.items() if of == quantity}

    def temperatures(self) -> list[TemperatureReading]:
        """What the trial's own sampling read last."""
        return [TemperatureReading(sensor=domain, temp_c=value) for domain, value in self.latest("temp_c").items()]

    def close(self) -> None:
        """End receiving; what is there can still be told. Idempotent."""
        self._receiver.close()
