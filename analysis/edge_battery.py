"""How long a battery lasts under a duty cycle."""

import math
from dataclasses import dataclass

from contract.errors import UsageError


@dataclass(frozen=True)
class BatteryLife:
    """Hours on one charge, and what they rest on.

    Attributes:
        capacity_wh: of the battery, all of it used.
        duty: share of the time that is spent generating, 0 to 1.
        active_power_w: mean gross power while generating.
        idle_power_w: mean power in between, with the model loaded.
        tokens_per_s: while generating.
    """

    capacity_wh: float
    duty: float
    active_power_w: float
    idle_power_w: float
    tokens_per_s: float

    @property
    def mean_power_w(self) -> float:
        """P = duty x P_active + (1 - duty) x P_idle."""
        return self.duty * self.active_power_w + (1 - self.duty) * self.idle_power_w

    @property
    def hours(self) -> float:
        """t = capacity / P."""
        return self.capacity_wh / self.mean_power_w

    @property
    def n_tokens(self) -> float:
        """Tokens on one charge: t x duty x tokens per second."""
        return self.hours * 3600 * self.duty * self.tokens_per_s


FORMULA = "hours = capacity_wh / (duty x active_power_w + (1 - duty) x idle_power_w)"

ASSUMPTIONS = (
    "The whole capacity is usable, at any rate of discharge and temperature; ageing is left out.",
    "Conversion between battery and device loses nothing: divide the hours by 1 / efficiency where you know it.",
    "Only what the meter covers is drawn: no display, radio or disk that is outside its domains.",
    "Between requests the device idles with the model loaded, as in the baseline, and is as warm as it was then.",
    "Work comes at the measured point: this w*, one setting, the same speed all the time.",
)


def battery_life(
    capacity_wh: float, duty: float, active_power_w: float, idle_power_w: float, tokens_per_s: float
) -> BatteryLife:
    """Check the figures, and put them together.

    Args:
        capacity_wh: of the battery.
        duty: share of the time that is spent generating.
        active_power_w: mean gross power while generating.
        idle_power_w: mean power in between.
        tokens_per_s: while generating.

    Raises:
        UsageError: a figure that is none: not finite, a capacity of 0, a duty outside 0 to 1.
    """
    for name, value in (("battery's capacity", capacity_wh), ("active power", active_power_w)):
        if not math.isfinite(value) or value <= 0:
            raise UsageError(f"The {name} is {value}: give a finite number above 0.")
    if not math.isfinite(idle_power_w) or idle_power_w < 0:
        raise UsageError(f"The idle power is {idle_power_w} W: give a finite number of at least 0.")
    if not 0 <= duty <= 1:
        raise UsageError(f"The duty cycle is {duty}: give the share of time spent generating, from 0 to 1.")
    if duty == 0 and idle_power_w == 0:
        raise UsageError("A device that draws nothing and does nothing lasts for ever: give its idle power.")
    return BatteryLife(capacity_wh, duty, active_power_w, idle_power_w, tokens_per_s)
