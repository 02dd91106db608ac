"""RAPL through the kernel's powercap files: cumulative microjoules per zone."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from contract.trial_result import EnergyMethod
from energy.trace import Trace
from testbed.clock import Clock
from testbed.meters.base import MeterProbe
from testbed.meters.sampled_meter import SampledMeter
from testbed.meters.sampler import Samples


@dataclass(frozen=True)
class _Zone:
    domain: str
    component: Literal["cpu", "dram", "system", "part"]
    energy_file: Path
    wrap_j: float


class RaplMeter(SampledMeter):
    """Reads every RAPL zone: packages and DRAM add up, cores and uncore are parts, psys holds them all.

    Args:
        period_s: sampling period; far below the time of a wrap (a minute and more at 1 kW).
        root: the powercap folder.
        clock: of the stamps.
    """

    name = "rapl"

    def __init__(
        self, *, period_s: float = 0.2, root: Path | str = Path("/sys/class/powercap"), clock: Clock | None = None
    ) -> None:
        super().__init__(period_s=period_s, clock=clock)
        self._root = Path(root)
        self._zones: dict[str, _Zone] = {}

    def probe(self) -> MeterProbe:
        """See `Meter`."""
        zones = self._find_zones()
        if not zones:
            return MeterProbe(
                False, f"No RAPL zones under {self._root}. Try: sudo modprobe intel_rapl_common (a VM has none)."
            )
        for zone in zones:
            try:
                zone.energy_file.read_text()
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

    def _read(self) -> Mapping[str, float]:
        try:
            return {domain: int(zone.energy_file.read_text()) / 1e6 for domain, zone in self._zones.items()}
        except ValueError as error:
            raise OSError(f"not a number: {error}") from error

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
            try:
                name = (folder / "name").read_text().strip()
                wrap_j = int((folder / "max_energy_range_uj").read_text()) / 1e6
            except (OSError, ValueError):
                continue
            if folder.name.count(":") == 1:
                # psys takes a folder number as well: the package is told by its name, and its parts follow it.
                number = name.partition("-")[2]
                suffix = f":{number}" if name.startswith("package") and number not in ("", "0") else ""
            domain, component = _classify(name, suffix)
            zones.append(_Zone(domain, component, folder / "energy_uj", wrap_j))
        return zones


def _classify(name: str, suffix: str) -> tuple[str, Literal["cpu", "dram", "system", "part"]]:
    if name.startswith("package"):
        return f"cpu_package{suffix}", "cpu"
    if name == "dram":
        return f"dram{suffix}", "dram"
    if name == "psys":
        return "psys", "system"
    return f"cpu_{name}{suffix}", "part"
