"""What the in-process meters share: a sampling thread between start and stop."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast, get_args

from contract.errors import MeterError, MeterUnavailableError
from energy.trace import Gauge, Quantity, Trace
from testbed.clock import Clock, SystemClock
from testbed.meters.base import MeterProbe, MeterReport
from testbed.meters.live_feed import LiveFeed, LiveSeries
from testbed.meters.sampler import SamplerThread, Samples

_QUANTITIES = get_args(Quantity)


class SampledMeter(ABC):
    """A meter that reads its sensors itself.

    Args:
        period_s: sampling period.
        clock: of the stamps.
    """

    name: str

    def __init__(self, *, period_s: float, clock: Clock | None = None) -> None:
        self._period_s = period_s
        self._clock = clock or SystemClock()
        self._sampler: SamplerThread | None = None
        self._report: MeterReport | None = None
        self._start_s = 0.0
        self._feed: LiveFeed | None = None
        self._live: dict[str, LiveSeries | None] = {}
        """Sensor -> how it is told to who listens; None: it is not."""
        self._missed: Counter[str] = Counter()
        """Sensor -> readings that failed while its neighbours were read."""

    @abstractmethod
    def probe(self) -> MeterProbe:
        """See `Meter`."""

    @abstractmethod
    def _open(self) -> None:
        """Get ready to read."""

    @abstractmethod
    def _read(self) -> Mapping[str, float]:
        """Sensor -> joules or watts, now; raises OSError. A sensor that is missing costs its own sample only."""

    @abstractmethod
    def _trace(self, sensor: str, samples: Samples) -> Trace:
        """The samples of a sensor as a trace."""

    def _read_gauges(self) -> Mapping[str, float]:
        """`domain/quantity` -> its value, now: see `Gauge`."""
        return {}

    def _read_slow_gauges(self) -> Mapping[str, float]:
        """The same, for what changes slowly or is dear to read: asked once a second."""
        return {}

    def _settings(self) -> Mapping[str, str | float | int | None]:
        return {"period_s": self._period_s}

    def _close(self) -> None:  # noqa: B027 (most meters take nothing)
        """Free what `_open` took."""

    def start(self, out_dir: Path) -> None:
        """See `Meter`."""
        probe = self.probe()
        if not probe.available:
            raise MeterUnavailableError(probe.message, meter=self.name)
        self._open()
        feed = LiveFeed(out_dir, self.name)
        sampler = SamplerThread(
            self._read,
            self._period_s,
            self._clock,
            read_gauges=self._read_gauges,
            read_slow_gauges=self._read_slow_gauges,
            after_sample=lambda now_s: feed.tell(now_s, lambda: self._live_series(sampler)),
        )
        self._feed, self._live = feed, {}
        try:
            sampler.start()
        except MeterError:
            self._close()
            raise
        self._start_s = self._clock.monotonic_ns() / 1e9
        self._sampler = sampler

    def latest_power_w(self) -> dict[str, float]:
        """See `Meter`."""
        sampler = self._sampler
        if sampler is None:
            return {}
        latest = {}
        for sensor, samples in list(sampler.samples.items()):
            # The sampler may be between a sample's time and its value: take the complete ones.
            end = min(len(samples.time_s), len(samples.values))
            last = slice(max(end - 2, 0), end)
            trace = self._trace(sensor, Samples(samples.time_s[last], samples.values[last]))
            if trace.is_headline and trace.time_s.size and trace.kind == "power":
                latest[trace.domain] = float(trace.values[-1])
            elif trace.is_headline and trace.time_s.size == 2 and trace.time_s[1] > trace.time_s[0]:
                step_j, span_s = trace.values[1] - trace.values[0], trace.time_s[1] - trace.time_s[0]
                if step_j >= 0:  # not across a wrap: nobody needs the one point
                    latest[trace.domain] = float(step_j / span_s)
        return latest

    def stop(self) -> MeterReport:
        """See `Meter`."""
        if self._report is None:
            sampler = self._sampler
            if sampler is None:
                return MeterReport((), None)
            window_s = self._clock.monotonic_ns() / 1e9 - self._start_s
            sampler.stop()
            if self._feed is not None:
                self._feed.finish(self._clock.monotonic_ns() / 1e9, lambda: self._live_series(sampler))
            self._report = MeterReport(
                traces=tuple(self._trace(sensor, samples) for sensor, samples in sampler.samples.items()),
                sampler_cpu_s=sampler.cpu_s,
                settings=dict(self._settings()) | self._missed_gauges(),
                warnings=self._warnings(sampler),
                gauges=self._gauges(sampler),
                window_s=window_s,
            )
            self._close()
        return self._report

    def _live_series(self, sampler: SamplerThread) -> Iterator[LiveSeries]:
        """What is told to who listens: the headline power of each domain, and all gauges."""
        for sensor, samples in sampler.samples.items():
            if sensor not in self._live:
                trace = self._trace(sensor, Samples(samples.time_s[:1], samples.values[:1]))
                series = LiveSeries(trace.domain, "power_w", samples, trace.kind == "counter", trace.wrap_j)
                self._live[sensor] = series if trace.is_headline else None
            known = self._live[sensor]
            if known is not None:
                yield known
        for sensor, samples in sampler.gauges.items():
            domain, _, quantity = sensor.rpartition("/")
            yield LiveSeries(domain, quantity, samples)

    def _warnings(self, sampler: SamplerThread) -> tuple[str, ...]:
        whole = [f"{sampler.n_failed} readings failed"] if sampler.n_failed else []
        return (
            *whole,
            *(f"{sensor}: {n} readings failed" for sensor, n in self._missed.items() if not _is_gauge(sensor)),
        )

    def _missed_gauges(self) -> dict[str, str]:
        # A temperature that was not read once is no reason to doubt the joules: it is told, not warned of.
        missed = [f"{sensor}: {n}" for sensor, n in self._missed.items() if _is_gauge(sensor)]
        return {"missed_readings": ", ".join(missed)} if missed else {}

    def _gauges(self, sampler: SamplerThread) -> tuple[Gauge, ...]:
        gauges = []
        for sensor, samples in sampler.gauges.items():
            domain, _, quantity = sensor.rpartition("/")
            time_s, values = samples.arrays()
            gauges.append(Gauge(domain, cast(Quantity, quantity), self.name, time_s, values))
        return tuple(gauges)


def _is_gauge(sensor: str) -> bool:
    return sensor.rpartition("/")[2] in _QUANTITIES
