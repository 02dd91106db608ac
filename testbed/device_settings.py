"""A trial's settings of devices: checked before the load, set before the baseline, put back whatever happens."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from contract.errors import ActuatorUnavailableError, InvalidOptionError, JouleBedError
from contract.trial_result import SettingTaken, SuspectReason
from contract.trial_spec import ActuatorSpec
from testbed.actuators.base import Actuator, ActuatorLimits, ReadBack, Setting, check_setting, disagreements
from testbed.actuators.registry import build_actuator
from testbed.clock import Clock, SystemClock
from testbed.reclaim import MARK
from testbed.restore_ledger import LEDGER, RestoreLedger
from testbed.watchdog import Watchdog

SIMULATED_DEVICES = "simulated_devices"
"""Folder of the simulated actuator's devices in the data folder."""

_SETTLE_S = 1.0
_SETTLE_POLL_S = 0.05
_CLOCK = "clock_mhz"
_FAN = "fan_duty"

_NOT_TOLD = "The device does not tell what it is set to while it is idle: the samples of the measured phase do."


class Guard(Protocol):
    """Puts devices back when this process dies: `Watchdog`."""

    def dismiss(self) -> None:
        """It is not needed any more."""
        ...


@dataclass(frozen=True)
class Wanted:
    """One setting of the spec.

    Attributes:
        actuator: sets it.
        setting: what is wanted.
    """

    actuator: Actuator
    setting: Setting


class ClockDial:
    """Sets the clock of one device again while a phase is measured: for a policy that serves, and nobody else.

    Args:
        settings: that hold the device, so that it is put back whatever happens.
        held: the device, with the clock that it was set to first.
        settled: called after each change; a simulated device takes its time here.
    """

    def __init__(self, settings: "DeviceSettings", held: "Wanted", settled: Callable[[], None]) -> None:
        self._settings = settings
        self._held = held
        self._settled = settled

    @property
    def clock_mhz(self) -> float:
        """What it was told last."""
        return self._held.setting[_CLOCK]

    def turn(self, clock_mhz: float) -> None:
        """Set the clock and read it back; blocking, until it reads as it was set, or a second has passed.

        Raises:
            InvalidOptionError: the device has no such clock.
            ActuatorError: it refused.
        """
        self._held = self._settings.change(self._held, {**self._held.setting, _CLOCK: clock_mhz})
        self._settled()


class FanDial:
    """Stops a held fan, and lets it run again, while a phase is measured.

    Args:
        settings: that hold the fan, so that it is put back whatever happens.
        held: the fan, with the duty that it was set to first.
    """

    def __init__(self, settings: "DeviceSettings", held: "Wanted") -> None:
        self._settings, self._held, self._running = settings, held, held.setting

    @property
    def is_on(self) -> bool:
        """As read back from the fan.

        Raises:
            ActuatorError: it cannot be read.
        """
        return (self._held.actuator.read().get(_FAN) or 0.0) > 0.0

    def turn(self, *, is_on: bool) -> None:
        """Stop it, or give it its first duty; read back.

        Raises:
            ActuatorError: it refused.
        """
        setting = self._running if is_on else {_FAN: 0.0}
        if setting != self._held.setting:
            self._held = self._settings.change(self._held, setting)


