"""A constant power that nobody measured: for trying things out, and for tests."""

from collections.abc import Mapping

from contract.errors import InvalidOptionError
from contract.trial_result import EnergyMethod
from energy.trace import Trace
from testbed.clock import Clock
from testbed.meters.base import MeterProbe
from testbed.meters.sampled_meter import SampledMeter
from testbed.meters.sampler import Samples


class FakeMeter(SampledMeter):
    """Says the same power at all times.

    Args:
        period_s: sampling period.
        power_w: what it says.
        clock: of the stamps.

    Raises:
        InvalidOptionError: a power that is not positive.
    """

    name = "fake"

    def __init__(self, *, period_s: float = 0.2, power_w: float = 100.0, clock: Clock | None = None) -> None:
        super().__init__(period_s=period_s, clock=clock)
        if not (isinstance(power_w, int | float) and power_w > 0):
            raise InvalidOptionError(f"The fake meter's power_w must be above 0, not {power_w!r}.")
        self._power_w = power_w

    def probe(self) -> MeterProbe:
        """See `Meter`: it is always there."""
        return MeterProbe(True, f"fake: {self._power_w:g} W at all times, not measured", ("cpu_package",))

    def _open(self) -> None:
        """Nothing to get ready."""

    def _read(self) -> Mapping[str, float]:
        return {"cpu_package": self._power_w}

    def _trace(self, sensor: str, samples: Samples) -> Trace:
        time_s, values = samples.arrays()
        note = f"fake meter, not measured: {self._power_w:g} W at all times"
        return Trace(sensor, "cpu", "power", EnergyMethod.ESTIMATE, self.name, time_s, values, note=note)

    def _settings(self) -> Mapping[str, str | float | int | None]:
        return {"period_s": self._period_s, "power_w": self._power_w}
