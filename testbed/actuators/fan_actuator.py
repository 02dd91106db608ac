"""A fan's duty through the kernel's PWM files: hwmon's, or the older ones of JetPack 4."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from contract.errors import ActuatorError, ActuatorUnavailableError
from testbed.actuators.base import ActuatorLimits, DeviceGoneError, Original, ReadBack, Setting, SettingRange
from testbed.actuators.sysfs_file import by_hand, obstacle, read_value, write_value
from testbed.meters.sysfs import text_of

_FULL = 255
_DUTY = SettingRange(0.0, 1.0, tolerance=1.01 / _FULL)


@dataclass(frozen=True)
class _Fan:
    """Files of one fan.

    Attributes:
        label: chip and file, which stay when hwmon numbers its chips anew.
        pwm: 0 to 255.
        mode: says who decides the duty; None where there is no such file, and we do.
        manual: the mode in which we do.
    """

    label: str
    pwm: Path
    mode: Path | None
    manual: int


class FanActuator:
    """Sets `fan_duty`, from 0 (stopped) to 1 (full): the fan is taken over, and given back to who controlled it.

    JetPack 5 and newer run a daemon that sets the same file: `sudo systemctl stop nvfancontrol` first. Where it is
    forgotten, the read-back at the end of the measured phase tells.

    Args:
        domain: `fan:0` and so on, in the order of the kernel's chips.
        hwmon: the kernel's hwmon folder.
        jetpack4: folder of JetPack 4's own driver.
    """

    name = "fan"

    def __init__(
        self, *, domain: str, hwmon: Path | str = "/sys/class/hwmon", jetpack4: Path | str = "/sys/devices/pwm-fan"
    ) -> None:
        self.domain = domain
        self.arguments: Mapping[str, str] = {"hwmon": str(hwmon), "jetpack4": str(jetpack4)}
        self._hwmon, self._jetpack4 = Path(hwmon), Path(jetpack4)

    def limits(self) -> ActuatorLimits:
        """See `Actuator`."""
        try:
            fan = self._fan()
        except DeviceGoneError as error:
            return ActuatorLimits(False, error.message)
        in_the_way = obstacle(fan.pwm) or (obstacle(fan.mode) if fan.mode else None)
        if in_the_way is not None:
            return ActuatorLimits(False, in_the_way)
        return ActuatorLimits(True, f"{self.domain} ({fan.label}): fan_duty {_DUTY}", {"fan_duty": _DUTY})

    def original(self) -> Original:
        """See `Actuator`."""
        fan = self._fan()
        pwm = read_value(fan.pwm)
        mode = read_value(fan.mode) if fan.mode else None
        commands = [by_hand(fan.pwm, pwm), *([by_hand(fan.mode, mode)] if fan.mode and mode is not None else [])]
        return Original({"fan": fan.label, "pwm": pwm, "mode": mode}, "; ".join(commands))

    def apply(self, setting: Setting) -> ReadBack:
        """See `Actuator`."""
        fan = self._fan()
        if fan.mode is not None:
            write_value(fan.mode, fan.manual)
        try:
            write_value(fan.pwm, round(setting["fan_duty"] * _FULL))
        except ActuatorUnavailableError as error:
            # The fan is ours by now: this is no refusal that left everything as it was.
            raise ActuatorError(error.message) from error
        return self.read()

    def read(self) -> ReadBack:
        """See `Actuator`."""
        return {"fan_duty": read_value(self._fan().pwm) / _FULL}

    def restore(self, original: Original) -> None:
        """See `Actuator`: a fan that somebody else controlled is given back, its duty with it."""
        fan = next((each for each in self._fans() if each.label == original.state["fan"]), None)
        if fan is None:
            raise DeviceGoneError(f"The fan {original.state['fan']} ({self.domain}) is not there any more.")
        pwm, mode = int(str(original.state["pwm"])), original.state["mode"]
        if fan.mode is None or mode is None:
            write_value(fan.pwm, pwm)
            return
        # The duty first, while the fan is ours: others' modes refuse it, or decide it anew anyway.
        if read_value(fan.mode) == fan.manual or mode == fan.manual:
            write_value(fan.mode, fan.manual)
            write_value(fan.pwm, pwm)
        write_value(fan.mode, int(str(mode)))

    def _fan(self) -> _Fan:
        fans = {f"fan:{i}": fan for i, fan in enumerate(self._fans())}
        if self.domain not in fans:
            known = ", ".join(f"{domain} ({fan.label})" for domain, fan in fans.items()) or "none"
            raise DeviceGoneError(f"There is no {self.domain} under {self._hwmon} or {self._jetpack4}. There: {known}.")
        return fans[self.domain]

    def _fans(self) -> list[_Fan]:
        fans = []
        for chip in sorted(self._hwmon.glob("hwmon*"), key=_number):
            for pwm in sorted(chip.glob("pwm[0-9]")):
                mode = chip / f"{pwm.name}_enable"
                label = f"{text_of(chip / 'name') or chip.name}/{pwm.name}"
                fans.append(_Fan(label, pwm, mode if mode.exists() else None, manual=1))
        target, mode = self._jetpack4 / "target_pwm", self._jetpack4 / "temp_control"
        if target.exists():
            fans.append(_Fan("pwm-fan/target_pwm", target, mode if mode.exists() else None, manual=0))
        return fans


def _number(chip: Path) -> int:
    digits = chip.name.removeprefix("hwmon")
    return int(digits) if digits.isdigit() else 0
