"""A device that is a file, so that other processes see its state: for trying things out, and for tests."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contract.errors import ActuatorError, ActuatorUnavailableError
from testbed.actuators.base import ActuatorLimits, DeviceGoneError, Original, ReadBack, Setting, SettingRange
from testbed.attempt_folder import write_atomic
from testbed.simulation.orin_grid import CLOCKS_MHZ

_RANGES = {
    "clock_mhz": SettingRange(
        210.0, 1980.0, tuple(float(step) for step in range(210, 1981, 15)), step_tolerance=0.5, tolerance=0.5
    ),
    "power_limit_w": SettingRange(200.0, 700.0, tolerance=0.5),
}
_ORIN_RANGES = {"clock_mhz": SettingRange(CLOCKS_MHZ[0], CLOCKS_MHZ[-1], CLOCKS_MHZ, step_tolerance=0.5, tolerance=0.5)}
_FAN_RANGES = {"fan_duty": SettingRange(0.0, 1.0, tolerance=0.005)}


class SimulatedActuator:
    """Sets clock and power limit of a GPU that is a JSON file, which is made when the device is first set.

    Keys of the file beside the two quantities make it misbehave: `forbidden` (text: nothing may be set), `refuses`
    (text: any writing fails with it, also putting back), `offset_mhz` (it takes another clock than it was told).

    Args:
        domain: any name; the file is called after it.
        folder: where the file is.
    """

    name = "simulated"
    factory_state: Mapping[str, float] = {"clock_mhz": 1980.0, "power_limit_w": 700.0}
    """What it is set to before anybody has set it."""
    ranges: Mapping[str, SettingRange] = _RANGES

    def __init__(self, *, domain: str, folder: Path | str) -> None:
        self.domain = domain
        self.arguments: Mapping[str, str] = {"folder": str(folder)}
        self._path = Path(folder) / f"{domain}.json"

    def limits(self) -> ActuatorLimits:
        """See `Actuator`."""
        try:
            device = self._device()
        except ActuatorError as error:
            return ActuatorLimits(False, error.message)
        if device.get("forbidden"):
            return ActuatorLimits(False, str(device["forbidden"]))
        told = ", ".join(f"{quantity} {each}" for quantity, each in self.ranges.items())
        return ActuatorLimits(True, f"{self.domain}, a simulated device: {told}", self.ranges)

    def original(self) -> Original:
        """See `Actuator`."""
        state = self._values()
        return Original(state, f"echo '{json.dumps(state)}' > {self._path}")

    def apply(self, setting: Setting) -> ReadBack:
        """See `Actuator`."""
        device = self._device()
        if device.get("forbidden"):
            raise ActuatorUnavailableError(str(device["forbidden"]))
        wanted = dict(setting)
        if "clock_mhz" in wanted:
            wanted["clock_mhz"] += float(device.get("offset_mhz", 0.0))
        self._write({**self.factory_state, **device, **wanted})
        return self.read()

    def read(self) -> ReadBack:
        """See `Actuator`."""
        return self._values()

    def restore(self, original: Original) -> None:
        """See `Actuator`."""
        if not self._path.exists():
            raise DeviceGoneError(f"The simulated device {self._path} is not there any more.")
        device = self._device()
        wanted = {**device, **original.state}
        if wanted != device:
            self._write(wanted)

    def _values(self) -> dict[str, float]:
        device = self._device()
        return {quantity: float(device.get(quantity, value)) for quantity, value in self.factory_state.items()}

    def _device(self) -> dict[str, Any]:
        try:
            device = json.loads(self._path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise ActuatorError(f"The simulated device {self._path} cannot be read ({error}). Remove it.") from error
        return dict(device)

    def _write(self, device: Mapping[str, Any]) -> None:
        if device.get("refuses"):
            raise ActuatorError(f"{self.domain} refuses: {device['refuses']}")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomic(self._path, json.dumps(device))
        except OSError as error:
            raise ActuatorError(f"The simulated device {self._path} cannot be written ({error}).") from error


class SimulatedOrinActuator(SimulatedActuator):
    """The clock of a simulated AGX Orin, in its own steps; see `SimulatedActuator`."""

    name = "simulated_orin"
    factory_state: Mapping[str, float] = {"clock_mhz": CLOCKS_MHZ[-1]}
    ranges: Mapping[str, SettingRange] = _ORIN_RANGES


class SimulatedFanActuator(SimulatedActuator):
    """A simulated fan, from 0 (stopped) to 1 (full); see `SimulatedActuator`."""

    name = "simulated_fan"
    factory_state: Mapping[str, float] = {"fan_duty": 1.0}
    ranges: Mapping[str, SettingRange] = _FAN_RANGES
