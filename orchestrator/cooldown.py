"""The pause before a trial: a floor in seconds, then a thermal gate.

The floor counts from the end of the previous trial. The gate opens when the hottest sensor is within `delta_c` of
the campaign's idle temperature and its slope over the last readings is near zero. Many sensors (NVML's among them)
tell whole degrees: there, a window of readings that differ by one step counts as flat, since no slope below it can
be told.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from contract.node_info import TemperatureReading
from orchestrator.config import Cooldown

Gate = Literal["open", "no_sensor", "timed_out", "disabled"]

_POLL_S = 2.0
_WINDOW_S = 20.0
_IDLE_READINGS = 3
_IDLE_PAUSE_S = 1.0
_TICK_S = 1.0


@dataclass(frozen=True)
class CooldownOutcome:
    """How a pause went.

    Attributes:
        waited_s: length of the pause.
        start_temp_c: hottest sensor at its end; None where it was not read.
        idle_temp_c: the campaign's idle temperature; None without a gate or a sensor.
        gate: `open`: cool; `timed_out`: still warm after the longest wait, or after somebody else's trial;
            `no_sensor`: by time alone; `disabled`: so configured (`max_wait_s = 0`), or the campaign's first trial.
        readings: how many times the sensors were read.
    """

    waited_s: float
    start_temp_c: float | None
    idle_temp_c: float | None
    gate: Gate
    readings: int

    @property
    def message(self) -> str:
        """The outcome in words, for the attempt's story."""
        waited = f"Cooldown of {self.waited_s:.1f} s"
        if self.gate == "disabled":
            return f"{waited}, without a thermal gate."
        if self.gate == "no_sensor":
            return f"{waited}, by time alone: the testbed has no readable temperature sensor."
        temperatures = f"{_celsius(self.start_temp_c)}, idle {_celsius(self.idle_temp_c)}"
        if self.gate == "timed_out":
            return f"{waited}: the thermal gate did not open in time, the trial starts warm ({temperatures})."
        return f"{waited}: cool ({temperatures})."


@dataclass(frozen=True)
class CooldownProgress:
    """Where a pause is, for a countdown.

    Attributes:
        left_s: of the floor, or until the gate gives up.
        is_gate: whether the floor is over and the gate holds.
        temp_c: hottest sensor, last read; None before.
        idle_temp_c: what it is to come near to.
    """

    left_s: float
    is_gate: bool
    temp_c: float | None
    idle_temp_c: float | None


