"""Work until a steady state, on devices that warm up as first-order systems do."""

import math
from pathlib import Path

import pytest
from pydantic import ValidationError

from contract.node_info import TemperatureReading
from contract.trial_spec import DeadlineSpec, SteadySpec, TrialSpec
from testbed.engines.fake_engine import FakeEngine
from testbed.meters.base import MeterProbe, MeterReport
from testbed.steady_state import SteadyState, halves_share, slope_c_per_min
from testbed.trial_run import Parts, run_trial
from testbed.workloads.fake_workload import FakeWorkload
from tests.testbed.test_trial_run import SPEC, NoThermometer, StillClock

TAU_S = 60.0
RISE_C = 20.0
RULE = SteadySpec(max_s=900.0, window_s=30.0, slope_c_per_min=0.5)


class WarmingThermometer:
    """One that follows T = 40 + 20 (1 - exp(-t / tau)), read at the clock."""

    def __init__(self, clock: StillClock) -> None:
        self._clock = clock
        self._start_ns = clock.monotonic_ns()

    def read(self) -> list[TemperatureReading]:
        elapsed_s = (self._clock.monotonic_ns() - self._start_ns) / 1e9
        return [TemperatureReading(sensor="soc", temp_c=40 + RISE_C * (1 - math.exp(-elapsed_s / TAU_S)))]


class RampMeter:
    """Power that rises to 10 W in 100 s and then stays."""

    name = "ramp"

    def __init__(self, clock: StillClock) -> None:
        self._clock = clock

    def probe(self) -> MeterProbe:
        return MeterProbe(True, "")

    def start(self, out_dir: Path) -> None:
        pass

    def latest_power_w(self) -> dict[str, float]:
        return {"gpu:0": min((self._clock.monotonic_ns() / 1e9 - 5.0) / 10, 10.0)}

    def stop(self) -> MeterReport:
        return MeterReport((), None)


def test_it_waits_until_the_exponential_is_as_flat_as_the_rule() -> None:
    clock = StillClock()
    steady = SteadyState(RULE, WarmingThermometer(clock), (), clock)
    report = steady.reach(lambda _: clock.sleep(2.0))
    # dT/dt = rise / tau exp(-t / tau), in the middle of the window, is 0.5 C/min at t = tau ln(2 rise 60 / tau).
    expected_s = TAU_S * math.log(2 * RISE_C * 60 / TAU_S) + RULE.window_s / 2
    assert report.is_steady and report.rule == "temperature"
    assert report.waited_s == pytest.approx(expected_s, abs=6.0)
    assert report.slope_c_per_min is not None and 0 < report.slope_c_per_min <= 0.5


def test_without_a_thermometer_even_power_is_steady() -> None:
    clock = StillClock()
    report = SteadyState(RULE, NoThermometer(), [RampMeter(clock)], clock).reach(lambda _: clock.sleep(2.0))
    assert report.is_steady and report.rule == "power" and report.power_share is not None
    # Halves of a window of 30 s: nearly all of it lies on the plateau, which begins at 100 s.
    assert 105.0 < report.waited_s <= 130.0


def test_without_any_sensor_the_stated_time_is_worked(tmp_path: Path) -> None:
    clock = StillClock()
    report = SteadyState(RULE, NoThermometer(), (), clock).reach(lambda _: clock.sleep(7.0))
    assert (report.is_steady, report.rule) == (False, "time")
    assert 900.0 <= report.waited_s < 907.0 and report.n_requests == 129


def test_requests_longer_than_the_window_still_need_four_points() -> None:
    clock = StillClock()
    report = SteadyState(RULE, WarmingThermometer(clock), (), clock).reach(lambda _: clock.sleep(140.0))
    assert report.is_steady and report.n_requests >= 3


def test_slope_and_halves_are_those_of_the_data() -> None:
    assert slope_c_per_min([(0, 40.0), (30, 40.5), (60, 41.0), (90, 41.5)]) == pytest.approx(1.0)
    assert slope_c_per_min([(0, 40.0), (30, None), (60, 41.0), (90, 41.5)]) is None
    assert slope_c_per_min([(0, 40.0), (1, 40.0), (2, 40.0)]) is None
    assert halves_share([9.0, 9.0, 11.0, 11.0]) == pytest.approx(0.2)
    assert halves_share([10.0, None, 10.0, 10.0]) is None


def test_the_trial_works_in_its_warm_up_and_says_how_it_ended(tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"steady": SteadySpec(max_s=0.0)})
    parts = Parts(FakeEngine(), None, FakeWorkload(n_items=4), (), NoThermometer())
    record = run_trial(spec, parts, tmp_path, StillClock())
    assert record.error is None and record.steady is not None and record.workload is not None
    assert record.steady.rule == "time" and record.steady.n_requests == 1
    assert [window.phase.value for window in record.phases] == ["load", "baseline", "warmup", "measure"]
    assert record.workload.n_requests == 4  # none of the warm-up's


def test_a_steady_state_that_the_warm_ups_deadline_forbids_is_refused() -> None:
    with pytest.raises(ValidationError, match="steady"):
        TrialSpec(
            **SPEC.model_dump(exclude={"steady", "deadline"}),
            steady=SteadySpec(max_s=600.0),
            deadline=DeadlineSpec(warmup_s=600.0),
        )
