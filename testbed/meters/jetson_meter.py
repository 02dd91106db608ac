"""NVIDIA Jetson: INA3221 power rails, with temperatures, clocks, load and fan beside them. Needs no root."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

from contract.errors import InvalidOptionError
from contract.trial_result import EnergyMethod
from energy.trace import Trace
from testbed.clock import Clock
from testbed.meters.base import MeterProbe
from testbed.meters.jetson_rail import Component, components, find_rails
from testbed.meters.sampled_meter import SampledMeter
from testbed.meters.sampler import Reader, Samples, read_each, read_energy
from testbed.meters.sysfs import is_readable, scaled, text_of

_GPU_NAME = re.compile(r"\.(gpu|g[a-z]\d+b)$")
"""Devfreq devices such as 17000000.gpu, 17000000.ga10b, 17000000.gv11b, 57000000.gpu."""

_PLAUSIBLE_C = (-20.0, 150.0)

_HOW = "volt x ampere of an INA3221, which averages some conversions by itself"


class JetsonMeter(SampledMeter):
    """Reads every rail of every INA3221; watts are integrated, there is no counter.

    Domains are the board's own rail names, because a rail seldom feeds one thing alone. Where there is a rail of the
    whole module it is the headline, and the others are its parts; else those that are known to be disjoint add up:
    see `jetson_rail`. A board that the table does not know has parts only until an option says more.

    Args:
        period_s: sampling period.
        total_rail: rail that holds all others.
        added_rails: rail -> `cpu`, `gpu` or `dram`: these add up, the others are parts.
        hwmon: the kernel's hwmon folder.
        iio: folder of the older driver.
        thermal: the kernel's thermal folder.
        devfreq: the kernel's devfreq folder.
        gpu_load: files with the GPU's load in thousandths; the first one that answers is read.
        clock: of the stamps.

    Raises:
        InvalidOptionError: both options at once, or one that is no rail's name or no component.
    """

    name = "jetson"

    def __init__(
        self,
        *,
        period_s: float = 0.2,
        total_rail: str | None = None,
        added_rails: Mapping[str, Component] | None = None,
        hwmon: Path | str = Path("/sys/class/hwmon"),
        iio: Path | str = Path("/sys/bus/i2c/drivers/ina3221x"),
        thermal: Path | str = Path("/sys/class/thermal"),
        devfreq: Path | str = Path("/sys/class/devfreq"),
        gpu_load: Sequence[Path | str] = (
            "/sys/devices/gpu.0/load",
            "/sys/devices/platform/gpu.0/load",
            "/sys/devices/platform/bus@0/17000000.gpu/load",
        ),
        clock: Clock | None = None,
    ) -> None:
        super().__init__(period_s=period_s, clock=clock)
        if total_rail is not None and added_rails is not None:
            raise InvalidOptionError("Give the meter jetson either total_rail or added_rails: a total holds them all.")
        if total_rail is not None and not isinstance(total_rail, str):
            raise InvalidOptionError(f"The option total_rail is a rail's name, not {total_rail!r}.")
        if added_rails is not None and not (
            isinstance(added_rails, Mapping) and added_rails and set(added_rails.values()) <= set(get_args(Component))
        ):
            raise InvalidOptionError(
                f'The option added_rails is such as {{"VDD_GPU_SOC": "gpu", "VDD_CPU_CV": "cpu"}}, not {added_rails!r}.'
            )
        self._total_rail, self._added_rails = total_rail, added_rails
        self._hwmon, self._iio = Path(hwmon), Path(iio)
        self._thermal, self._devfreq = Path(thermal), Path(devfreq)
        self._gpu_load = [Path(each) for each in gpu_load]
        self._components: dict[str, Component] = {}
        self._rails: dict[str, Reader] = {}
        self._fast: dict[str, Reader] = {}
        self._slow: dict[str, Reader] = {}

    def probe(self) -> MeterProbe:
        """See `Meter`."""
        rails = find_rails(self._hwmon, self._iio)
        if not rails:
            return MeterProbe(
                False,
                f"No INA3221 rails under {self._hwmon} or {self._iio}: this is no Jetson, or its driver is not loaded. "
                "On a Jetson, try: sudo modprobe ina3221",
            )
        labels = [rail.label for rail in rails]
        for wanted in (self._total_rail, *(self._added_rails or ())):
            if wanted is not None and wanted not in labels:
                return MeterProbe(False, f"There is no rail {wanted!r}. Choose from: {', '.join(labels)}.")
        unreadable = [rail for rail in rails if not is_readable(rail.reader())]
        if len(unreadable) == len(rails):
            return MeterProbe(False, f"{unreadable[0].current_file} cannot be read. Try: cat it as this user.")
        domains = tuple(rail.label for rail in rails if rail not in unreadable)
        added = [label for label, component in self._classify(domains).items() if component != "part"]
        total = ", ".join(added) or "none: choose with total_rail or added_rails"
        return MeterProbe(True, f"INA3221 rails: {', '.join(domains)}; in the sum: {total}", domains)

    def _classify(self, labels: Sequence[str]) -> dict[str, Component]:
        return components(labels, total_rail=self._total_rail, added_rails=self._added_rails)

    def _open(self) -> None:
        readers = {rail.label: rail.reader() for rail in find_rails(self._hwmon, self._iio)}
        self._rails = {label: read for label, read in readers.items() if is_readable(read)}
        self._components = self._classify(list(self._rails))
        fast, slow = self._gpu_readers(), self._zone_readers() | self._fan_readers()
        self._fast = {sensor: read for sensor, read in fast.items() if is_readable(read)}
        self._slow = {sensor: read for sensor, read in slow.items() if is_readable(read)}

    def _gpu_readers(self) -> dict[str, Reader]:
        devices = [each for each in sorted(self._devfreq.glob("*")) if _GPU_NAME.search(each.name)]
        loads = [*self._gpu_load, *(each / "device" / "load" for each in devices)]
        readers = {f"gpu:{i}/clock_mhz": scaled(each / "cur_freq", 1e-6) for i, each in enumerate(devices)}
        load = next((each for each in (scaled(file, 1e-3) for file in loads) if is_readable(each)), None)
        return readers | ({"gpu:0/utilisation": load} if load is not None else {})

    def _zone_readers(self) -> dict[str, Reader]:
        zones = sorted(self._thermal.glob("thermal_zone*"))
        readers = {
            f"{text_of(zone / 'type') or zone.name}/temp_c": _temperature(scaled(zone / "temp", 1e-3)) for zone in zones
        }
        return readers

    def _fan_readers(self) -> dict[str, Reader]:
        readers = {}
        for chip in sorted(self._hwmon.glob("hwmon*")):
            # JetPack's own tachometer driver has a file `rpm`.
            for file in ("fan1_input", "rpm"):
                if (chip / file).exists():
                    readers[f"{text_of(chip / 'name') or chip.name}/fan_rpm"] = scaled(chip / file, 1.0)
        return readers

    def _read(self) -> Mapping[str, float]:
        return read_energy(self._rails, self._missed)

    def _read_gauges(self) -> Mapping[str, float]:
        return read_each(self._fast, self._missed)

    def _read_slow_gauges(self) -> Mapping[str, float]:
        return read_each(self._slow, self._missed)

    def _trace(self, sensor: str, samples: Samples) -> Trace:
        component = self._components[sensor]
        is_added = component != "part"
        has_total = "system" in self._components.values()
        note = _HOW if is_added or has_total else f"{_HOW}; not in the sum, see options total_rail and added_rails"
        time_s, values = samples.arrays()
        return Trace(sensor, component, "power", EnergyMethod.SAMPLED, self.name, time_s, values, note=note)

    def _settings(self) -> Mapping[str, str | float | int | None]:
        added = [f"{rail} ({component})" for rail, component in self._components.items() if component != "part"]
        return {
            "period_s": self._period_s,
            "rails": ", ".join(self._components),
            "rails_in_sum": ", ".join(added),
            "gauges": ", ".join([*self._fast, *self._slow]),
        }


def _temperature(read: Reader) -> Reader:
    def plausible() -> float:
        temp_c = read()
        if not _PLAUSIBLE_C[0] < temp_c < _PLAUSIBLE_C[1]:  # a zone that is off reads as -256 C
            raise OSError(f"{temp_c} degrees Celsius")
        return temp_c

    return plausible
