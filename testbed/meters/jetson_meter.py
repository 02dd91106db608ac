"""NVIDIA Jetson: INA3221 power rails, with temperatures, clocks, load and fan beside them. Needs no root."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from contract.trial_result import EnergyMethod
from energy.trace import Trace
from testbed.clock import Clock
from testbed.meters.base import MeterProbe
from testbed.meters.jetson_clocks import UNKNOWN, clocks_state
from testbed.meters.jetson_rail import Component, check_rail_options, components, find_rails
from testbed.meters.sampled_meter import SampledMeter
from testbed.meters.sampler import Reader, SamplerThread, Samples, read_each, read_energy
from testbed.meters.sysfs import gpu_devices, is_readable, scaled, text_of

_PLAUSIBLE_C = (-20.0, 150.0)

_NO_SENSOR = "PMIC"
"""Beginning of the name of a zone that says 100 degrees whatever it is (Nano, TX2, Xavier: `PMIC-Die`)."""

_MEMINFO = re.compile(r"^(MemTotal|MemAvailable):\s*(\d+) kB", re.MULTILINE)

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
        cpufreq: the kernel's folder of the processors' clocks.
        meminfo: the kernel's account of the memory, which processor and GPU share.
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
        cpufreq: Path | str = Path("/sys/devices/system/cpu/cpufreq"),
        meminfo: Path | str = Path("/proc/meminfo"),
        clock: Clock | None = None,
    ) -> None:
        super().__init__(period_s=period_s, clock=clock)
        check_rail_options(self.name, total_rail, added_rails)
        self._total_rail, self._added_rails = total_rail, added_rails
        self._hwmon, self._iio = Path(hwmon), Path(iio)
        self._thermal, self._devfreq = Path(thermal), Path(devfreq)
        self._gpu_load = [Path(each) for each in gpu_load]
        self._cpufreq, self._meminfo = Path(cpufreq), Path(meminfo)
        self._clocks_state = UNKNOWN
        self._files: dict[str, tuple[Path, Path]] = {}
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
        # Before the trial sets a clock itself.
        self._clocks_state = clocks_state(self._devfreq, self._cpufreq)
        rails = find_rails(self._hwmon, self._iio)
        self._files = {rail.label: (rail.voltage_file, rail.current_file) for rail in rails}
        readers = {rail.label: rail.reader() for rail in rails}
        self._rails = {label: read for label, read in readers.items() if is_readable(read)}
        self._components = self._classify(list(self._rails))
        fast, slow = self._gpu_readers(), self._zone_readers() | self._fan_readers()
        slow["ram/memory_used_bytes"] = partial(_memory_used_bytes, self._meminfo)
        self._fast = {sensor: read for sensor, read in fast.items() if is_readable(read)}
        self._slow = {sensor: read for sensor, read in slow.items() if is_readable(read)}

    def _gpu_readers(self) -> dict[str, Reader]:
        devices = gpu_devices(self._devfreq)
        loads = [*self._gpu_load, *(each / "device" / "load" for each in devices)]
        readers = {f"gpu:{i}/clock_mhz": scaled(each / "cur_freq", 1e-6) for i, each in enumerate(devices)}
        load = next((each for each in (scaled(file, 1e-3) for file in loads) if is_readable(each)), None)
        return readers | ({"gpu:0/utilisation": load} if load is not None else {})

    def _zone_readers(self) -> dict[str, Reader]:
        names = {zone: text_of(zone / "type") or zone.name for zone in sorted(self._thermal.glob("thermal_zone*"))}
        return {
            f"{name}/temp_c": _temperature(scaled(zone / "temp", 1e-3))
            for zone, name in names.items()
            if not name.startswith(_NO_SENSOR)
        }

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

    def _warnings(self, sampler: SamplerThread) -> tuple[str, ...]:
        # Which file it was helps more than which rail: it says whether a driver went, or one channel.
        gone = [str(file) for label in self._rails for file in self._files[label] if not is_readable(scaled(file, 1.0))]
        return (*super()._warnings(sampler), *([f"cannot be read any more: {', '.join(gone)}"] if gone else ()))

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
            "clocks": self._clocks_state,
        }


def _memory_used_bytes(meminfo: Path) -> float:
    """What is not available to a new process: MemTotal less MemAvailable of proc(5)."""
    found = dict(_MEMINFO.findall(meminfo.read_text()))
    try:
        return (int(found["MemTotal"]) - int(found["MemAvailable"])) * 1024.0
    except KeyError as error:
        raise OSError(f"{meminfo} has no {error}") from error


def _temperature(read: Reader) -> Reader:
    def plausible() -> float:
        temp_c = read()
        if not _PLAUSIBLE_C[0] < temp_c < _PLAUSIBLE_C[1]:  # a zone that is off reads as -256 C
            raise OSError(f"{temp_c} degrees Celsius")
        return temp_c

    return plausible