class DeviceSettings:
    """Sets devices for one trial, in the order of the spec, and puts them back in the reverse order.

    Args:
        wanted: what is to be set; empty: nothing is done or started.
        ledger: keeps what was found.
        clock: for the wait until a device has settled, and the time that a switch takes.
        guard: starts the watchdog.
    """

    def __init__(
        self,
        wanted: Sequence[Wanted],
        ledger: RestoreLedger,
        clock: Clock,
        guard: Callable[[Path], Guard] = Watchdog,
    ) -> None:
        self._wanted = list(wanted)
        self._ledger = ledger
        self._clock = clock
        self._start_guard = guard
        self._guard: Guard | None = None
        self._limits: dict[str, ActuatorLimits] = {}
        self._held: list[Wanted] = []
        self._taken: dict[str, SettingTaken] = {}

    @property
    def taken(self) -> list[SettingTaken]:
        """What was done so far, for the record."""
        return list(self._taken.values())

    def check(self) -> None:
        """Look whether this machine can be set so; nothing is touched.

        Raises:
            ActuatorUnavailableError: it forbids it; the message says how to mend that.
            InvalidOptionError: a quantity or a value that a device does not have.
        """
        checked = []
        for each in self._wanted:
            actuator = each.actuator
            limits = actuator.limits()
            checked.append(Wanted(actuator, check_setting(actuator.name, actuator.domain, limits, each.setting)))
            self._limits[_key(actuator)] = limits
        self._wanted = checked

    def apply(self) -> list[SuspectReason]:
        """Set everything, and read back; `restore` is due from now on, also when this raises.

        Returns:
            Where a device took something else than it was told.

        Raises:
            ActuatorError: a device refused, or the watchdog cannot be started.
            ActuatorUnavailableError: a device is forbidden after all.
            DeviceNotRestoredError: an earlier trial's setting could not be undone.
        """
        if not self._wanted:
            return []
        if len(self._limits) < len(self._wanted):
            self.check()
        self._guard = self._start_guard(self._ledger.folder)
        return [reason for each in self._wanted for reason in self._apply(each)]

    def read_back(self) -> list[SuspectReason]:
        """Look whether everything is still set, at the end of the measured phase.

        Returns:
            Where it is not, or cannot be read any more.
        """
        reasons = []
        for each in self._held:
            actuator = each.actuator
            try:
                found = actuator.read()
            except JouleBedError as error:
                reasons.append(_not_held(actuator, f"it cannot be read any more: {error.message}"))
                continue
            self._note(actuator, at_end={quantity: found.get(quantity) for quantity in each.setting})
            words = disagreements(self._limits[_key(actuator)], each.setting, found)
            reasons += [_not_held(actuator, f"at the end of the measured phase, {text}.") for text in words]
        return reasons

    def dial(self, domain: str, settled: Callable[[], None] = lambda: None) -> ClockDial:
        """What sets the clock of a held device; after `apply`.

        Args:
            domain: of the device.
            settled: see `ClockDial`.

        Raises:
            InvalidOptionError: no setting of the trial has the clock of this device.
        """
        held = [each for each in self._held if each.actuator.domain == domain and _CLOCK in each.setting]
        if not held:
            raise InvalidOptionError(f"No actuator of the trial sets {_CLOCK} of {domain}: add one to actuators.")
        return ClockDial(self, held[0], settled)

    def fan(self, domain: str) -> FanDial:
        """What stops a held fan; after `apply`.

        Args:
            domain: of the fan.

        Raises:
            InvalidOptionError: no setting of the trial has the duty of this fan.
        """
        held = [each for each in self._held if each.actuator.domain == domain and _FAN in each.setting]
        if not held:
            raise InvalidOptionError(f"No actuator of the trial sets {_FAN} of {domain}: add one to actuators.")
        return FanDial(self, held[0])

    def change(self, held: Wanted, setting: Setting) -> Wanted:
        """Set a held device to something else; read back at the end, and put back, like the first setting.

        Returns:
            What is held now.

        Raises:
            InvalidOptionError: a value that the device does not have.
            ActuatorError: it refused.
        """
        actuator = held.actuator
        limits = self._limits[_key(actuator)]
        now = Wanted(actuator, check_setting(actuator.name, actuator.domain, limits, setting))
        self._held[self._held.index(held)] = now
        self._settle(actuator, limits, now.setting, actuator.apply(now.setting))
        return now

    def restore(self) -> list[SuspectReason]:
        """Put everything back. Idempotent; never raises.

        Returns:
            What could not be put back. Its entry stays in the ledger: no other trial is run until it is.
        """
        reasons = []
        while self._held:
            actuator = self._held.pop().actuator
            try:
                self._ledger.release(actuator)
            except JouleBedError as error:
                reasons.append(SuspectReason(code=error.code, message=error.message))
            else:
                self._note(actuator, is_restored=True)
        if self._guard is not None and not reasons:  # else it tries once more when this process ends
            self._guard.dismiss()
            self._guard = None
        return reasons

    def _apply(self, wanted: Wanted) -> list[SuspectReason]:
        actuator, setting = wanted.actuator, wanted.setting
        original = self._ledger.hold(actuator)
        self._taken[_key(actuator)] = SettingTaken(
            actuator=actuator.name, domain=actuator.domain, wanted=dict(setting), original=dict(original.state)
        )
        self._held.append(wanted)
        start_ns = self._clock.monotonic_ns()
        try:
            found = actuator.apply(setting)
        except (ActuatorUnavailableError, InvalidOptionError):
            # Nothing was changed, so there is nothing to put back; nor could it be, without permission.
            self._held.remove(wanted)
            self._ledger.drop(actuator)
            raise
        limits = self._limits[_key(actuator)]
        found = self._settle(actuator, limits, setting, found)
        told = {quantity: found.get(quantity) for quantity in setting}
        self._note(
            actuator,
            taken=told,
            switch_s=(self._clock.monotonic_ns() - start_ns) / 1e9,
            note=_NOT_TOLD if None in told.values() else "",
        )
        return [_not_held(actuator, f"{text}.") for text in disagreements(limits, setting, found)]

    def _settle(self, actuator: Actuator, limits: ActuatorLimits, setting: Setting, found: ReadBack) -> ReadBack:
        """Read until the device reads as it was set, or it has had its time."""
        end_ns = self._clock.monotonic_ns() + round(_SETTLE_S * 1e9)
        while disagreements(limits, setting, found) and self._clock.monotonic_ns() < end_ns:
            self._clock.sleep(_SETTLE_POLL_S)
            found = actuator.read()
        return found

    def _note(self, actuator: Actuator, **facts: object) -> None:
        self._taken[_key(actuator)] = self._taken[_key(actuator)].model_copy(update=facts)


def no_settings() -> DeviceSettings:
    """Nothing is set, and nothing put back."""
    return DeviceSettings([], RestoreLedger(Path(LEDGER)), SystemClock())


def device_settings(specs: Sequence[ActuatorSpec], data_dir: Path, clock: Clock) -> DeviceSettings:
    """The settings of a spec on this machine.

    Args:
        specs: of the trial.
        data_dir: holds the ledger, and the simulated devices: see `data_dir_of`.
        clock: of this machine.

    Raises:
        UnknownNameError: no such actuator.
        MissingPackageError: one needs a package that is not installed.
        InvalidOptionError: a domain that an actuator does not have.
    """
    simulated = data_dir / SIMULATED_DEVICES
    wanted = [Wanted(build_actuator(each.name, each.domain, simulated), each.setting) for each in specs]
    return DeviceSettings(wanted, RestoreLedger(data_dir / LEDGER), clock)


def data_dir_of(env: Mapping[str, str], out_dir: Path) -> Path:
    """The data folder of the testbed that a child belongs to; one without a testbed has its own.

    Args:
        env: of the child.
        out_dir: the attempt's folder.
    """
    return Path(env[MARK]) if env.get(MARK) else out_dir


def _key(actuator: Actuator) -> str:
    return f"{actuator.name}@{actuator.domain}"


def _not_held(actuator: Actuator, text: str) -> SuspectReason:
    return SuspectReason(code="setting_not_held", message=f"{actuator.domain} ({actuator.name}): {text}")
