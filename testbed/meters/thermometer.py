"""Temperatures for the thermal gate: processor and GPUs."""

from pathlib import Path
from types import ModuleType
from typing import Any

from contract.node_info import TemperatureReading
from testbed.meters.nvml_reading import temperature_reader
from testbed.meters.sysfs import read_number, text_of

_CPU_CHIPS = ("coretemp", "k10temp", "zenpower")
_ZONE_CHIPS = ("cpu_thermal",)
"""hwmon's copies of thermal zones: taken where the zones themselves are not."""

_ZONES = ("x86_pkg_temp", "cpu", "gpu", "soc", "tj")
"""Beginnings of the names of zones on the chip; a Jetson has cpu-thermal, gpu-thermal, soc0-thermal, tj-thermal."""

_PLAUSIBLE_C = (-20.0, 150.0)


class SystemThermometer:
    """Reads hwmon's processor chips (else thermal zones of the chip, as on a Jetson) and NVIDIA GPUs.

    Sensors of disks, batteries and the mainboard are left out: they cool in their own time.

    Args:
        hwmon: the kernel's hwmon folder.
        thermal: the kernel's thermal folder.
        nvml: the NVML module; pynvml where it is installed.
    """

    def __init__(
        self,
        hwmon: Path = Path("/sys/class/hwmon"),
        thermal: Path = Path("/sys/class/thermal"),
        nvml: ModuleType | Any | None = None,
    ) -> None:
        self._hwmon = hwmon
        self._thermal = thermal
        self._nvml = nvml

    def read(self) -> list[TemperatureReading]:
        """See `Thermometer`."""
        processors = self._read_hwmon(_CPU_CHIPS) or self._read_zones() or self._read_hwmon(_ZONE_CHIPS)
        return processors + self._read_gpus()

    def _read_hwmon(self, names: tuple[str, ...]) -> list[TemperatureReading]:
        readings = []
        for chip in sorted(self._hwmon.glob("hwmon*")):
            name = text_of(chip / "name")
            if name in names:
                hottest = max(
                    (t for file in chip.glob("temp*_input") if (t := _celsius(file)) is not None), default=None
                )
                if hottest is not None:
                    readings.append(TemperatureReading(sensor=f"{name}:{chip.name}", temp_c=hottest))
        return readings

    def _read_zones(self) -> list[TemperatureReading]:
        readings = []
        for zone in sorted(self._thermal.glob("thermal_zone*")):
            kind = text_of(zone / "type")
            temp_c = _celsius(zone / "temp")
            if kind.lower().startswith(_ZONES) and temp_c is not None:
                readings.append(TemperatureReading(sensor=f"{kind}:{zone.name}", temp_c=temp_c))
        return readings

    def _read_gpus(self) -> list[TemperatureReading]:
        nvml: Any = self._nvml
        if nvml is None:
            try:
                import pynvml
            except ModuleNotFoundError:
                return []
            nvml = pynvml
        readings: list[TemperatureReading] = []
        try:
            nvml.nvmlInit()
        except nvml.NVMLError:
            return readings
        try:
            for index in range(nvml.nvmlDeviceGetCount()):
                read = temperature_reader(nvml, nvml.nvmlDeviceGetHandleByIndex(index))
                if read is not None:
                    readings.append(TemperatureReading(sensor=f"gpu:{index}", temp_c=read()))
        except (nvml.NVMLError, OSError):
            return readings
        finally:
            nvml.nvmlShutdown()
        return readings


def _celsius(path: Path) -> float | None:
    try:
        temp_c = read_number(path) / 1e3
    except OSError:
        return None
    return temp_c if _PLAUSIBLE_C[0] < temp_c < _PLAUSIBLE_C[1] else None
