"""Temperature of an AGX Orin by one resistance and one capacity, fitted to grid logs with the fan on and off.

First order: `dT/dt = (T_end - T) / tau` with `T_end = ambient + resistance * power`, and `tau = resistance * capacity`.
The fan changes the resistance; the capacity stays, so the time constant with the fan on follows from that with it off.

What the logs can tell, and what not:

- Fan on: rows are not in the order in which they were run, so they tell no time constant. The line through temperature
  and power gives resistance and intercept. The intercept is an *effective* ambient: with the heat of all that is in no
  row (CPU, idle). It is not the air's temperature.
- Fan off: rows are in order, but the waiting between them is not logged; `inference_time` is taken as each row's
  length. Ambient, resistance and time constant are told apart badly: `ThermalFit.profile` has the error by time
  constant. The ambient is therefore taken from the fan-on log.
- Fan off, the log also cools at the same power (something cooled the board): only the stretches given as
  heating are fitted, and the error over all rows is reported beside it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from contract.errors import UsageError
from testbed.simulation.orin_grid import OrinGrid

Floats = npt.NDArray[np.float64]

HEATING = ((0, 180), (402, 525))
"""Rows of the published fan-off log, first to last, in which the board heats undisturbed: between them it cools at the
same power, something else loads it (371 to 401), or it is throttled (from 525)."""

TIME_CONSTANTS_S = tuple(np.arange(100.0, 4001.0, 50.0).tolist())
"""With the fan off, to try."""


@dataclass(frozen=True)
class ThermalModel:
    """One resistance for each state of the fan, one capacity.

    Attributes:
        ambient_c: effective: where it would be without power.
        resistance_on_c_per_w: with the fan.
        resistance_off_c_per_w: without.
        capacity_j_per_c: of the board.

    Raises:
        UsageError: a figure is not finite, or a resistance or the capacity not above 0.
    """

    ambient_c: float
    resistance_on_c_per_w: float
    resistance_off_c_per_w: float
    capacity_j_per_c: float

    def __post_init__(self) -> None:
        positive = (self.resistance_on_c_per_w, self.resistance_off_c_per_w, self.capacity_j_per_c)
        if not (math.isfinite(self.ambient_c) and all(math.isfinite(each) and each > 0 for each in positive)):
            raise UsageError(f"thermal model: resistances and capacity must be above 0, and all finite; got {self}.")

    def resistance_c_per_w(self, is_fan_on: bool) -> float:
        """Of a state of the fan."""
        return self.resistance_on_c_per_w if is_fan_on else self.resistance_off_c_per_w

    def time_constant_s(self, is_fan_on: bool) -> float:
        """Resistance times capacity."""
        return self.resistance_c_per_w(is_fan_on) * self.capacity_j_per_c

    def end_c(self, power_w: Floats | float, is_fan_on: bool) -> Floats:
        """Where the temperature tends to at a power.

        Args:
            power_w: (...).
            is_fan_on: or not.
        """
        return np.asarray(self.ambient_c + self.resistance_c_per_w(is_fan_on) * np.asarray(power_w, dtype=float))

    def after_c(self, temp_c: float, power_w: Floats | float, duration_s: Floats | float, is_fan_on: bool) -> Floats:
        """Temperature after a time at a constant power, exactly.

        Args:
            temp_c: before.
            power_w: (...).
            duration_s: (...), 0 or above.
            is_fan_on: or not.
        """
        end_c = self.end_c(power_w, is_fan_on)
        left = np.exp(-np.asarray(duration_s, dtype=float) / self.time_constant_s(is_fan_on))
        return np.asarray(end_c + (temp_c - end_c) * left)


@dataclass(frozen=True)
class ThermalFit:
    """A model and how well it fits.

    Attributes:
        model: fitted.
        rmse_on_c: fan on, each row at the end temperature of its power.
        rmse_off_c: fan off, over the heating stretches.
        rmse_off_all_c: fan off, over all rows with one start: what the model does not explain.
        sd_on_c: of the fan-on temperatures: the error of a constant.
        sd_off_c: of those of the heating stretches.
        profile: (time constant, resistance off, rmse over the heating stretches) for each time constant tried.
    """

    model: ThermalModel
    rmse_on_c: float
    rmse_off_c: float
    rmse_off_all_c: float
    sd_on_c: float
    sd_off_c: float
    profile: tuple[tuple[float, float, float], ...]

    def plausible_tau_s(self, excess_c: float = 0.05) -> tuple[float, float]:
        """Smallest and largest time constant tried whose error is within `excess_c` of the best."""
        best = min(rmse for _, _, rmse in self.profile)
        taus = [tau for tau, _, rmse in self.profile if rmse <= best + excess_c]
        return min(taus), max(taus)


def fit_thermal(
    fan_on: OrinGrid,
    fan_off: OrinGrid,
    heating: Sequence[tuple[int, int]] = HEATING,
    time_constants_s: Sequence[float] = TIME_CONSTANTS_S,
) -> ThermalFit:
    """Fit the model; the time constant by trying, all else by least squares.

    Args:
        fan_on: rows in any order.
        fan_off: rows in the order they were run.
        heating: first row and the row after the last of each stretch that is fitted.
        time_constants_s: with the fan off, to try.

    Raises:
        UsageError: a stretch that the log does not have, or a fit with a resistance of 0 or below.
    """
    if bad := [each for each in heating if not 0 <= each[0] < each[1] - 2 < len(fan_off)]:
        raise UsageError(
            f"{fan_off.source}: no rows {bad[0][0]} to {bad[0][1]}; it has {len(fan_off)}. Give the stretches in which "
            "this log heats."
        )
    temp_on_c, power_on_w = fan_on.figures["temp_c"], fan_on.mean_power_w
    columns = np.stack([np.ones_like(power_on_w), power_on_w], axis=1)
    (ambient_c, resistance_on), *_ = np.linalg.lstsq(columns, temp_on_c, rcond=None)
    profile = []
    for tau_s in time_constants_s:
        resistance, residual = _fit_off(fan_off, heating, float(ambient_c), tau_s)
        profile.append((float(tau_s), resistance, residual))
    tau_s, resistance_off, rmse_off = min(profile, key=lambda each: each[2])
    model = ThermalModel(float(ambient_c), float(resistance_on), resistance_off, tau_s / resistance_off)
    everywhere = _walk(fan_off, 0, len(fan_off), float(ambient_c), tau_s)
    start_c = float(fan_off.figures["temp_c"][0])
    predicted = everywhere[:, 0] + everywhere[:, 1] * resistance_off + everywhere[:, 2] * start_c
    stretches = np.concatenate([fan_off.figures["temp_c"][first:after] for first, after in heating])
    return ThermalFit(
        model,
        _rms(columns @ np.array([ambient_c, resistance_on]) - temp_on_c),
        rmse_off,
        _rms(predicted - fan_off.figures["temp_c"]),
        float(temp_on_c.std()),
        float(stretches.std()),
        tuple(profile),
    )


def _walk(grid: OrinGrid, first: int, after: int, ambient_c: float, tau_s: float) -> Floats:
    """(rows, 3): constant, factor of the resistance and of the start: temperature is linear in both."""
    found = np.empty((after - first, 3))
    state = np.array([0.0, 0.0, 1.0])
    found[0] = state
    power_w, duration_s = grid.mean_power_w, grid.figures["duration_s"]
    for row in range(first + 1, after):
        step = 1 - math.exp(-float(duration_s[row]) / tau_s)
        state = state + step * (np.array([ambient_c, float(power_w[row]), 0.0]) - state)
        found[row - first] = state
    return found


def _fit_off(grid: OrinGrid, heating: Sequence[tuple[int, int]], ambient_c: float, tau_s: float) -> tuple[float, float]:
    """Resistance and error, each stretch with its own start."""
    blocks: list[Floats] = []
    wanted: list[Floats] = []
    for number, (first, after) in enumerate(heating):
        walk = _walk(grid, first, after, ambient_c, tau_s)
        block = np.zeros((after - first, 1 + len(heating)))
        block[:, 0], block[:, 1 + number] = walk[:, 1], walk[:, 2]
        blocks.append(block)
        wanted.append(grid.figures["temp_c"][first:after] - walk[:, 0])
    columns, target = np.concatenate(blocks), np.concatenate(wanted)
    solved, *_ = np.linalg.lstsq(columns, target, rcond=None)
    return float(solved[0]), _rms(columns @ solved - target)


def _rms(values: Floats) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
