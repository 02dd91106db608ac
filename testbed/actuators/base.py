"""The seam of actuators: a clock, a power limit, a fan is set for a trial, read back, and put back afterwards."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from pydantic import JsonValue

from contract.errors import ActuatorUnavailableError, InvalidOptionError

Setting = Mapping[str, float]
"""Quantity, with its unit in its name, -> value: `{"clock_mhz": 1005.0}`."""

ReadBack = Mapping[str, float | None]
"""The same as the device tells it; None where it does not tell."""


@dataclass(frozen=True)
class SettingRange:
    """What one quantity may be set to.

    Attributes:
        minimum: in the quantity's unit.
        maximum: the same.
        steps: all possible values, ascending; empty where every value between the two is.
        step_tolerance: how far a value may be from a step to mean it: 1300 is 1300.5 MHz.
        tolerance: how far a read-back may be from what was set and still agree with it.
    """

    minimum: float
    maximum: float
    steps: tuple[float, ...] = ()
    step_tolerance: float = 0.0
    tolerance: float = 0.0

    def __str__(self) -> str:
        steps = f" in {len(self.steps)} steps" if self.steps else ""
        return f"{self.minimum:g} to {self.maximum:g}{steps}"


@dataclass(frozen=True)
class ActuatorLimits:
    """What may be set on this machine.

    Attributes:
        allowed: False: the device is never touched.
        message: what may be set; or why nothing may, and the command that mends it.
        ranges: quantity -> its range; empty where nothing may be set.
        together: sets of quantities, of which a setting has one, whole; empty: any of `ranges`.
    """

    allowed: bool
    message: str
    ranges: Mapping[str, SettingRange] = field(default_factory=dict)
    together: tuple[frozenset[str], ...] = ()


@dataclass(frozen=True)
class Original:
    """What a device was set to before it was touched: enough for another process to put it back.

    Attributes:
        state: JSON; only the actuator reads it.
        mending: what a person would type to put it back by hand.
    """

    state: Mapping[str, JsonValue]
    mending: str


class DeviceGoneError(ActuatorUnavailableError):
    """The device that is to be put back is not here any more; nothing can be measured on it either."""


class Actuator(Protocol):
    """Sets one device. Built by the registry as `factory(domain=..., **arguments)`; building touches nothing.

    Roots (sysfs folders, the NVML library) are arguments with the machine's own as default. All methods block, for
    milliseconds; none is called while a phase is measured, but by a policy that serves (`testbed.open_loop_drive`).
    What `apply` did is undone by `restore`, also when that is called by another process, on an actuator that was built
    from the same `arguments`.

    Attributes:
        name: in the registry.
        domain: the device, as the meters name it.
        arguments: what the registry needs to build it again in another process, without `domain`.
    """

    name: str
    domain: str
    arguments: Mapping[str, str]

    def limits(self) -> ActuatorLimits:
        """Look without touching: what may be set, and whether this machine forbids it. Never raises."""
        ...

    def original(self) -> Original:
        """What is set now; read before the first `apply`.

        Raises:
            ActuatorError: it cannot be read, so it must not be changed either.
        """
        ...

    def apply(self, setting: Setting) -> ReadBack:
        """Set the device, and read back what it took.

        The caller has checked the setting against `limits` and has the original on disk.

        Raises:
            ActuatorUnavailableError: it is forbidden after all, and nothing was changed.
            ActuatorError: the device refused; it may be half set, so that `restore` is due all the same.
        """
        ...

    def read(self) -> ReadBack:
        """What is set now, in the quantities of `apply`; None where the device does not tell.

        Raises:
            ActuatorError: it cannot be read.
        """
        ...

    def restore(self, original: Original) -> None:
        """Put back what `original` found. Idempotent: also on a device that is there already.

        Raises:
            DeviceGoneError: there is no such device any more.
            ActuatorError: the device refused.
        """
        ...


def check_setting(name: str, domain: str, limits: ActuatorLimits, setting: Setting) -> Setting:
    """A setting as the device has it: values that mean a step are that step.

    Args:
        name: of the actuator, for messages.
        domain: of the device, for messages.
        limits: of the actuator.
        setting: what is wanted.

    Raises:
        ActuatorUnavailableError: this machine forbids it.
        InvalidOptionError: a quantity or a value that the device does not have; the nearest ones are named.
    """
    what = f"The actuator {name!r} on {domain}"
    if not limits.allowed:
        raise ActuatorUnavailableError(f"{what} cannot be used: {limits.message}", actuator=name, domain=domain)
    known = ", ".join(f"{quantity} ({each})" for quantity, each in limits.ranges.items())
    unknown = [quantity for quantity in setting if quantity not in limits.ranges]
    if unknown:
        raise InvalidOptionError(f"{what} does not set {unknown[0]!r}. It sets: {known}.", actuator=name)
    if limits.together and frozenset(setting) not in limits.together:
        choice = ", or ".join(" and ".join(sorted(each)) for each in limits.together)
        raise InvalidOptionError(f"{what} sets {choice}, not {', '.join(setting)}.", actuator=name)
    return {quantity: _step(what, quantity, limits.ranges[quantity], value) for quantity, value in setting.items()}


def disagreements(limits: ActuatorLimits, wanted: Setting, read: ReadBack) -> list[str]:
    """Where a read-back is not what was set, in words; what the device does not tell is no disagreement.

    Args:
        limits: for the tolerances.
        wanted: what was set.
        read: what the device tells.
    """
    pairs = [(quantity, value, read.get(quantity)) for quantity, value in wanted.items()]
    return [
        f"{quantity} was set to {value:g} and reads {found:g}"
        for quantity, value, found in pairs
        if found is not None and abs(found - value) > limits.ranges[quantity].tolerance
    ]


def _step(what: str, quantity: str, known: SettingRange, value: float) -> float:
    if not known.steps:
        if known.minimum <= value <= known.maximum:
            return value
        raise InvalidOptionError(f"{what} cannot set {quantity} to {value:g}: choose {known}.", quantity=quantity)
    nearest = sorted(known.steps, key=lambda step: abs(step - value))
    if abs(nearest[0] - value) <= known.step_tolerance:
        return nearest[0]
    choice = " or ".join(f"{step:g}" for step in sorted(nearest[:2]))
    raise InvalidOptionError(
        f"{what} cannot set {quantity} to {value:g}: the device has no such step. The nearest: {choice}; all: {known}.",
        quantity=quantity,
        steps=list(known.steps),
    )
