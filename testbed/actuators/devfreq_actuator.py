"""A Jetson's GPU clock (or any devfreq device's), through the kernel's min_freq and max_freq."""

from collections.abc import Mapping
from pathlib import Path

from contract.errors import ActuatorError, ActuatorUnavailableError, InvalidOptionError
from testbed.actuators.base import ActuatorLimits, DeviceGoneError, Original, ReadBack, Setting, SettingRange
from testbed.actuators.sysfs_file import by_hand, obstacle, read_value, write_value
from testbed.meters.sysfs import gpu_devices, text_of

_TOLERANCE_MHZ = 0.5
_PAIR = ("min_clock_mhz", "max_clock_mhz")
_SETTINGS = (frozenset({"clock_mhz"}), frozenset(_PAIR))


class DevfreqActuator:
    """Sets `clock_mhz` (lowest and highest alike), or `min_clock_mhz` and `max_clock_mhz`.

    The kernel refuses a lowest clock above the highest, so the two files are written in the order that never crosses
    them: up: highest first, down: lowest first. Steps are those of available_frequencies.

    Args:
        domain: `gpu:0`, numbered as the meter `jetson` does, or a device's name in the folder: `17000000.gpu`.
        root: the kernel's devfreq folder.
    """

    name = "devfreq"

    def __init__(self, *, domain: str, root: Path | str = "/sys/class/devfreq") -> None:
        self.domain = domain
        self.arguments: Mapping[str, str] = {"root": str(root)}
        self._root = Path(root)

    def limits(self) -> ActuatorLimits:
        """See `Actuator`."""
        try:
            device = self._device()
            known = self._range(device)
        except (ActuatorError, DeviceGoneError) as error:
            return ActuatorLimits(False, error.message)
        in_the_way = obstacle(device / "min_freq") or obstacle(device / "max_freq")
        if in_the_way is not None:
            return ActuatorLimits(False, in_the_way)
        message = f"{self.domain} ({device.name}): clock_mhz {known}"
        return ActuatorLimits(True, message, dict.fromkeys(("clock_mhz", *_PAIR), known), _SETTINGS)

    def original(self) -> Original:
        """See `Actuator`."""
        device = self._device()
        lowest_hz, highest_hz = read_value(device / "min_freq"), read_value(device / "max_freq")
        mending = f"{by_hand(device / 'max_freq', highest_hz)}; {by_hand(device / 'min_freq', lowest_hz)}"
        return Original({"device": device.name, "min_hz": lowest_hz, "max_hz": highest_hz}, mending)

    def apply(self, setting: Setting) -> ReadBack:
        """See `Actuator`.

        Raises:
            InvalidOptionError: the lowest is above the highest; nothing was changed.
        """
        device = self._device()
        lowest_mhz = setting.get("clock_mhz", setting.get("min_clock_mhz", 0.0))
        highest_mhz = setting.get("clock_mhz", setting.get("max_clock_mhz", 0.0))
        if lowest_mhz > highest_mhz:
            raise InvalidOptionError(f"min_clock_mhz {lowest_mhz:g} is above max_clock_mhz {highest_mhz:g}.")
        _write(device, round(lowest_mhz * 1e6), round(highest_mhz * 1e6))
        return self.read()

    def read(self) -> ReadBack:
        """See `Actuator`: `clock_mhz` only where the two are one."""
        device = self._device()
        lowest_mhz, highest_mhz = read_value(device / "min_freq") / 1e6, read_value(device / "max_freq") / 1e6
        found: dict[str, float] = {"min_clock_mhz": lowest_mhz, "max_clock_mhz": highest_mhz}
        return {"clock_mhz": lowest_mhz} | found if lowest_mhz == highest_mhz else found

    def restore(self, original: Original) -> None:
        """See `Actuator`."""
        device = self._root / str(original.state["device"])
        if not device.is_dir():
            raise DeviceGoneError(f"The device {device} is not there any more.")
        _write(device, int(str(original.state["min_hz"])), int(str(original.state["max_hz"])))

    def _device(self) -> Path:
        gpus = {f"gpu:{i}": device for i, device in enumerate(gpu_devices(self._root))}
        named = {device.name: device for device in self._root.glob("*")}
        device = (gpus | named).get(self.domain)
        if device is None:
            known = ", ".join(gpus | named) or "none"
            raise DeviceGoneError(f"There is no device {self.domain} under {self._root}. There: {known}.")
        return device

    def _range(self, device: Path) -> SettingRange:
        steps = tuple(sorted(int(hz) / 1e6 for hz in text_of(device / "available_frequencies").split() if hz.isdigit()))
        if steps:
            return SettingRange(steps[0], steps[-1], steps, _TOLERANCE_MHZ, _TOLERANCE_MHZ)
        lowest_mhz, highest_mhz = read_value(device / "min_freq") / 1e6, read_value(device / "max_freq") / 1e6
        return SettingRange(lowest_mhz, highest_mhz, tolerance=_TOLERANCE_MHZ)


def _write(device: Path, lowest_hz: int, highest_hz: int) -> None:
    lowest, highest = (device / "min_freq", lowest_hz), (device / "max_freq", highest_hz)
    goes_below = highest_hz < read_value(device / "min_freq")
    first, second = (lowest, highest) if goes_below else (highest, lowest)
    write_value(*first)
    try:
        write_value(*second)
    except ActuatorUnavailableError as error:
        # One of the two is set by now: this is no refusal that left everything as it was.
        raise ActuatorError(error.message) from error
