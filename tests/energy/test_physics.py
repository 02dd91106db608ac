"""Physics, not mocks: what is true of any machine must come out whatever the sampling."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contract.trial_result import EnergyMethod
from energy.counter import unwrap_counter
from energy.integrate import CumulativeEnergy
from energy.trace import Trace


def power(time_s: np.ndarray, power_w: np.ndarray) -> Trace:
    return Trace("gpu:0", "gpu", "power", EnergyMethod.SAMPLED, "test", time_s, power_w)


def counter(time_s: np.ndarray, energy_j: np.ndarray, wrap_j: float | None = None) -> Trace:
    return Trace("cpu_package", "cpu", "counter", EnergyMethod.COUNTER, "test", time_s, energy_j, wrap_j=wrap_j)


@pytest.mark.parametrize("period_s", [0.01, 0.07, 0.2, 1.0])
@pytest.mark.parametrize("kind", ["power", "counter"])
def test_100_w_for_10_s_is_1000_j(period_s: float, kind: str) -> None:
    time_s = np.arange(-1.0, 12.0, period_s)
    trace = power(time_s, np.full_like(time_s, 100.0)) if kind == "power" else counter(time_s, 100 * (time_s + 1))
    window = CumulativeEnergy(trace).window(0.123, 10.123)
    assert window.energy_j == pytest.approx(1000.0, rel=1e-4)
    assert window.period_s == pytest.approx(period_s)
    assert (window.n_gaps, window.n_wraps, window.n_unexplained) == (0, 0, 0)


def test_a_ramp_is_exact_with_linear_interpolation() -> None:
    time_s = np.arange(0.0, 10.5, 0.5)
    window = CumulativeEnergy(power(time_s, 20 * time_s)).window(1.25, 7.75)
    assert window.energy_j == pytest.approx(10 * (7.75**2 - 1.25**2), rel=1e-9)


def high_s(until_s: float) -> float:
    """Seconds that a wave of period 0.7 s, which begins high, has been high since 0."""
    return float(np.floor(until_s / 0.7) * 0.35 + min(until_s % 0.7, 0.35))


def test_a_square_wave_stays_within_its_own_bound() -> None:
    chance = np.random.default_rng(7)
    time_s = np.arange(0.0, 12.0, 0.2)
    for phase_s in chance.uniform(0, 0.7, 1000):
        watts = np.where((time_s + phase_s) % 0.7 < 0.35, 300.0, 50.0)
        window = CumulativeEnergy(power(time_s, watts)).window(1.0, 11.0)
        truth_j = 500.0 + 250.0 * (high_s(11.0 + phase_s) - high_s(1.0 + phase_s))
        assert window.energy_j is not None and window.uncertainty_j is not None
        assert abs(window.energy_j - truth_j) <= window.uncertainty_j
        # A bound that says nothing would hold as well: no power outside the readings' range is in it.
        assert window.uncertainty_j <= 2500.0


@given(
    marks=st.lists(st.floats(0.0, 20.0), min_size=2, max_size=20, unique=True).map(sorted),
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(["power", "counter"]),
)
def test_windows_sum_to_the_whole(marks: list[float], seed: int, kind: str) -> None:
    chance = np.random.default_rng(seed)
    time_s = np.sort(chance.uniform(0.0, 20.0, 150))
    time_s[0], time_s[-1] = 0.0, 20.0
    watts = chance.uniform(1.0, 500.0, time_s.size)
    trace = power(time_s, watts) if kind == "power" else counter(time_s, np.cumsum(watts))
    cumulative = CumulativeEnergy(trace)
    parts = [cumulative.at(b) - cumulative.at(a) for a, b in itertools.pairwise(marks)]
    whole = cumulative.at(marks[-1]) - cumulative.at(marks[0])
    assert sum(parts) == pytest.approx(whole, rel=1e-9, abs=1e-6)


@settings(max_examples=200)
@given(
    seed=st.integers(0, 2**32 - 1),
    wrap_j=st.sampled_from([65536.0, 262144.0]),
    known=st.booleans(),
    just_after=st.booleans(),
    missing=st.floats(0.0, 0.3),
)
def test_wraps_change_nothing(seed: int, wrap_j: float, known: bool, just_after: bool, missing: float) -> None:
    chance = np.random.default_rng(seed)
    time_s = np.cumsum(chance.uniform(0.15, 0.25, 400))
    true_j = np.cumsum(chance.uniform(20.0, 600.0, 400) * 0.2)
    # The start is chosen so that the counter wraps in the record, at the latest at its middle sample.
    start_j = wrap_j - true_j[200] + (1e-6 if just_after else 0.0)
    raw_j = (true_j + start_j) % wrap_j
    keep = chance.random(400) >= missing
    keep[[0, 199, 200, -1]] = True
    unwound = unwrap_counter(time_s[keep], raw_j[keep], wrap_j=wrap_j if known else None)
    assert unwound.unexplained == ()
    assert unwound.n_wraps == int(np.floor((true_j[-1] + start_j) / wrap_j) - np.floor((true_j[0] + start_j) / wrap_j))
    # Without the modulus, readings that never pass 65536 J leave both candidates open; the smaller one explains them.
    if known or raw_j[keep].max() > 65536.0 or wrap_j == 65536.0:
        assert unwound.energy_j[-1] == pytest.approx(true_j[keep][-1] - true_j[keep][0], rel=1e-9)


def test_a_step_that_no_wrap_explains_is_not_a_number() -> None:
    time_s = np.arange(0.0, 10.0, 0.2)
    energy_j = 1000 + 100 * time_s
    energy_j[25:] -= 2000.0  # back by 2 kJ: a reset, not a wrap
    window = CumulativeEnergy(counter(time_s, energy_j + 5000)).window(1.0, 9.0)
    assert window.energy_j is None
    assert window.n_unexplained == 1
    before = CumulativeEnergy(counter(time_s, energy_j + 5000)).window(1.0, 4.0)
    assert before.energy_j == pytest.approx(300.0)


def test_a_gap_is_counted_and_a_window_outside_is_not_covered() -> None:
    time_s = np.concatenate([np.arange(0.0, 5.0, 0.2), np.arange(7.0, 12.0, 0.2)])
    cumulative = CumulativeEnergy(power(time_s, np.full_like(time_s, 100.0)))
    assert cumulative.window(1.0, 11.0).n_gaps == 1
    assert cumulative.window(8.0, 11.0).n_gaps == 0
    outside = cumulative.window(10.0, 20.0)
    assert outside.energy_j is None
    assert outside.uncovered_s == pytest.approx(20.0 - time_s[-1])


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_samples_are_no_energy(n: int) -> None:
    time_s = np.arange(float(n))
    assert CumulativeEnergy(power(time_s, time_s + 1)).window(0.0, 1.0).energy_j is None
