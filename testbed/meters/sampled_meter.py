"""What the in-process meters share: a sampling thread between start and stop."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

from contract.errors import MeterError, MeterUnavailableError
from energy.trace import Trace
from testbed.clock import Clock, SystemClock
from testbed.meters.base import MeterProbe, MeterReport
from testbed.meters.sampler import SamplerThread, Samples


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

    @abstractmethod
    def probe(self) -> MeterProbe:
        """See `Meter`."""

    @abstractmethod
    def _open(self) -> None:
        """Get ready to read."""

    @abstractmethod
    def _read(self) -> Mapping[str, float]:
        """Sensor -> joules or watts, now; raises OSError."""

    @abstractmethod
    def _trace(self, sensor: str, samples: Samples) -> Trace:
        """The samples of a sensor as a trace."""

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
        sampler = SamplerThread(self._read, self._period_s, self._clock)
        try:
            sampler.start()
        except MeterError:
            self._close()
            raise
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
            sampler.stop()
            warnings = (f"{sampler.n_failed} readings failed",) if sampler.n_failed else ()
            self._report = MeterReport(
                traces=tuple(self._trace(sensor, samples) for sensor, samples in sampler.samples.items()),
                sampler_cpu_s=sampler.cpu_s,
                settings=self._settings(),
                warnings=warnings,
            )
            self._close()
        return self._report
