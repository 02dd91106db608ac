"""Temperatures for the thermal gate: processor and GPUs."""

from pathlib import Path
from types import ModuleType
from typing import Any

from contract.trial_result import TemperatureReading

_CPU_CHIPS = ("coretemp", "k10temp", "zenpower", "cpu_thermal")
_CPU_ZONES = ("x86_pkg_temp", "cpu", "tj")
_PLAUSIBLE_C = (-20.0, 150.0)


class SystemThermometer:
    """Reads hwmon's processor chips (else thermal zones of processors) and NVIDIA GPUs.

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
        processors = self._read_hwmon() or self._read_zones()
        return processors + self._read_gpus()

    def _read_hwmon(self) -> list[TemperatureReading]:
        readings = []
        for chip in sorted(self._hwmon.glob("hwmon*")):
            name = _text(chip / "name")
            if name in _CPU_CHIPS:
                hottest = max(
                    (t for file in chip.glob("temp*_input") if (t := _celsius(file)) is not None), default=None
                )
                if hottest is not None:
                    readings.append(TemperatureReading(sensor=f"{name}:{chip.name}", temp_c=hottest))
        return readings

    def _read_zones(self) -> list[TemperatureReading]:
        readings = []
        for zone in sorted(self._thermal.glob("thermal_zone*")):
            kind = _text(zone / "type")
            temp_c = _celsius(zone / "temp")
            if kind.lower().startswith(_CPU_ZONES) and temp_c is not None:
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
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                temp_c = float(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))
                readings.append(TemperatureReading(sensor=f"gpu:{index}", temp_c=temp_c))
        except nvml.NVMLError:
            return readings
        finally:
            nvml.nvmlShutdown()
        return readings


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _celsius(path: Path) -> float | None:
    text = _text(path)
    try:
        temp_c = int(text) / 1e3
    except ValueError:
        return None
    return temp_c if _PLAUSIBLE_C[0] < temp_c < _PLAUSIBLE_C[1] else None
