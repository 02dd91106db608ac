"""Work until a device is in a steady state: as hot as it becomes under this load, or drawing an even power."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from contract.trial_result import SteadyReport
from contract.trial_spec import SteadySpec
from testbed.clock import Clock
from testbed.meters.base import Meter, Thermometer

_LEAST_POINTS = 4
"""A slope through fewer is chance."""


@dataclass(frozen=True)
class _Point:
    """What was known after a request."""

    time_s: float
    temp_c: float | None
    power_w: float | None


class SteadyState:
    """Repeats a step until the rule of `SteadySpec` holds, or its time is over.

    Sensors are read between requests only, so nothing runs beside them that does not in the measured phase.

    Args:
        spec: the rule.
        thermometer: of the machine; its hottest sensor is looked at.
        meters: asked for their latest power where there is no thermometer.
        clock: of this machine.
    """

    def __init__(self, spec: SteadySpec, thermometer: Thermometer, meters: Sequence[Meter], clock: Clock) -> None:
        self._spec = spec
        self._thermometer = thermometer
        self._meters = meters
        self._clock = clock

    def reach(self, step: Callable[[int], None]) -> SteadyReport:
        """Work until the device is steady; at least one step.

        Args:
            step: one request, or as many as are in flight at once; gets its number, from 0.
        """
        start_s = self._now_s()
        points = [self._look()]
        n_steps = 0
        while True:
            step(n_steps)
            n_steps += 1
            points.append(self._look())
            window = self._window(points)
            slope = slope_c_per_min([(point.time_s, point.temp_c) for point in window])
            share = halves_share([point.power_w for point in window])
            is_steady = self._is_steady(slope, share)
            waited_s = points[-1].time_s - start_s
            if is_steady or waited_s >= self._spec.max_s:
                rule = "temperature" if slope is not None else "power" if share is not None else "time"
                return SteadyReport(
                    is_steady=is_steady,
                    rule=rule,
                    waited_s=waited_s,
                    n_requests=n_steps,
                    slope_c_per_min=slope,
                    power_share=share,
                )

    def _is_steady(self, slope: float | None, share: float | None) -> bool:
        if slope is not None:
            return abs(slope) <= self._spec.slope_c_per_min
        return share is not None and share <= self._spec.power_share

    def _window(self, points: Sequence[_Point]) -> Sequence[_Point]:
        """The last points that span the window; none while there are too few, or they span less."""
        end_s = points[-1].time_s
        inside = [i for i, point in enumerate(points) if point.time_s <= end_s - self._spec.window_s]
        if not inside:
            return ()
        first = min(inside[-1], len(points) - _LEAST_POINTS)
        return points[first:] if first >= 0 else ()

    def _look(self) -> _Point:
        temps_c = [reading.temp_c for reading in self._thermometer.read()]
        powers_w = [watts for meter in self._meters for watts in meter.latest_power_w().values()]
        return _Point(self._now_s(), max(temps_c, default=None), sum(powers_w) if powers_w else None)

    def _now_s(self) -> float:
        return self._clock.monotonic_ns() / 1e9


def slope_c_per_min(points: Sequence[tuple[float, float | None]]) -> float | None:
    """Least-squares slope of temperatures over time; None where there are too few, or one is missing.

    Args:
        points: seconds and degrees Celsius.
    """
    temps_c = [temp_c for _, temp_c in points if temp_c is not None]
    if len(temps_c) < len(points) or len(points) < _LEAST_POINTS:
        return None
    minutes = np.array([time_s for time_s, _ in points]) / 60
    spread = minutes - minutes.mean()
    if not float(spread @ spread):
        return None
    return float(spread @ np.array(temps_c) / (spread @ spread))


def halves_share(powers_w: Sequence[float | None]) -> float | None:
    """How far the mean powers of the two halves of a series differ, over the mean of all; None as above.

    Args:
        powers_w: in order of time.
    """
    known = [power_w for power_w in powers_w if power_w is not None]
    if len(known) < len(powers_w) or len(known) < _LEAST_POINTS:
        return None
    mean_w = float(np.mean(known))
    middle = len(known) // 2
    difference_w = abs(float(np.mean(known[:middle])) - float(np.mean(known[-middle:])))
    return difference_w / mean_w if mean_w > 0 else None