class CooldownWait:
    """Waits before trials.

    Args:
        settings: floor and gate.
        read_temperatures: the testbed's sensors now; empty where it has none.
        idle_temp_c: the campaign's, where it is known already.
        clock: monotonic seconds.
        sleep: pauses; what it raises ends the wait.
    """

    def __init__(
        self,
        settings: Cooldown,
        read_temperatures: Callable[[], Sequence[TemperatureReading]],
        *,
        idle_temp_c: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._settings = settings
        self._read_temperatures = read_temperatures
        self._clock = clock
        self._sleep = sleep
        self._readings: list[tuple[float, float]] = []
        self._n_readings = 0
        self.idle_temp_c = idle_temp_c

    @property
    def has_gate(self) -> bool:
        """Whether temperatures are looked at."""
        return self._settings.max_wait_s > 0

    @property
    def is_nothing(self) -> bool:
        """Whether `wait` never waits."""
        return not self.has_gate and self._settings.floor_s <= 0

    def measure_idle(self) -> float | None:
        """Read the idle temperature, once at the campaign's start, while nothing runs: the median of three.

        Returns:
            Degrees Celsius; None without a gate or without a sensor.
        """
        if not self.has_gate:
            return None
        readings: list[float] = []
        for number in range(_IDLE_READINGS):
            if number:
                self._sleep(_IDLE_PAUSE_S)
            hottest = self._hottest()
            if hottest is None:
                return None
            readings.append(hottest)
        self.idle_temp_c = statistics.median(readings)
        return self.idle_temp_c

    def wait(
        self, previous_end_s: float | None, on_progress: Callable[[CooldownProgress], None] = lambda progress: None
    ) -> CooldownOutcome:
        """Wait until a trial may start.

        Args:
            previous_end_s: when the previous trial ended, on `clock`; None: there was none, and the machine is idle.
            on_progress: called about once a second.
        """
        begin_s = self._clock()
        self._readings = []
        self._n_readings = 0
        if previous_end_s is None:
            return CooldownOutcome(0.0, self.idle_temp_c, self.idle_temp_c, "disabled", 0)
        floor_end_s = previous_end_s + self._settings.floor_s
        gate_end_s = max(floor_end_s, begin_s) + self._settings.max_wait_s
        # The window is filled during the floor, so that a cool machine does not wait for longer than the floor.
        window_s = min(_WINDOW_S, self._settings.max_wait_s / 2)
        next_reading_s = floor_end_s - window_s
        has_sensor = self.has_gate and self.idle_temp_c is not None
        gate: Gate
        while True:
            now_s = self._clock()
            if has_sensor and now_s >= next_reading_s:
                self._note(now_s, window_s)
                next_reading_s = now_s + _POLL_S
            if now_s >= floor_end_s:
                if not has_sensor:
                    gate = "no_sensor" if self.has_gate else "disabled"
                    break
                if self._is_cool(window_s):
                    gate = "open"
                    break
                if now_s >= gate_end_s:
                    gate = "timed_out"
                    break
            end_s = floor_end_s if now_s < floor_end_s else gate_end_s
            latest = self._readings[-1][1] if self._readings else None
            on_progress(CooldownProgress(end_s - now_s, now_s >= floor_end_s, latest, self.idle_temp_c))
            until_s = min(end_s, next_reading_s) if has_sensor else end_s
            # At least a millisecond: a clock may round the last moment away.
            self._sleep(min(max(until_s - now_s, 0.001), _TICK_S))
        return CooldownOutcome(
            waited_s=self._clock() - begin_s,
            start_temp_c=self._readings[-1][1] if self._readings else None,
            idle_temp_c=self.idle_temp_c,
            gate=gate,
            readings=self._n_readings,
        )

    def look_again(self, outcome: CooldownOutcome) -> CooldownOutcome:
        """Read the sensors once more when a trial could not start right after its pause.

        Args:
            outcome: of the pause.

        Returns:
            The outcome with the temperature now, and `timed_out` when it is too high; unchanged without a gate or a
            sensor.
        """
        if not self.has_gate or self.idle_temp_c is None:
            return outcome
        hottest = self._hottest()
        if hottest is None:
            return outcome
        gate: Gate = "timed_out" if hottest - self.idle_temp_c > self._settings.delta_c else "open"
        return replace(
            outcome, start_temp_c=hottest, idle_temp_c=self.idle_temp_c, gate=gate, readings=outcome.readings + 1
        )

    def _hottest(self) -> float | None:
        return max((reading.temp_c for reading in self._read_temperatures()), default=None)

    def _note(self, now_s: float, window_s: float) -> None:
        self._n_readings += 1
        hottest = self._hottest()
        if hottest is not None:
            self._readings.append((now_s, hottest))
        # One reading from before the window stays, so that the readings span all of it.
        while len(self._readings) > 1 and self._readings[1][0] <= now_s - window_s:
            self._readings.pop(0)

    def _is_cool(self, window_s: float) -> bool:
        if self.idle_temp_c is None or len(self._readings) < 3:
            return False
        times_s, temps_c = zip(*self._readings, strict=True)
        if times_s[-1] - times_s[0] < 0.9 * window_s:
            return False
        if temps_c[-1] - self.idle_temp_c > self._settings.delta_c:
            return False
        if all(temp_c == round(temp_c) for temp_c in temps_c) and max(temps_c) - min(temps_c) <= 1:
            return True
        slope_c_per_min = 60.0 * statistics.linear_regression(times_s, temps_c).slope
        return abs(slope_c_per_min) <= self._settings.slope_c_per_min


def _celsius(temp_c: float | None) -> str:
    return "temperature not read" if temp_c is None else f"{temp_c:.1f} °C"
