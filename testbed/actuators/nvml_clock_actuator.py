"""An NVIDIA GPU's clock, locked to one value as `nvidia-smi -lgc` does."""

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from contract.errors import ActuatorError, ActuatorUnavailableError
from energy.device_rules import CLOCK_TOLERANCE_MHZ
from testbed.actuators.base import ActuatorLimits, Original, ReadBack, Setting, SettingRange
from testbed.actuators.nvml_device import NvmlDevice, may_administer

_IDLE = 0x1
"""Bit of the clocks' event reasons (nvml.h): nothing runs on the GPU, and its clock is low for that."""

_REASONS = ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons")
"""The same under its new and its old name."""


class NvmlClockActuator:
    """Locks the graphics clock (`clock_mhz`), lowest and highest alike.

    Steps are those of `nvidia-smi -q -d SUPPORTED_CLOCKS` at the highest memory clock, which is the one under load.
    NVML cannot tell whether, and where, a clock is locked: the clock itself is read back, and only while the GPU is
    not idle. For the same reason putting back means unlocking: a lock that somebody else set before is lost.

    Args:
        domain: `gpu:0` and so on.
        nvml: the library's module; pynvml by default.
        is_allowed: whether this process may set anything.

    Raises:
        InvalidOptionError: the domain is no GPU's.
    """

    name = "nvml_clock"

    def __init__(
        self,
        *,
        domain: str,
        nvml: ModuleType | Any | None = None,
        is_allowed: Callable[[], bool] = may_administer,
    ) -> None:
        self.domain = domain
        self.arguments: Mapping[str, str] = {}
        self._device = NvmlDevice(domain, nvml, is_allowed)
        self._nvml = self._device.nvml

    def limits(self) -> ActuatorLimits:
        """See `Actuator`."""
        try:
            with self._device.session() as gpu:
                steps = tuple(sorted(float(step) for step in self._supported(gpu)))
                obstacle = self._device.obstacle(gpu)
        except (ActuatorError, ActuatorUnavailableError) as error:
            return ActuatorLimits(False, error.message)
        if not steps:
            return ActuatorLimits(False, f"{self.domain} lists no clocks that it could be locked to.")
        if obstacle is not None:
            by_hand = f"Or lock it by hand (sudo nvidia-smi -i {self._device.index} -lgc MHZ) and say so in the study: "
            return ActuatorLimits(False, f'{obstacle} {by_hand}meter.expected_clock_mhz={{"{self.domain}": MHZ}}.')
        known = SettingRange(steps[0], steps[-1], steps, step_tolerance=0.5, tolerance=CLOCK_TOLERANCE_MHZ)
        return ActuatorLimits(True, f"{self.domain}: clock_mhz {known}", {"clock_mhz": known})

    def original(self) -> Original:
        """See `Actuator`: unlocked, since NVML does not tell of locks."""
        with self._device.session() as gpu:
            return Original({"uuid": self._device.uuid(gpu)}, f"sudo nvidia-smi -i {self._device.index} -rgc")

    def apply(self, setting: Setting) -> ReadBack:
        """See `Actuator`."""
        clock_mhz = round(setting["clock_mhz"])
        with self._device.session() as gpu:
            self._nvml.nvmlDeviceSetGpuLockedClocks(gpu, clock_mhz, clock_mhz)
            return self._read(gpu)

    def read(self) -> ReadBack:
        """See `Actuator`: the clock now; None while the GPU is idle, which says nothing of a lock."""
        with self._device.session() as gpu:
            return self._read(gpu)

    def restore(self, original: Original) -> None:
        """See `Actuator`: unlock."""
        with self._device.session(str(original.state["uuid"])) as gpu:
            self._nvml.nvmlDeviceResetGpuLockedClocks(gpu)

    def _supported(self, gpu: Any) -> list[int]:
        memory_clock_mhz = max(self._nvml.nvmlDeviceGetSupportedMemoryClocks(gpu))
        return list(self._nvml.nvmlDeviceGetSupportedGraphicsClocks(gpu, memory_clock_mhz))

    def _read(self, gpu: Any) -> ReadBack:
        if self._is_idle(gpu):
            return {"clock_mhz": None}
        return {"clock_mhz": float(self._nvml.nvmlDeviceGetClockInfo(gpu, self._nvml.NVML_CLOCK_SM))}

    def _is_idle(self, gpu: Any) -> bool:
        for function in _REASONS:
            try:
                return bool(getattr(self._nvml, function)(gpu) & _IDLE)
            except (self._nvml.NVMLError, AttributeError):
                continue
        return True  # not known: then the clock says nothing either
