"""Devices that can be set: an NVML whose GPUs take clocks and limits, and the sysfs files of clocks and fans."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.testbed.nvml_double import GpuDouble, NvmlDouble
from tests.testbed.sysfs_double import put

ORIN_HZ = (306_000_000, 408_000_000, 510_000_000, 612_000_000, 918_000_000, 1_020_000_000, 1_300_500_000)


@dataclass
class SettableGpu(GpuDouble):
    """One GPU that takes settings.

    Attributes:
        locked_mhz: its lock; None: unlocked.
        limit_mw: its power limit.
        is_idle: then its clock is low, whatever it is locked to.
        is_mig: split into instances.
        is_forbidden: the driver refuses every setting.
        is_stubborn: the driver takes a clock, and the GPU runs at another.
        settings: every call that set something, in order.
    """

    locked_mhz: int | None = None
    limit_mw: int = 650_000
    is_idle: bool = False
    is_mig: bool = False
    is_forbidden: bool = False
    is_stubborn: bool = False
    settings: list[tuple[Any, ...]] = field(default_factory=list)


class SettableNvml(NvmlDouble):
    """Answers like pynvml on two H100 of one machine, or on others."""

    class NVMLError_NoPermission(NvmlDouble.NVMLError):
        pass

    def __init__(self, gpus: list[SettableGpu] | None = None, **options: Any) -> None:
        self.settable = [SettableGpu(), SettableGpu()] if gpus is None else gpus
        super().__init__(list(self.settable), **options)

    def nvmlDeviceGetUUID(self, gpu: SettableGpu) -> str:
        return f"GPU-{next(i for i, each in enumerate(self.gpus) if each is gpu)}"

    def nvmlDeviceGetMigMode(self, gpu: SettableGpu) -> list[int]:
        return [int(gpu.is_mig), int(gpu.is_mig)]

    def nvmlDeviceGetSupportedMemoryClocks(self, gpu: SettableGpu) -> list[int]:
        self._ask(gpu, "nvmlDeviceGetSupportedMemoryClocks")
        return [2619, 1593]

    def nvmlDeviceGetSupportedGraphicsClocks(self, gpu: SettableGpu, memory_mhz: int) -> list[int]:
        return list(range(1980, 330, -15)) if memory_mhz == 2619 else [345]

    def nvmlDeviceSetGpuLockedClocks(self, gpu: SettableGpu, lowest_mhz: int, highest_mhz: int) -> None:
        self._set(gpu, "lock", lowest_mhz, highest_mhz)
        gpu.locked_mhz = highest_mhz

    def nvmlDeviceResetGpuLockedClocks(self, gpu: SettableGpu) -> None:
        self._set(gpu, "unlock")
        gpu.locked_mhz = None

    def nvmlDeviceGetClockInfo(self, gpu: SettableGpu, kind: int) -> int:
        if gpu.is_idle:
            return 345
        return 1980 if gpu.locked_mhz is None or gpu.is_stubborn else gpu.locked_mhz

    def nvmlDeviceGetCurrentClocksEventReasons(self, gpu: SettableGpu) -> int:
        return 0x1 if gpu.is_idle else 0x0

    def nvmlDeviceGetPowerManagementLimitConstraints(self, gpu: SettableGpu) -> list[int]:
        self._ask(gpu, "nvmlDeviceGetPowerManagementLimitConstraints")
        return [200_000, 700_000]

    def nvmlDeviceGetPowerManagementLimit(self, gpu: SettableGpu) -> int:
        return gpu.limit_mw

    def nvmlDeviceSetPowerManagementLimit(self, gpu: SettableGpu, limit_mw: int) -> None:
        self._set(gpu, "limit", limit_mw)
        gpu.limit_mw = limit_mw

    def _set(self, gpu: SettableGpu, *call: Any) -> None:
        if gpu.is_forbidden:
            raise self.NVMLError_NoPermission("Insufficient Permissions")
        gpu.settings.append(call)


def devfreq(folder: Path) -> Path:
    """An Orin's GPU, free between its lowest and its highest clock, and another device beside it."""
    gpu = folder / "17000000.gpu"
    put(gpu / "available_frequencies", " ".join(str(hz) for hz in ORIN_HZ))
    put(gpu / "min_freq", ORIN_HZ[0])
    put(gpu / "max_freq", ORIN_HZ[-1])
    put(folder / "15340000.vic" / "min_freq", 115_200_000)
    return folder


def fans(folder: Path) -> dict[str, Path]:
    """A chip without a fan, and one that the kernel controls at a third of its speed; as arguments of `FanActuator`."""
    put(folder / "hwmon" / "hwmon0" / "name", "ina3221")
    put(folder / "hwmon" / "hwmon2" / "name", "pwmfan")
    put(folder / "hwmon" / "hwmon2" / "pwm1", 85)
    put(folder / "hwmon" / "hwmon2" / "pwm1_enable", 2)
    return {"hwmon": folder / "hwmon", "jetpack4": folder / "none"}


def files(folder: Path) -> dict[str, str]:
    """Every file below a folder, with its content."""
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}
