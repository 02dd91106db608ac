"""RAPL through the kernel's powercap files: cumulative microjoules per zone."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from contract.errors import InvalidOptionError
from contract.trial_result import EnergyMethod
from energy.trace import Trace
from testbed.clock import Clock
from testbed.meters.base import MeterProbe
from testbed.meters.sampled_meter import SampledMeter
from testbed.meters.sampler import Reader, Samples, read_energy
from testbed.meters.sysfs import read_number, scaled, text_of

MIN_PERIOD_S = 1.0
"""Not read oftener than this unless asked."""


@dataclass(frozen=True)
class _Zone:
    domain: str
    component: Literal["cpu", "dram", "system", "part"]
    energy_file: Path
    wrap_j: float


class RaplMeter(SampledMeter):
    """Reads every RAPL zone: packages and DRAM add up, cores and uncore are parts, psys holds them all.

    Read once a second, whatever the trial's period: each read wakes a core of every package to get at its register,
    which costs the energy that it measures, and a counter loses nothing between reads. The price is at the phase
    marks: a cut between two reads is interpolated, so that of a phase shorter than some seconds a good part is
    interpolation, which `uncertainty_j` tells. Ask for `fast` to read at the trial's period.

    Args:
        period_s: wanted sampling period; far below the time of a wrap (a minute and more at 1 kW).
        fast: take `period_s` even below `MIN_PERIOD_S`.
        root: the powercap folder.
        clock: of the stamps.

    Raises:
        InvalidOptionError: `fast` is not true or false.
    """

    name = "rapl"

    def __init__(
        self,
        *,
        period_s: float = 0.2,
        fast: bool = False,
        root: Path | str = Path("/sys/class/powercap"),
        clock: Clock | None = None,
    ) -> None:
        if not isinstance(fast, bool):
            raise InvalidOptionError(f"RAPL's option `fast` is true or false, not {fast!r}.")
        super().__init__(period_s=period_s if fast else max(period_s, MIN_PERIOD_S), clock=clock)
        self._wanted_period_s = period_s
        self._fast = fast
        self._root = Path(root)
        self._zones: dict[str, _Zone] = {}
        self._readers: dict[str, Reader] = {}

    def probe(self) -> MeterProbe:
        """See `Meter`."""
        zones = self._find_zones()
        if not zones:
            return MeterProbe(
                False, f"No RAPL zones under {self._root}. Try: sudo modprobe intel_rapl_common (a VM has none)."
            )
        for zone in zones:
            try:
                read_number(zone.energy_file)
            except PermissionError:
                return MeterProbe(
                    False, f"{zone.energy_file} may not be read. Run: sudo chmod a+r {self._root}/*/energy_uj"
                )
            except OSError as error:
                return MeterProbe(False, f"{zone.energy_file} cannot be read: {error}.")
        domains = tuple(zone.domain for zone in zones)
        return MeterProbe(True, f"RAPL zones: {', '.join(domains)}", domains)

    def _open(self) -> None:
        self._zones = {zone.domain: zone for zone in self._find_zones()}
        self._readers = {domain: scaled(zone.energy_file, 1e-6) for domain, zone in self._zones.items()}

    def _read(self) -> Mapping[str, float]:
        return read_energy(self._readers, self._missed)

    def _settings(self) -> Mapping[str, str | float | int | None]:
        return {"period_s": self._period_s, "wanted_period_s": self._wanted_period_s, "fast": self._fast}

    def _trace(self, sensor: str, samples: Samples) -> Trace:
        zone = self._zones[sensor]
        time_s, values = samples.arrays()
        return Trace(
            zone.domain, zone.component, "counter", EnergyMethod.COUNTER, self.name, time_s, values, wrap_j=zone.wrap_j
        )

    def _find_zones(self) -> list[_Zone]:
        zones: list[_Zone] = []
        suffix = ""
        # AMD's packages carry Intel's name too. intel-rapl-mmio repeats the same packages through another door.
        for folder in sorted(self._root.glob("intel-rapl:*")):
            name = text_of(folder / "name")
            try:
                wrap_j = read_number(folder / "max_energy_range_uj") / 1e6
            except OSError:
                continue
            if not name:
                continue
            if folder.name.count(":") == 1:
                # psys takes a folder number as well: the package is told by its name, and its parts follow it.
                number = name.partition("-")[2]
                suffix = f":{number}" if name.startswith(("package", "psys")) and number not in ("", "0") else ""
            domain, component = _classify(name, suffix)
            zone = _Zone(domain, component, folder / "energy_uj", wrap_j)
            if any(each.domain == domain for each in zones):  # two zones of one name: neither may hide the other
                zone = replace(zone, domain=f"{domain}@{folder.name}")
            zones.append(zone)
        return zones


def _classify(name: str, suffix: str) -> tuple[str, Literal["cpu", "dram", "system", "part"]]:
    if name.startswith("package"):
        return f"cpu_package{suffix}", "cpu"
    if name == "dram":
        return f"dram{suffix}", "dram"
    if name.startswith("psys"):
        return f"psys{suffix}", "system"
    return f"cpu_{name}{suffix}", "part"
