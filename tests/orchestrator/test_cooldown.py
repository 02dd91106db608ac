from collections.abc import Callable

import pytest

from contract.node_info import TemperatureReading
from orchestrator.config import Cooldown
from orchestrator.cooldown import CooldownProgress, CooldownWait


class Machine:
    """A clock that moves only when somebody sleeps, and a temperature that is a function of it."""

    def __init__(self, temp_c: Callable[[float], float | None]) -> None:
        self.now_s = 1000.0
        self.n_reads = 0
        self._temp_c = temp_c

    def clock(self) -> float:
        return self.now_s

    def sleep(self, duration_s: float) -> None:
        assert duration_s > 0
        self.now_s += duration_s

    def read(self) -> list[TemperatureReading]:
        self.n_reads += 1
        temp_c = self._temp_c(self.now_s - 1000.0)
        if temp_c is None:
            return []
        return [TemperatureReading(sensor="low", temp_c=20.0), TemperatureReading(sensor="gpu", temp_c=temp_c)]

    def cooldown(self, settings: Cooldown, idle_temp_c: float | None = 40.0) -> CooldownWait:
        return CooldownWait(settings, self.read, idle_temp_c=idle_temp_c, clock=self.clock, sleep=self.sleep)


def test_floor_counts_from_the_end_of_the_previous_trial() -> None:
    machine = Machine(lambda t: 40.0)
    outcome = machine.cooldown(Cooldown(floor_s=30.0)).wait(machine.now_s - 12.0)
    assert outcome.waited_s == pytest.approx(18.0, abs=2.1)
    assert outcome.gate == "open"
    assert outcome.start_temp_c == 40.0
    long_ago = machine.cooldown(Cooldown(floor_s=30.0, max_wait_s=0.0)).wait(machine.now_s - 100.0)
    assert (long_ago.waited_s, long_ago.gate) == (0.0, "disabled")


def test_no_pause_before_the_very_first_trial() -> None:
    machine = Machine(lambda t: 90.0)
    outcome = machine.cooldown(Cooldown()).wait(None)
    assert outcome.waited_s == 0.0
    assert machine.now_s == 1000.0


def test_a_cool_machine_waits_for_the_floor_only() -> None:
    machine = Machine(lambda t: 40.3)
    outcome = machine.cooldown(Cooldown(floor_s=30.0)).wait(machine.now_s)
    assert outcome.waited_s == pytest.approx(30.0, abs=0.1)
    assert outcome.readings >= 10


def test_gate_waits_until_within_delta_of_idle() -> None:
    # Cools from 80 towards 40 degrees with a time constant of 30 s: within 2 degrees after 30 ln 20 = 90 s, and
    # slower than 0.5 degrees a minute, as seen over the last 20 s, after about 30 ln (160 * 1.4) = 162 s.
    machine = Machine(lambda t: 40.0 + 40.0 * 2.718281828 ** (-t / 30.0))
    outcome = machine.cooldown(Cooldown(floor_s=30.0)).wait(machine.now_s)
    assert outcome.gate == "open"
    assert 150 < outcome.waited_s < 180
    assert outcome.start_temp_c is not None and outcome.start_temp_c < 40.3


def test_gate_looks_at_the_slope_too() -> None:
    rising = Machine(lambda t: 38.0 + t / 60.0 * 1.5)
    outcome = rising.cooldown(Cooldown(floor_s=30.0, max_wait_s=40.0)).wait(rising.now_s)
    assert outcome.gate == "timed_out"


def test_gate_times_out_and_says_so() -> None:
    machine = Machine(lambda t: 55.0)
    outcome = machine.cooldown(Cooldown(floor_s=30.0, max_wait_s=60.0)).wait(machine.now_s)
    assert outcome.gate == "timed_out"
    assert outcome.waited_s == pytest.approx(90.0, abs=0.1)
    assert "did not open in time" in outcome.message and "55.0" in outcome.message and "40.0" in outcome.message


def test_a_sensor_of_whole_degrees_may_flicker_by_one() -> None:
    machine = Machine(lambda t: 40.0 + (int(t / 2) % 3 == 0))
    outcome = machine.cooldown(Cooldown(floor_s=30.0)).wait(machine.now_s)
    assert outcome.gate == "open"
    assert outcome.waited_s == pytest.approx(30.0, abs=0.1)


def test_without_sensors_the_floor_alone_counts_in_words() -> None:
    machine = Machine(lambda t: None)
    cooldown = machine.cooldown(Cooldown(floor_s=5.0), idle_temp_c=None)
    assert cooldown.measure_idle() is None
    outcome = cooldown.wait(machine.now_s)
    assert (outcome.gate, outcome.waited_s) == ("no_sensor", pytest.approx(5.0, abs=0.1))
    assert "no readable temperature sensor" in outcome.message


def test_sensors_that_vanish_do_not_open_the_gate() -> None:
    machine = Machine(lambda t: 40.0 if t < 5 else None)
    outcome = machine.cooldown(Cooldown(floor_s=30.0, max_wait_s=60.0)).wait(machine.now_s)
    assert outcome.gate == "timed_out"


def test_gate_that_is_switched_off_reads_nothing() -> None:
    machine = Machine(lambda t: 90.0)
    cooldown = machine.cooldown(Cooldown(floor_s=3.0, max_wait_s=0.0), idle_temp_c=None)
    assert cooldown.measure_idle() is None
    outcome = cooldown.wait(machine.now_s)
    assert (outcome.gate, outcome.waited_s) == ("disabled", pytest.approx(3.0, abs=0.01))
    assert machine.n_reads == 0
    assert not cooldown.is_nothing
    assert machine.cooldown(Cooldown(floor_s=0.0, max_wait_s=0.0)).is_nothing


def test_idle_temperature_is_the_median_of_the_hottest() -> None:
    readings = iter([41.0, 60.0, 42.0])
    machine = Machine(lambda t: next(readings))
    cooldown = machine.cooldown(Cooldown(), idle_temp_c=None)
    assert cooldown.measure_idle() == 42.0
    assert cooldown.idle_temp_c == 42.0


def test_progress_counts_down_about_once_a_second() -> None:
    machine = Machine(lambda t: 55.0)
    seen: list[CooldownProgress] = []
    machine.cooldown(Cooldown(floor_s=10.0, max_wait_s=10.0)).wait(machine.now_s, seen.append)
    assert 20 <= len(seen) <= 45
    floor = [each.left_s for each in seen if not each.is_gate]
    assert floor == sorted(floor, reverse=True) and floor[0] == 10.0
    assert any(each.is_gate and each.temp_c == 55.0 for each in seen)
