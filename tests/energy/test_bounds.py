"""The bound that is stated holds, and a counter's impossible steps are not energy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.trial_result import EnergyMethod
from energy.counter import unwrap_counter
from energy.integrate import CumulativeEnergy
from energy.trace import Trace

TIME_S = np.arange(0.0, 10.0, 0.2)


def counter(values: np.ndarray, *, source: str = "energibridge", wrap_j: float | None = None) -> Trace:
    return Trace("x", "cpu", "counter", EnergyMethod.COUNTER, source, TIME_S[: values.size], values, wrap_j=wrap_j)


@settings(max_examples=300)
@given(
    start_s=st.floats(1.0, 8.0),
    length_s=st.floats(0.001, 0.5),
    steps_up=st.booleans(),
)
def test_the_bound_holds_for_a_window_that_cuts_an_interval(start_s: float, length_s: float, steps_up: bool) -> None:
    # Power steps from 0 to 300 W (or back) at 5 s; between two readings it may step at any time.
    before, after = (0.0, 300.0) if steps_up else (300.0, 0.0)
    trace = Trace(
        "gpu:0", "gpu", "power", EnergyMethod.SAMPLED, "test", TIME_S + 0.1, np.where(TIME_S < 5.0, before, after)
    )
    found = CumulativeEnergy(trace).window(start_s, start_s + length_s)
    assert found.energy_j is not None and found.uncertainty_j is not None
    for step_s in (4.9001, 5.0, 5.0999):  # every one of them gives the same readings
        split_s = float(np.clip(step_s, start_s, start_s + length_s))
        truth_j = before * (split_s - start_s) + after * (start_s + length_s - split_s)
        assert abs(found.energy_j - truth_j) <= found.uncertainty_j + 1e-9


@given(phase_s=st.floats(0.0, 0.3), start_s=st.floats(1.0, 8.0), length_s=st.floats(0.05, 1.0))
def test_the_bound_holds_where_power_turns_between_two_equal_readings(
    phase_s: float, start_s: float, length_s: float
) -> None:
    # 0.15 s high, 0.15 s low: between two high readings 0.2 s apart it was low. Their neighbours know.
    def high_s(until_s: float) -> float:
        n_whole, rest_s = divmod(until_s, 0.3)  # of one division: 3.6 / 0.3 is 12, and 3.6 % 0.3 almost 0.3
        return n_whole * 0.15 + min(rest_s, 0.15)

    watts = np.where((TIME_S + phase_s) % 0.3 < 0.15, 300.0, 50.0)
    trace = Trace("gpu:0", "gpu", "power", EnergyMethod.SAMPLED, "test", TIME_S, watts)
    found = CumulativeEnergy(trace).window(start_s, start_s + length_s)
    truth_j = 50.0 * length_s + 250.0 * (high_s(start_s + length_s + phase_s) - high_s(start_s + phase_s))
    assert found.energy_j is not None and found.uncertainty_j is not None
    assert abs(found.energy_j - truth_j) <= found.uncertainty_j + 1e-9


@given(x=st.floats(0.0, 1.0))
def test_the_bound_of_a_counter_covers_either_side_of_a_mark(x: float) -> None:
    values = 100.0 * TIME_S
    found = CumulativeEnergy(counter(values)).window(2.0 + 0.2 * x, 6.0)
    assert found.energy_j is not None and found.uncertainty_j is not None
    for truth_j in (400.0, 380.0):  # all of the interval's 20 J before the mark, or after it
        if 0.001 < x < 0.999:
            assert abs(found.energy_j - truth_j) <= found.uncertainty_j + 1e-6


def test_a_jump_that_no_machine_draws_is_not_energy() -> None:
    values = 1000.0 + 100.0 * TIME_S
    values[20:] += 200_000.0
    unwound = unwrap_counter(TIME_S, values)
    assert unwound.unexplained == (20,)
    assert unwound.energy_j[-1] == pytest.approx(960.0)  # 49 intervals of 20 J, less the refused one
    cumulative = CumulativeEnergy(counter(values))
    assert cumulative.window(1.0, 9.0).energy_j is None
    assert cumulative.window(1.0, 9.0).n_unexplained == 1
    assert cumulative.window(5.0, 9.0).energy_j == pytest.approx(400.0)


def test_a_counter_that_ticks_rarely_makes_no_impossible_step() -> None:
    # NVML's counter ticks every 100 ms; read every 10 ms at 700 W it stands still and then steps by 70 J.
    time_s = np.arange(0.0, 5.0, 0.01)
    values = 700.0 * np.floor(time_s / 0.1 + 1e-9) * 0.1
    assert unwrap_counter(time_s, values).unexplained == ()


def test_moduli_are_inferred_for_energibridge_alone() -> None:
    # A counter that started again at 0 just below 2^16 J is a wrap in EnergiBridge's log, and a reset of NVML's.
    values = (65_400.0 + 100.0 * TIME_S) % 65_536.0
    assert CumulativeEnergy(counter(values)).window(0.5, 9.0).energy_j == pytest.approx(850.0)
    reset = CumulativeEnergy(counter(values, source="nvml")).window(0.5, 9.0)
    assert (reset.energy_j, reset.n_unexplained) == (None, 1)
    known = CumulativeEnergy(counter(values, source="rapl", wrap_j=65_536.0)).window(0.5, 9.0)
    assert (known.energy_j, known.n_wraps) == (pytest.approx(850.0), 1)
