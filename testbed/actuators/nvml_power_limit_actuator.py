"""An NVIDIA GPU's power limit, as `nvidia-smi -pl` sets it."""

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from pydantic import JsonValue

from contract.errors import ActuatorError, ActuatorUnavailableError
from testbed.actuators.base import ActuatorLimits, Original, ReadBack, Setting, SettingRange
from testbed.actuators.nvml_device import NvmlDevice, may_administer


class NvmlPowerLimitActuator:
    """Sets the power limit (`power_limit_w`); puts back the one that was found, which need not be the default.

    Args:
        domain: `gpu:0` and so on.
        nvml: the library's module; pynvml by default.
        is_allowed: whether this process may set anything.

    Raises:
        InvalidOptionError: the domain is no GPU's.
    """

    name = "nvml_power_limit"

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
                lowest_mw, highest_mw = self._nvml.nvmlDeviceGetPowerManagementLimitConstraints(gpu)
                obstacle = self._device.obstacle(gpu)
        except (ActuatorError, ActuatorUnavailableError) as error:
            return ActuatorLimits(False, error.message)
        if obstacle is not None:
            by_hand = f"Or set it by hand: sudo nvidia-smi -i {self._device.index} -pl WATTS"
            return ActuatorLimits(False, f"{obstacle} {by_hand}")
        known = SettingRange(lowest_mw / 1e3, highest_mw / 1e3, tolerance=0.5)
        return ActuatorLimits(True, f"{self.domain}: power_limit_w {known}", {"power_limit_w": known})

    def original(self) -> Original:
        """See `Actuator`."""
        with self._device.session() as gpu:
            limit_mw = int(self._nvml.nvmlDeviceGetPowerManagementLimit(gpu))
            uuid = self._device.uuid(gpu)
        state: dict[str, JsonValue] = {"uuid": uuid, "power_limit_mw": limit_mw}
        return Original(state, f"sudo nvidia-smi -i {self._device.index} -pl {limit_mw / 1e3:g}")

    def apply(self, setting: Setting) -> ReadBack:
        """See `Actuator`."""
        with self._device.session() as gpu:
            self._nvml.nvmlDeviceSetPowerManagementLimit(gpu, round(setting["power_limit_w"] * 1e3))
            return self._read(gpu)

    def read(self) -> ReadBack:
        """See `Actuator`."""
        with self._device.session() as gpu:
            return self._read(gpu)

    def restore(self, original: Original) -> None:
        """See `Actuator`."""
        with self._device.session(str(original.state["uuid"])) as gpu:
            self._nvml.nvmlDeviceSetPowerManagementLimit(gpu, original.state["power_limit_mw"])

    def _read(self, gpu: Any) -> ReadBack:
        return {"power_limit_w": self._nvml.nvmlDeviceGetPowerManagementLimit(gpu) / 1e3}
