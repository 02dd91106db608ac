"""An estimate where there is no sensor: busy core-seconds times stated watts. Never shown without the word."""

from collections.abc import Callable, Mapping

import psutil

from contract.errors import InvalidOptionError
from contract.trial_result import EnergyMethod
from energy.trace import Trace
from testbed.clock import Clock
from testbed.meters.base import MeterProbe
from testbed.meters.sampled_meter import SampledMeter
from testbed.meters.sampler import Samples


def machine_busy_s() -> float:
    """Core-seconds that this machine's processors have worked since it started."""
    times = psutil.cpu_times()
    # Guest time is in user time already; steal is another machine's work.
    return float(times.user + times.nice + times.system + getattr(times, "irq", 0.0) + getattr(times, "softirq", 0.0))


class EstimateMeter(SampledMeter):
    """E(t) = idle_w_per_core x cores x t + active_w_per_core x busy core-seconds, of the whole machine.

    The defaults are round figures for a server core (a 280 W, 64-core part is 4.4 W per core when all work), not
    measurements of this machine. Good for comparing configurations by their CPU time, not for joules to publish.

    Args:
        period_s: sampling period.
        idle_w_per_core: watts of a core that sleeps.
        active_w_per_core: watts that a working core draws on top.
        busy_s: source of busy core-seconds.
        n_cores: logical cores; the machine's own by default.
        clock: of the stamps.

    Raises:
        InvalidOptionError: a power that is not positive.
    """

    name = "estimate"

    def __init__(
        self,
        *,
        period_s: float = 0.2,
        idle_w_per_core: float = 1.0,
        active_w_per_core: float = 4.0,
        busy_s: Callable[[], float] = machine_busy_s,
        n_cores: int | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(period_s=period_s, clock=clock)
        if not (idle_w_per_core >= 0 and active_w_per_core > 0):
            raise InvalidOptionError("The estimate needs idle_w_per_core >= 0 and active_w_per_core > 0.")
        self._idle_w_per_core = idle_w_per_core
        self._active_w_per_core = active_w_per_core
        self._busy_s = busy_s
        self._n_cores = n_cores or psutil.cpu_count() or 1

    @property
    def assumption(self) -> str:
        """The model in words."""
        return (
            f"estimate, not measured: {self._idle_w_per_core:g} W x {self._n_cores} cores + "
            f"{self._active_w_per_core:g} W x busy cores"
        )

    def probe(self) -> MeterProbe:
        """See `Meter`: it is always there."""
        return MeterProbe(True, self.assumption, ("cpu_package",))

    def _open(self) -> None:
        """Nothing to get ready."""

    def _read(self) -> Mapping[str, float]:
        idle_j = self._idle_w_per_core * self._n_cores * self._clock.monotonic_ns() / 1e9
        return {"cpu_package": idle_j + self._active_w_per_core * self._busy_s()}

    def _trace(self, sensor: str, samples: Samples) -> Trace:
        time_s, values = samples.arrays()
        return Trace(sensor, "cpu", "counter", EnergyMethod.ESTIMATE, self.name, time_s, values, note=self.assumption)

    def _settings(self) -> Mapping[str, str | float | int | None]:
        return {
            "period_s": self._period_s,
            "idle_w_per_core": self._idle_w_per_core,
            "active_w_per_core": self._active_w_per_core,
            "n_cores": self._n_cores,
        }
