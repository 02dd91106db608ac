"""The recent past of one testbed's telemetry, for listeners that come late."""

from collections import deque

from contract.telemetry import TelemetrySample, TelemetrySeries

MAX_POINTS = 1500
"""Kept of each series: five minutes at the usual period of 0.2 s."""

MAX_SERIES = 256


class TrialMemory:
    """Puts the events of one stream together. Not thread-safe."""

    def __init__(self) -> None:
        self._last: TelemetrySample | None = None
        self._points: dict[tuple[str, str, str], deque[tuple[float, float]]] = {}

    @property
    def event_id(self) -> str:
        """Where the stream stands; empty before its first event."""
        return self._last.event_id if self._last else ""

    def add(self, sample: TelemetrySample) -> None:
        """Take an event of the stream."""
        if sample.is_restart or self._last is None or sample.attempt_id != self._last.attempt_id:
            self._points.clear()
        self._last = sample
        for series in sample.series:
            key = (series.domain, series.quantity, series.source)
            if key not in self._points and len(self._points) >= MAX_SERIES:
                continue
            points = self._points.setdefault(key, deque(maxlen=MAX_POINTS))
            points.extend(zip(series.time_s, series.values, strict=False))

    def past(self) -> TelemetrySample | None:
        """All that is known, as one event that replaces what came before; None before the first event."""
        if self._last is None:
            return None
        series = [
            TelemetrySeries(
                domain=domain,
                quantity=quantity,
                source=source,
                time_s=[time_s for time_s, _ in points],
                values=[value for _, value in points],
            )
            for (domain, quantity, source), points in self._points.items()
        ]
        return self._last.model_copy(update={"series": series, "is_restart": True})
