"""An NVML with the shape of pynvml, whose GPUs say what they are told. Meters take it as their library."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any


@dataclass
class GpuDouble:
    """One GPU.

    Attributes:
        power_w: what all its power sensors say, and what its counter adds up.
        refuses: functions and field names that are NOT_SUPPORTED here.
        fails: function -> how many of its next calls fail, as a lost sample does.
        compute_pids: on its list of compute processes.
        graphics_pids: on its list of graphics processes.
        architecture: NVML's number; 9 is Hopper.
    """

    power_w: float = 100.0
    temp_c: float = 40.0
    refuses: frozenset[str] = frozenset()
    fails: dict[str, int] = field(default_factory=dict)
    compute_pids: list[int] = field(default_factory=list)
    graphics_pids: list[int] = field(default_factory=list)
    name: str = "NVIDIA H100"
    architecture: int = 9
    throttle_reasons: int = 0
    n_calls: dict[str, int] = field(default_factory=dict)


class NvmlDouble:
    """Answers like the module pynvml.

    Args:
        gpus: two GPUs at 100 and 200 W by default; the second has no energy counter.
        starts: False: no driver is loaded.
        absent: functions that the driver's library does not have (FUNCTION_NOT_FOUND).
        clock_s: time of the energy counters, s.
    """

    class NVMLError(Exception):
        pass

    class NVMLError_NotSupported(NVMLError):
        pass

    NVML_TEMPERATURE_GPU = 0
    NVML_CLOCK_SM = 1
    NVML_CLOCK_MEM = 2
    NVML_FI_DEV_POWER_AVERAGE = 185
    NVML_FI_DEV_POWER_INSTANT = 186
    NVML_DEVICE_ARCH_AMPERE = 7

    def __init__(
        self,
        gpus: list[GpuDouble] | None = None,
        *,
        starts: bool = True,
        absent: frozenset[str] = frozenset(),
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        default = [GpuDouble(), GpuDouble(200.0, 41.0, frozenset({"nvmlDeviceGetTotalEnergyConsumption"}))]
        self.gpus = default if gpus is None else gpus
        self.n_open = 0
        self._starts, self._absent, self._clock_s = starts, absent, clock_s

    def nvmlInit(self) -> None:
        if not self._starts:
            raise self.NVMLError("Driver Not Loaded")
        self.n_open += 1

    def nvmlShutdown(self) -> None:
        self.n_open -= 1

    def nvmlSystemGetDriverVersion(self) -> str:
        return "580.1"

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> GpuDouble:
        return self.gpus[index]

    def nvmlDeviceGetFieldValues(self, gpu: GpuDouble, field_ids: list[int]) -> list[Any]:
        self._ask(gpu, "nvmlDeviceGetFieldValues")
        names = {185: "POWER_AVERAGE", 186: "POWER_INSTANT"}
        value = SimpleNamespace(uiVal=round(gpu.power_w * 1e3))
        return [SimpleNamespace(nvmlReturn=3 if names[each] in gpu.refuses else 0, value=value) for each in field_ids]

    def __getattr__(self, function: str) -> Callable[..., Any]:
        answers: Mapping[str, Callable[..., Any]] = {
            "nvmlDeviceGetTotalEnergyConsumption": lambda gpu: int(self._clock_s() * gpu.power_w * 1e3),
            "nvmlDeviceGetPowerUsage": lambda gpu: round(gpu.power_w * 1e3),
            "nvmlDeviceGetTemperatureV": lambda gpu, sensor: gpu.temp_c,
            "nvmlDeviceGetTemperature": lambda gpu, sensor: gpu.temp_c,
            "nvmlDeviceGetClockInfo": lambda gpu, kind: {1: 1980, 2: 2619}[kind],
            "nvmlDeviceGetApplicationsClock": lambda gpu, kind: {1: 1830, 2: 2619}[kind],
            "nvmlDeviceGetUtilizationRates": lambda gpu: SimpleNamespace(gpu=75, memory=20),
            "nvmlDeviceGetCurrentClocksEventReasons": lambda gpu: gpu.throttle_reasons,
            "nvmlDeviceGetCurrentClocksThrottleReasons": lambda gpu: gpu.throttle_reasons,
            "nvmlDeviceGetMemoryInfo": lambda gpu: SimpleNamespace(used=2**30, total=2**36),
            "nvmlDeviceGetEnforcedPowerLimit": lambda gpu: 700_000,
            "nvmlDeviceGetFanSpeedRPM": lambda gpu: 2400,
            "nvmlDeviceGetComputeRunningProcesses": lambda gpu: [SimpleNamespace(pid=pid) for pid in gpu.compute_pids],
            "nvmlDeviceGetGraphicsRunningProcesses": lambda gpu: [SimpleNamespace(pid=p) for p in gpu.graphics_pids],
            "nvmlDeviceGetName": lambda gpu: gpu.name,
            "nvmlDeviceGetUUID": lambda gpu: f"GPU-{self.gpus.index(gpu)}",
            "nvmlDeviceGetPersistenceMode": lambda gpu: 1,
            "nvmlDeviceGetMigMode": lambda gpu: [0, 0],
            "nvmlDeviceGetArchitecture": lambda gpu: gpu.architecture,
        }
        if function not in answers:
            raise AttributeError(function)

        def call(gpu: GpuDouble, *arguments: Any) -> Any:
            self._ask(gpu, function)
            return answers[function](gpu, *arguments)

        return call

    def _ask(self, gpu: GpuDouble, function: str) -> None:
        gpu.n_calls[function] = gpu.n_calls.get(function, 0) + 1
        if function in self._absent:
            raise self.NVMLError("Function Not Found")
        if function in gpu.refuses:
            raise self.NVMLError_NotSupported("Not Supported")
        if gpu.fails.get(function, 0) > 0:
            gpu.fails[function] -= 1
            raise self.NVMLError("Unknown Error")
