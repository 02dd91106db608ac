"""The meter seam: samples energy or power between two calls."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from contract.node_info import TemperatureReading
from energy.trace import Gauge, Trace


@dataclass(frozen=True)
class MeterProbe:
    """What a meter found on this machine.

    Attributes:
        available: whether `start` would work.
        message: what it measures here; or why it cannot, and the command that mends it.
        domains: what it would deliver, such as `("cpu_package", "gpu:0")`.
    """

    available: bool
    message: str
    domains: tuple[str, ...] = ()


@dataclass(frozen=True)
class MeterReport:
    """What a meter delivers at the end.

    Attributes:
        traces: one per domain and estimator; times in seconds of the monotonic clock.
        sampler_cpu_s: CPU seconds that sampling cost (thread or process); None if it cannot be told.
        settings: what is needed to repeat it, such as program version, period taken, assumptions of an estimate.
        warnings: in words; they end up among the record's suspect reasons.
        gauges: temperatures, clocks and the like, sampled beside the energy; the validity rules look at them.
        window_s: seconds between start and stop, to set `sampler_cpu_s` against; None if nobody timed it.
    """

    traces: tuple[Trace, ...]
    sampler_cpu_s: float | None
    settings: Mapping[str, str | float | int | None] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    gauges: tuple[Gauge, ...] = ()
    window_s: float | None = None


class Meter(Protocol):
    """Samples one family of sensors. Built by the registry as `factory(period_s=..., **MeterSpec.options)`.

    Hardware roots (sysfs folders, the NVML library, a program's path) are factory arguments with the machine's
    own as default.
    """

    name: str

    def probe(self) -> MeterProbe:
        """Look without measuring; fast, never raises."""
        ...

    def start(self, out_dir: Path) -> None:
        """Begin to sample; returns when the first sample is taken.

        Args:
            out_dir: the attempt's folder, for a meter that writes a log of its own.

        Raises:
            MeterUnavailableError: it cannot measure here; the message is the probe's.
        """
        ...

    def latest_power_w(self) -> dict[str, float]:
        """Domain -> mean watts of the last interval, for telemetry; empty when unknown. Cheap: it takes no sample."""
        ...

    def stop(self) -> MeterReport:
        """Take a last sample, end sampling and deliver. Idempotent: a second call returns the same report.

        Raises:
            MeterError: the sensors or the program failed on the way; what was sampled stays in `out_dir`.
        """
        ...


class Thermometer(Protocol):
    """Reads the machine's temperatures for the thermal gate; separate from energy, usable while nothing runs."""

    def read(self) -> list[TemperatureReading]:
        """Now; empty where there is no readable sensor. Never raises."""
        ...
